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

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalises each channel: by the batch in training, else by what it was."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
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
