"""Layers that are computed again in the backward pass, to save memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from muq_plugins.lobes.batch_norm import batch_norms


def recompute_later(module: nn.Module, *inputs: Any) -> Any:
    """Calls a module without keeping what the backward pass can compute again.

    The second computation would move running statistics a second time.
    """
    return checkpoint(
        module,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_at_rest(module)),
    )


@contextmanager
def _statistics_at_rest(module: nn.Module) -> Iterator[None]:
    """Batch normalisation as in training, except that nothing of a batch is kept.

    The running statistics themselves must be there: both computations save the same
    tensors for the backward pass.
    """
    norms = [
        (part, part.momentum, part.num_batches_tracked)
        for part in batch_norms(module)
        if part.training and part.running_mean is not None
    ]
    for norm, _, _ in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, number in norms:
            norm.momentum, norm.num_batches_tracked = momentum, number
