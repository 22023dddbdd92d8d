"""What is not finite, or not of the scale of audio, passes for nothing.

A ReLU that a CPU has fused into a convolution turns NaN into 0, and the closest of
some codebook entries is always one of them: what is not finite at the start looks like
music at the end. So it is refused where it comes in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from muq_plugins.lobes.lengths import absolute_lengths, check_shape, length_mask
from muq_plugins.lobes.linear import is_traced

# 30 dB above full scale: no music in floating point is that loud, but samples of 16-bit
# integers are, unless they are below -60 dBFS throughout. `data.audio` has it too.
MAX_AMPLITUDE = 32.0
SCALING = {
    torch.int16: "wavs.float() / 32768",
    torch.int32: "wavs.double() / 2**31",
    torch.int8: "wavs.float() / 128",
    torch.uint8: "(wavs.float() - 128) / 128",
}


def finite(tensor: Tensor) -> Tensor:
    """Whether all values are, on their device: one pass over memory, nothing stored."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return torch.ones((), dtype=torch.bool, device=tensor.device)
    if tensor.itemsize == 1:  # of the 8-bit floats there are no reductions
        tensor = tensor.float()
    return torch.stack(tensor.detach().aminmax()).isfinite().all()


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are."""
    return bool(finite(tensor))


class Refusals:
    """What the checks of a training have found, kept on the device until `tell`.

    A check that decides at once has the processor wait for the device, and then the
    device for the processor.
    """

    active: Refusals | None = None

    def __init__(self):
        self._good: dict[str, Tensor] = {}

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Has the checks in a ``with`` block note what they find here."""
        before, Refusals.active = Refusals.active, self
        try:
            yield
        finally:
            Refusals.active = before

    def note(self, good: Tensor, message: str) -> None:
        """Remembers that something was, or was not, as it should be."""
        self._good[message] = good & self._good.get(message, good)

    def tell(self) -> None:
        """Raises what has been found since it was asked last."""
        found, self._good = self._good, {}
        for message, good in found.items():
            if not good:
                raise ValueError(message)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that hold NaN or infinite values."""
    return [name for name, tensor in tensors.items() if not is_finite(tensor)]


def check_weights(
    state: Mapping[str, Tensor], where: object, error: type[ValueError] = ValueError
) -> None:
    """Refuses tensors that are not finite, which may look as if all were well."""
    # A counter that nothing reads outgrows half precision.
    bad = [name for name in not_finite(state) if "num_batches_tracked" not in name]
    if bad:
        more = f" and of {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        raise error(
            f"{where}: values of {bad[0]}{more} are NaN or infinite. The training has "
            f"diverged or the file is damaged: take an earlier or another one."
        )


def check_wavs(wavs: Tensor, wav_lens: Tensor | None = None) -> None:
    """Refuses what are not waveforms (batch, samples) in floating point, -1..1.

    It costs one pass over the samples. Beyond the end of a clip anything is allowed,
    unless `Refusals` are collected.
    """
    check_shape(wavs)
    if not wavs.is_floating_point():
        remedy = SCALING.get(wavs.dtype, "real floating point numbers in -1..1")
        raise ValueError(
            f"Waveforms must be floating point in -1..1, got {wavs.dtype}: give "
            f"{remedy} instead."
        )
    if is_traced():
        return
    if not len(wavs):
        raise ValueError("There is no audio: wavs has a batch of 0.")
    if wavs.numel() == 0:
        return
    low, high = wavs.detach().aminmax()
    good = torch.maximum(-low, high) <= MAX_AMPLITUDE
    if Refusals.active is not None:  # the samples are not kept to find the bad one
        message = (
            f"Waveforms hold NaN, infinite samples or some beyond {MAX_AMPLITUDE:g} "
            f"times full scale: leave these clips out."
        )
        Refusals.active.note(good, message)
        return
    if good:
        return
    bad = ~(wavs.detach().abs() <= MAX_AMPLITUDE)
    batch, samples = wavs.shape
    lengths = absolute_lengths(wav_lens, samples, batch)
    mask = length_mask(lengths, samples, wavs.device)
    bad = bad if mask is None else bad & mask
    if not bad.any():
        return
    clip, sample = bad.nonzero()[0].tolist()
    value = wavs[clip, sample].item()
    raise ValueError(
        f"Sample {sample} of clip {clip} (of {batch}) is {value:g}, but samples lie in "
        f"-1..1: leave out what holds NaN or infinite samples, and divide what was "
        f"made from 16-bit integers by 32768."
    )


def check_computed(values: Tensor, module: nn.Module) -> None:
    """Refuses what a module has computed if it is not finite, though its input was."""
    if not is_traced():
        refuse_unless(
            finite(values),
            f"{type(module).__name__} computes NaN or infinite values: its weights or "
            f"statistics are damaged, or too large for {values.dtype}.",
        )


def refuse_unless(good: Tensor, message: str) -> None:
    """Raises at once, or when the `Refusals` that are collected are told."""
    if Refusals.active is not None:
        Refusals.active.note(good, message)
    elif not good:
        raise ValueError(message)
