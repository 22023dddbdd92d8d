"""Saved folders: written, found here or on the Hugging Face hub, loaded strictly.

A folder holds ``config.json`` (plain numbers), ``model.safetensors`` (weights) and,
for SpeechBrain's ``from_hparams``, ``hyperparams.yaml``. Reading one executes nothing:
numbers are data, and so are weights. What a folder is a model of, its reader knows:
`muq`, `mulan_parts`, `tokenizer`, and the two official layouts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from muq_plugins.errors import UserError, nearest, shown
from muq_plugins.files import atomic_folder, read_json
from muq_plugins.lobes.finite import check_weights

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PICKLE = "pytorch_model.bin"
# In the config of a folder, for people: no hash of a model looks at it.
TRAINED_ON = "trained_on"
UNKNOWN = "unknown"
HYPERPARAMETERS = "hyperparams.yaml"
# Models that come along, each a folder with its tokenizer in it: known by their names.
PACKAGED = Path(__file__).parents[1] / "models"
MODELS = (
    "a finished run (`muq-plugins train muq.yaml` makes one), of a "
    "downloaded model, or a hub id like OpenMuQ/MuQ-large-msd-iter"
)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # no ./x or ../x
# Weight normalisation has been saved under two pairs of names.
SPELLINGS = {
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
}


class NoModel(UserError, FileNotFoundError):
    """There is no trained model: nothing random ever takes its place."""


def save_folder(
    folder: str | Path,
    tensors: dict[str, Tensor],
    config: dict[str, Any],
    hyperparameters: str | None = None,
    loadable: str | None = None,
    write_more: Callable[[Path], None] | None = None,
) -> Path:
    """Writes an inference folder; it is complete or not there.

    ``loadable`` is the name under which SpeechBrain's Pretrainer looks for the weights;
    ``write_more(folder)`` writes what else belongs there before it gets its name.
    """
    folder = Path(folder)
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()
    }
    check_weights(tensors, f"The model for {folder}", UserError)
    with atomic_folder(folder) as unfinished:
        text = json.dumps(config, indent=2) + "\n"
        (unfinished / CONFIG).write_text(text, encoding="utf-8")
        save_file(tensors, unfinished / WEIGHTS, metadata={"format": "pt"})
        # Safetensors lets nobody else read what it has written.
        shutil.copymode(unfinished / CONFIG, unfinished / WEIGHTS)
        if hyperparameters is not None:
            path = unfinished / HYPERPARAMETERS
            path.write_text(hyperparameters, encoding="utf-8")
        if loadable is not None:
            # The Pretrainer finds <loadable>.ckpt and nothing else beside its YAML. A
            # second name for the same file takes no space.
            os.link(unfinished / WEIGHTS, unfinished / f"{loadable}.ckpt")
        if write_more is not None:
            write_more(unfinished)
    return folder


def find_folder(
    source: str | Path,
    what: str,
    weights: Iterable[str] = (WEIGHTS,),
    remedy: str = "a finished run",
) -> Path:
    """The inference folder of ``what`` in a run folder, or the folder itself."""
    name, source = str(source), packaged(source)
    for folder in (source, source / "inference"):
        if _is_whole(folder, weights):
            return folder
    names = sorted(path.name for path in PACKAGED.iterdir())
    also = f"{' or '.join(names)}, which comes with the package"
    if name in names:
        also = f"work elsewhere: this folder hides the {name} of the package"
    raise NoModel(
        f"No trained {what} in {source}: neither it nor {source / 'inference'} holds "
        f"{CONFIG} and {' or '.join(weights)}. Give the folder of {remedy}, or {also}."
        f"{_perhaps(name, what)}"
    )


def _perhaps(name: str, what: str) -> str:
    """The model here whose name is most like a wrong one, as a question."""
    *above, _ = Path(name).parts or [""]
    known = {path.parent.name for path in PACKAGED.glob(f"*/{CONFIG}")}
    for depth in range(min(len(above), 2) + 1):  # the seed, or the experiment, is wrong
        place = Path(*above[: len(above) - depth])
        runs = islice(place.glob("*/" * (depth + 1) + f"inference/{CONFIG}"), 1000)
        known |= {run.parents[1].as_posix() for run in runs}
    if what != "tokenizer":  # that of a run is none of what else there is
        known = {run for run in known if Path(run).name != "tokenizer"}
    close = nearest(name, known, cutoff=0.75)
    return f" Do you mean {close}?" if close and close != name else ""


def packaged(source: str | Path) -> Path:
    """The folder behind the name of a model that comes along, or the path itself.

    What is here by that name wins, as it does over a model on the hub.
    """
    path = Path(source)
    known = path.name == str(source) and (PACKAGED / path / CONFIG).is_file()
    return PACKAGED / path if known and not path.exists() else path


def find_model(
    source: str | Path,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    more: Iterable[str] = (),
) -> Path:
    """The folder of a model, downloaded if it is on the hub.

    A folder of that name wins over a model on the hub. Of the hub's files only the
    config, one file of weights and those named by ``more`` are downloaded.
    """
    if is_hub_id(source):
        hub_id = str(source)
        source = download(hub_id, [CONFIG, WEIGHTS, *more], revision, cache_dir)
        if not (source / WEIGHTS).is_file():
            source = download(hub_id, [PICKLE], revision, cache_dir)
    return find_folder(source, "MuQ model", (WEIGHTS, PICKLE), MODELS)


def _is_whole(folder: Path, weights: Iterable[str]) -> bool:
    """Whether this holds a model, with one of some files of weights."""
    return (folder / CONFIG).is_file() and any((folder / x).is_file() for x in weights)


def is_hub_id(source: str | Path) -> bool:
    """Whether this is a name on the hub, and nothing on this machine."""
    return not Path(source).exists() and bool(HUB_ID.fullmatch(str(source)))


def download(
    hub_id: str,
    files: list[str],
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """The local copy of those of some files that a model on the hub has."""
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                cache_dir=cache_dir,
                allow_patterns=files,
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise NoModel(
            f"{hub_id} is no folder here and could not be downloaded from the Hugging "
            f"Face hub ({error}). Check the name, or download what it has of "
            f"{', '.join(files)} on a machine with a network and give the folder."
            f"{_perhaps(hub_id, 'model')}"
        ) from error


def read_config(folder: str | Path) -> dict[str, Any]:
    """The content of ``config.json``, which must be a JSON object."""
    path = Path(folder) / CONFIG
    config = read_json(path, "make the folder again from its run, or download it again")
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(config).__name__}.")
    return config


def other_kind(folder: Path, config: dict[str, Any], wanted: str) -> UserError:
    """The error for a folder of something else than what is wanted."""
    kind = config.get("kind") or "model of unknown kind"
    article = "an" if kind[0] in "aeiou" else "a"
    return UserError(f"{folder} holds {article} {kind}, not a {wanted}.")


def trained_on(config: dict[str, Any]) -> str:
    """What the model of a config has heard, as far as its folder says."""
    words = config.get(TRAINED_ON)
    return shown(words) if isinstance(words, str) and words else UNKNOWN


def find_weights(folder: str | Path) -> Path:
    """The file of weights of a folder, safetensors where there are any."""
    path = Path(folder) / WEIGHTS
    return path if path.is_file() else path.with_name(PICKLE)


def read_tensors(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Reads a file of tensors, on the CPU; a pickle can hold nothing but tensors.

    They may be under a key, beside numbers. Raises UserError if it is damaged, holds
    something else, or would execute code.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise UserError(
            f"{path} is not a readable file of tensors ({error}): download it again. "
            "Files that would execute code are refused."
        ) from error
    if key is not None and isinstance(state, dict):
        state = state.get(key)
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        under = f" under {key!r}" if key else ""
        raise UserError(f"{path} must hold named tensors{under} and nothing else.")
    return {one_spelling(name): tensor for name, tensor in state.items()}


def _is_other_kind(found: Tensor, expected: Tensor) -> bool:
    """Whether the numbers mean something else; counters are halved with the rest."""
    if found.is_floating_point():
        return False
    return expected.is_floating_point() or found.is_complex()


def one_spelling(name: str) -> str:
    """The name of a tensor with the older pair of names for weight normalisation."""
    for new, old in SPELLINGS.items():
        name = name.replace(new, old)
    return name


def load_strictly(
    module: nn.Module,
    state: dict[str, Tensor],
    where: str | Path,
    optional: Callable[[str], bool] = lambda name: False,
    shown_as: Callable[[str], str] = lambda name: name,
) -> None:
    """Loads tensors: all must be there, known, finite, of the right shape and kind.

    Raises UserError that names every difference, by the names that ``where`` uses.
    ``optional(name)`` is True for tensors that may be missing.
    """
    expected = module.state_dict()
    # The module may be spelt either way too: that depends on versions of libraries.
    ours = {one_spelling(name): name for name in expected}
    state = {ours.get(one_spelling(name), name): t for name, t in state.items()}
    problems = []
    for name in sorted(expected.keys() | state.keys()):
        found, wanted, label = state.get(name), expected.get(name), shown_as(name)
        if found is None:
            problems += [] if optional(name) else [f"missing: {label}"]
        elif wanted is None:
            problems.append(f"unknown: {label}")
        elif found.shape != wanted.shape:
            shapes = f"{tuple(found.shape)}, expected {tuple(wanted.shape)}"
            problems.append(f"{label}: shape {shapes}")
        elif _is_other_kind(found, wanted):
            problems.append(f"{label}: {found.dtype}, expected {wanted.dtype}")
    if problems:
        raise UserError(
            f"{where} does not fit {type(module).__name__}:\n  " + "\n  ".join(problems)
        )
    check_weights(state, where, UserError)
    module.load_state_dict({**expected, **state})


def load_weights(module: nn.Module, folder: str | Path) -> None:
    """Loads the weights of an inference folder strictly."""
    path = Path(folder) / WEIGHTS
    load_strictly(module, read_tensors(path), path)


def pretrainer_hook(module: nn.Module, path: str | Path) -> None:
    """Lets SpeechBrain's Pretrainer load safetensors, strictly; folders name it so."""
    load_strictly(module, load_file(path), path)
