"""Batch normalisation of one process, and how to find any in a module."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorm(nn.Module):
    """Batch normalisation that stays what it is when several processes train.

    Input (batch, channels, ...), names and numbers of ``torch.nn.BatchNorm1d`` and
    ``BatchNorm2d``, but none of their kind: SpeechBrain converts those to
    ``SyncBatchNorm`` whenever several processes train, which does not run on CPUs.

    Nothing is synchronised, on GPUs either: each process normalises over its own batch,
    so that what is learned depends on the batch of a process and not on their number.
    ``DistributedDataParallel`` gives all processes the running statistics of the first
    before each forward pass, unless it is told not to (``broadcast_buffers=False``).
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalises each channel: by the batch in training, else by what it was.

        The batch is what a mask (batch, last axis) marks; all of it without one.
        """
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.training and mask is not None:
            return self._normalize_marked(inputs, mask)
        return F.batch_norm(
            inputs,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )

    def _normalize_marked(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Normalises in training by what is marked alone."""
        values = inputs.float()
        channel = (1, -1) + (1,) * (values.dim() - 2)
        axes = [0, *range(2, values.dim())]
        marked = mask.view(len(mask), *(1,) * (values.dim() - 2), -1)
        count = mask.sum() * (values[0, 0].numel() // mask.shape[1])
        mean = torch.where(marked, values, 0).sum(axes) / count
        centred = values - mean.view(channel)
        variance = torch.where(marked, centred, 0).square().sum(axes) / count
        with torch.no_grad():
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        out = centred * scale.view(channel) + self.bias.view(channel)
        return out.to(inputs.dtype)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"{len(self.weight)}, eps={self.eps}, momentum={self.momentum}"


def batch_norms(module: nn.Module) -> list[BatchNorm | _BatchNorm]:
    """All batch normalisation in a module: ours, and torch's in what others made."""
    kinds = (BatchNorm, _BatchNorm)
    return [part for part in module.modules() if isinstance(part, kinds)]


@torch.no_grad()
def measure_batch_statistics(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Running statistics as means over batches, as torch's ``update_bn`` takes them.

    That knows torch's batch normalisation only.
    """
    norms = batch_norms(module)
    training, momenta = module.training, [norm.momentum for norm in norms]
    module.train()
    for number, batch in enumerate(batches, start=1):
        for norm in norms:
            norm.momentum = 1 / number
        module(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.train(training)
