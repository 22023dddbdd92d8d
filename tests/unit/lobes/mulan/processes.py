"""What one of several processes computes, for tests that compare it with one alone."""

import torch
from torch.nn.parallel import DistributedDataParallel

from muq_plugins.lobes import (
    DecoupledContrastive,
    SigmoidContrastive,
    gather_with_gradient,
)
from tests.forks import in_two_processes
from tests.unit.lobes.mulan.parts import learned, tiny_batch, tiny_stage

IDENTITIES = torch.tensor([[0, 0], [1, 1], [2, 2], [3, 3], [4, 3], [0, 5]])
#: Name to loss, size of chunks, and how many of the pairs the first process has.
CASES = {
    "whole": (DecoupledContrastive, None, 3),
    "chunks": (DecoupledContrastive, 2, 3),
    "shares that differ": (DecoupledContrastive, 2, 4),
    "sigmoid": (SigmoidContrastive, 1, 3),
}


def compute(case, begin=0, end=6, wrap=lambda stage: stage):
    """Loss, statistics, and gradients of some of the pairs."""
    kind, chunk_size, _ = CASES[case]
    stage = tiny_stage(kind(), chunk_size, num_layers=1).train()
    wavs, lens, texts = tiny_batch()
    # Twice: DDP notices in the second batch what went wrong in the first.
    wrapped = wrap(stage)
    for _ in range(2):
        stage.zero_grad()
        out = wrapped(
            wavs[begin:end], lens[begin:end], texts[begin:end], IDENTITIES[begin:end]
        )
        out.loss.backward()
    means = {name: out.sums[name] / out.weights[name] for name in out.sums}
    with torch.no_grad():
        own = stage.eval()(wavs[begin:end], lens[begin:end], texts[begin:end])
    return {
        "loss": out.loss.detach(),
        "means": means,
        "gradients": learned(stage),
        "pairs in evaluation": own.weights["loss"],
    }


def gathered(rank):
    """A gradient that differs from process to process, through rows that differ."""
    rows = torch.arange(3.0 * (rank + 1)).reshape(-1, 3) + 10 * rank
    rows.requires_grad_()
    everything = gather_with_gradient(rows)
    (everything.square().sum() * (rank + 1)).backward()
    numbers = gather_with_gradient(torch.full((2 - rank, 1), rank))
    empty = gather_with_gradient(torch.full((rank, 2), 5.0))
    return {
        "rows": everything.detach(),
        "gradient": rows.grad,
        "numbers": numbers,
        "empty": empty,
    }


def run(rank, folder):
    """One process: computes all cases and leaves them in a file."""
    found = {"gathered": gathered(rank)}
    for case, (_, _, first) in CASES.items():
        begin, end = (0, first) if rank == 0 else (first, 6)
        found[case] = compute(case, begin, end, DistributedDataParallel)
    torch.save(found, folder / f"found.{rank}")


def run_both(folder):
    """Two processes at the same time; what each of them found."""
    in_two_processes(run, folder)
    return [torch.load(folder / f"found.{r}", weights_only=True) for r in (0, 1)]
