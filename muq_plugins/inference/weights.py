"""Reading weights as data, and loading them strictly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

# Weight normalisation has been saved under two pairs of names.
SPELLINGS = {
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
}


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a file of tensors; a pickle can hold nothing but tensors."""
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is not a readable file of tensors ({error}): download it again. "
            "Files that would execute code are refused."
        ) from error
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        raise ValueError(f"{path} must hold named tensors and nothing else.")
    return {_one_spelling(name): tensor for name, tensor in state.items()}


def _one_spelling(name: str) -> str:
    """The name of a tensor with the older pair of names for weight normalisation."""
    for new, old in SPELLINGS.items():
        name = name.replace(new, old)
    return name


def load_strictly(
    module: nn.Module,
    state: dict[str, Tensor],
    where: str | Path,
    optional: Callable[[str], bool] = lambda name: False,
) -> None:
    """Loads tensors: each must be there, be known, and have the right shape."""
    expected = module.state_dict()
    # The module may be spelt either way too: that depends on versions of libraries.
    ours = {_one_spelling(name): name for name in expected}
    state = {ours.get(_one_spelling(name), name): t for name, t in state.items()}
    missing = [name for name in expected.keys() - state.keys() if not optional(name)]
    problems = [f"missing: {name}" for name in sorted(missing)]
    problems += [f"unknown: {name}" for name in sorted(state.keys() - expected.keys())]
    problems += [
        f"{name}: shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        raise ValueError(
            f"{where} does not fit {type(module).__name__}:\n  " + "\n  ".join(problems)
        )
    module.load_state_dict({**expected, **state})
