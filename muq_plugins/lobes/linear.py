"""Linear maps by the fastest float32 matrix product that the CPU has.

torch multiplies float32 matrices on a CPU with MKL, which uses half of the vector
units of some processors or less. oneDNN, which is also part of torch and computes its
convolutions, uses them. It is reached here through the operator that torch.compile
uses, and only where it applies: float32 on a CPU, outside autocast. Everywhere else
this is `torch.nn.functional.linear`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(vectors: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Computes ``vectors @ weight.T + bias``."""
    if not onednn_applies(vectors, weight):
        return F.linear(vectors, weight, bias)
    if torch.is_grad_enabled():
        return _OneDNNLinear.apply(vectors, weight, bias)
    return _product(vectors, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear`, computed by `linear`."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Applies the layer."""
        return linear(vectors, self.weight, self.bias)


class Pointwise(nn.Conv1d):
    """A `torch.nn.Conv1d` of kernel 1 without bias, applied to the last axis.

    It is a linear map, which saves two transpositions; only the weights keep the
    convolution's shape.
    """

    def forward(self, vectors: Tensor) -> Tensor:
        """Applies the layer."""
        return linear(vectors, self.weight[..., 0])


def round_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Rounds the weights of linear maps once, as autocast would at every call.

    For inference under that autocast, where results stay the same, bit for bit.
    """
    for part in module.modules():
        if isinstance(part, (Linear, Pointwise)):
            part.to(dtype)


def onednn_applies(inputs: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's operators may take the place of torch's."""
    return (
        # Compilers and exporters know common operators, not these.
        not is_traced()
        # torch.func transforms operators that it knows the derivatives of.
        and not torch._C._are_functorch_transforms_active()
        and inputs.device.type == "cpu"
        and inputs.dtype is torch.float32
        and weight.dtype is torch.float32
        and inputs.numel() > 0
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )


def _product(vectors: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``vectors @ weight.T + bias`` by oneDNN, without a gradient."""
    return torch.ops.mkldnn._linear_pointwise(vectors, weight, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    """Gives oneDNN's product its gradient, two more such products.

    Those have gradients as well, for a backward pass with ``create_graph``.
    """

    @staticmethod
    def forward(ctx, vectors, weight, bias):
        ctx.save_for_backward(vectors, weight)
        ctx.has_bias = bias is not None
        return _product(vectors, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        product = _OneDNNLinear.apply if torch.is_grad_enabled() else _product
        vectors, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        to_vectors = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_vectors = product(gradient, weight.t(), None)
        if ctx.needs_input_grad[1]:
            inputs = vectors.reshape(-1, vectors.shape[-1])
            to_weight = product(rows.t(), inputs.t(), None)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            to_bias = rows.sum(0)
        return to_vectors, to_weight, to_bias


def is_traced() -> bool:
    """Whether the code is being compiled, traced or exported instead of executed.

    Lobes leave out what only speeds up ordinary execution then: compilers do such
    things themselves, and exported graphs must hold operators that others know.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
