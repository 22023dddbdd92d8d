"""Inference in 8-bit integers, on CPUs that multiply them several times as fast.

Weights have a scale for each output, the inputs of linear maps one for each frame, the
images of a convolution one for each clip: what is computed of a clip does not depend on
others in its batch. Normalisations, attention, depthwise convolutions, the spectrogram
and the first convolution, which has one channel, stay in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from muq_plugins.lobes.encoders.muq import MuQEncoder
from muq_plugins.lobes.front_end import ResidualBlock2d, onednn_convolution
from muq_plugins.lobes.linear import Linear, Pointwise

ONLY = (
    "This encoder computes in int8 on a CPU, and nothing else: load the model again to "
    "train, move, convert, export or save it."
)


def check_int8() -> None:
    """Refuses processors on which 8-bit products are slow, or wrong.

    x86 processors without VNNI add pairs of products in 16 bits, which overflow.

    Raises
    ------
    ValueError
        If this is such a processor.
    """
    high = torch.full((32, 64), 127, dtype=torch.int8)
    fast = "AVX" in torch.backends.cpu.get_cpu_capability()
    fast = fast and torch.backends.mkldnn.is_available()
    right = fast and (torch._int_mm(high, high.t()) == 64 * 127**2).all()
    if right:  # products may be right where convolutions are not
        convolution = _Int8Conv2d(torch.ones(32, 32, 3, 3), torch.zeros(32), 1)
        images = torch.full((1, 32, 8, 8), 255, dtype=torch.uint8)
        images = images.contiguous(memory_format=torch.channels_last)
        inner = convolution(images, 1 / 255, "none")[..., 1:-1, 1:-1]
        right = (inner - 32 * 9).abs().max() < 1
    if not right:
        raise ValueError(
            "int8 needs an x86 processor with VNNI (Intel since 2019, AMD since 2022), "
            "and this is none: compute in float32."
        )


def to_int8(encoder: nn.Module) -> nn.Module:
    """Makes an encoder compute in int8, in place and for good.

    Arguments
    ---------
    encoder : MuQEncoder
        In float32 on the CPU. It takes a quarter of its memory afterwards, and cannot
        be trained, moved or saved any more.

    Returns
    -------
    MuQEncoder
        The same.

    Raises
    ------
    ValueError
        If it is another encoder, is not on the CPU or not in float32, or if the
        processor does not suit.

    Example
    -------
    >>> encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64,
    ...                      conv_channels=4).eval()
    >>> wavs = torch.randn(1, 24000)
    >>> with torch.no_grad():
    ...     expected = encoder(wavs).last_hidden_state
    ...     found = to_int8(encoder)(wavs).last_hidden_state
    >>> bool(0 < (found - expected).norm() < 0.1 * expected.norm())
    True
    """
    if not isinstance(encoder, MuQEncoder):
        raise ValueError(
            f"Only a MuQEncoder computes in int8, not a {type(encoder).__name__}: "
            f"compute in float32."
        )
    for tensor in encoder.parameters():
        if (tensor.device.type, tensor.dtype) != ("cpu", torch.float32):
            raise ValueError(
                f"int8 is made of float32 on the CPU, but this encoder has "
                f"{tensor.dtype} on {tensor.device}: load it on the CPU (--device cpu)."
            )
    check_int8()
    encoder.eval().requires_grad_(False)
    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (Linear, Pointwise)):
                setattr(parent, name, _Int8Linear(child))
            elif isinstance(child, ResidualBlock2d):
                setattr(parent, name, _Int8Block2d(child))
    return encoder


def is_int8(encoder: nn.Module) -> bool:
    """Whether an encoder went through `to_int8`."""
    return any(isinstance(part, _Int8) for part in encoder.modules())


class _Int8(nn.Module):
    """Computes, and refuses whatever else modules do."""

    def __init__(self):
        super().__init__()
        self.training = False

    def train(self, mode: bool = True) -> _Int8:
        if mode:
            raise ValueError(ONLY)
        return self

    def _apply(self, function, recurse: bool = True) -> _Int8:
        moved = function(torch.zeros(()))
        if (moved.device.type, moved.dtype) != ("cpu", torch.float32):
            raise ValueError(ONLY)
        return self

    def _save_to_state_dict(self, *_) -> None:
        raise ValueError(ONLY)


class _Int8Linear(_Int8):
    """A linear map of the last axis."""

    def __init__(self, linear: Linear | Pointwise):
        super().__init__()
        weight = linear.weight.flatten(1)
        levels, self.scale = _levels(weight)
        self.weight = levels.t()  # as the product takes it
        self.bias = weight.new_zeros(len(weight))
        if linear.bias is not None:
            self.bias = linear.bias.detach()

    def forward(self, vectors: Tensor) -> Tensor:
        levels, scale = _levels(vectors.flatten(0, -2))
        out = torch._int_mm(levels, self.weight) * scale[:, None]
        torch.addcmul(self.bias, out, self.scale, out=out)
        return out.unflatten(0, vectors.shape[:-1])


class _Int8Block2d(_Int8):
    """A `ResidualBlock2d`."""

    def __init__(self, block: ResidualBlock2d):
        super().__init__()
        folded = block.folded(torch.float32)
        self.weights = list(folded)
        self.first, self.shortcut = folded.first, folded.shortcut
        self.of_mel = block.conv1.in_channels == 1
        if not self.of_mel:
            self.first = _Int8Conv2d(*folded.first, stride=2)
            self.shortcut = _Int8Conv2d(*folded.shortcut, stride=2)
        self.second = _Int8Conv2d(*folded.second, stride=1)

    def folded(self, dtype: torch.dtype) -> _Int8Block2d:
        """It is."""
        return self

    def __iter__(self) -> Iterator[Tensor]:
        """All weights and biases, before they were rounded."""
        return iter(self.weights)

    def forward(self, images: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None:
            lengths = [None] * len(images)
        clips = zip(images.split(1), lengths, strict=True)
        return torch.cat([self._clip(*clip) for clip in clips])

    def _clip(self, images: Tensor, length: Tensor | None) -> Tensor:
        if self.of_mel:
            hidden = onednn_convolution(images, *self.first, 2, "relu")
            out = onednn_convolution(images, *self.shortcut, 2, "none")
        else:
            levels, scale = _positive_levels(images)
            hidden = self.first(levels, scale, "relu")
            out = self.shortcut(levels, scale, "none")
        if length is not None:
            hidden[..., length:] = 0
        out += self.second(*_positive_levels(hidden), "none")
        out.relu_()
        if length is not None:
            out[..., length:] = 0
        return out


class _Int8Conv2d:
    """A 3x3 convolution of images of 0..255."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int):
        levels, self.scale = _levels(weight.flatten(1))
        self.bias = bias.detach()
        self.zero = torch.zeros(len(bias), dtype=torch.int32)
        self.where = ([stride, stride], [1, 1], [1, 1], 1)
        levels = levels.view(weight.shape)
        levels = levels.contiguous(memory_format=torch.channels_last)
        self.packed = torch.ops.onednn.qconv_prepack(
            levels, self.scale, 1.0, 0, *self.where
        )

    def __call__(self, levels: Tensor, scale: float, activation: str) -> Tensor:
        weights = (self.packed, self.scale, self.zero, self.bias)
        out = (1.0, 0, torch.float32)
        return torch.ops.onednn.qconv_pointwise(
            levels, scale, 0, *weights, *self.where, *out, activation, [], ""
        )


def _levels(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rounds each row to -127..127 times its scale."""
    scale = rows.detach().abs().amax(1) / 127
    scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)
    return (rows.detach() / scale[:, None]).round_().to(torch.int8), scale


def _positive_levels(images: Tensor) -> tuple[Tensor, float]:
    """Rounds what is not negative to 0..255 times one scale."""
    scale = max(images.amax().item() / 255, torch.finfo(torch.float32).tiny)
    return images.div(scale).round_().to(torch.uint8), scale
