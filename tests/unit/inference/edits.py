"""Changes to saved folders, and how far two results are apart."""

import json

import torch
from safetensors.torch import load_file, save_file

REMOVED = object()


def edit_config(folder, changes):
    """Sets keys of config.json; a dotted key is inside a section."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = config
        for name in sections:
            section = section[name]
        section[last] = value
        if value is REMOVED:
            del section[last]
    path.write_text(json.dumps(config))


def edit_tensors(folder, edit):
    """Changes the tensors of a folder in place, or by what `edit` returns."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(edit(tensors) or tensors, path)


def old_weight_norm(tensors):
    """Tensors by the older pair of names for weight normalisation."""
    new = ".parametrizations.weight.original"
    assert any(new in name for name in tensors)
    return {
        name.replace(f"{new}0", ".weight_g").replace(f"{new}1", ".weight_v"): tensor
        for name, tensor in tensors.items()
    }


def pickled(folder, content=None):
    """Puts a pickle in the place of the weights; without content, of the same ones."""
    path = folder / "model.safetensors"
    torch.save(content or load_file(path), folder / "pytorch_model.bin")
    path.unlink()


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise AssertionError('executed')",)


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()
