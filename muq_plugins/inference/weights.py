"""Reading weights as data, and loading them strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from muq_plugins.lobes.finite import not_finite

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
    check_weights(state, path)
    return {_one_spelling(name): tensor for name, tensor in state.items()}


def check_weights(state: Mapping[str, Tensor], where: str | Path) -> None:
    """Refuses tensors that are not finite, which may look as if all were well."""
    # A counter that nothing reads outgrows half precision.
    bad = [name for name in not_finite(state) if "num_batches_tracked" not in name]
    if bad:
        more = f" and of {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        raise ValueError(
            f"{where}: values of {bad[0]}{more} are NaN or infinite. The training has "
            f"diverged or the file is damaged: take an earlier or another one."
        )


def _one_spelling(name: str) -> str:
    """The name of a tensor with the older pair of names for weight normalisation."""
    for new, old in SPELLINGS.items():
        name = name.replace(new, old)
    return name


def _is_other_kind(found: Tensor, expected: Tensor) -> bool:
    """Whether the numbers mean something else; counters are halved with the rest."""
    if found.is_floating_point():
        return False
    return expected.is_floating_point() or found.is_complex()


def load_strictly(
    module: nn.Module,
    state: dict[str, Tensor],
    where: str | Path,
    optional: Callable[[str], bool] = lambda name: False,
) -> None:
    """Loads tensors: all must be there and known, of the right shape and kind."""
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
    problems += [
        f"{name}: {state[name].dtype}, expected {tensor.dtype}"
        for name, tensor in expected.items()
        if name in state and _is_other_kind(state[name], tensor)
    ]
    if problems:
        raise ValueError(
            f"{where} does not fit {type(module).__name__}:\n  " + "\n  ".join(problems)
        )
    module.load_state_dict({**expected, **state})
