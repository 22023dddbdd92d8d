"""Means over batches and processes.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
from torch import Tensor

from muq_plugins.brains.processes import gather
from muq_plugins.lobes.stages import StageOutput


class RunningStatistics:
    """Adds up what a stage reports until somebody asks for the means.

    The sums of all processes are added before the division, so a mean is exact
    whatever the share of each process was, and even if a process saw nothing.

    Example
    -------
    >>> import torch
    >>> one = torch.ones(())
    >>> statistics = RunningStatistics()
    >>> statistics.add(StageOutput(one, {"loss": 6 * one}, {"loss": 2 * one}, one))
    >>> statistics.means()
    {'loss': tensor(3., dtype=torch.float64)}
    """

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self.code_counts: Tensor | None = None

    def add(self, output: StageOutput) -> None:
        """Adds one batch.

        Arguments
        ---------
        output : StageOutput
            What the stage's module returned.
        """
        for total, new in (
            (self._sums, output.sums),
            (self._weights, output.weights),
        ):
            for name, value in new.items():
                # Double precision: a mean over a million frames keeps its digits.
                value = value.detach().double()
                total[name] = total[name] + value if name in total else value
        if output.code_counts is not None:  # not every stage has codes
            counts = output.code_counts.detach()
            self.code_counts = (
                counts if self.code_counts is None else self.code_counts + counts
            )

    def reduce(self) -> None:
        """Adds the sums of all processes; afterwards every process has them all."""
        mine = (
            {name: value.cpu() for name, value in self._sums.items()},
            {name: value.cpu() for name, value in self._weights.items()},
            None if self.code_counts is None else self.code_counts.cpu(),
        )
        self.__init__()
        # Objects rather than tensors: a process that saw no batch has none.
        for sums, weights, counts in gather(mine):
            self.add(StageOutput(torch.zeros(()), sums, weights, counts))

    def means(self) -> dict[str, Tensor]:
        """Divides.

        Returns
        -------
        dict
            Name to mean, a scalar or one value per codebook, float64 on CPU.
        """
        return {
            name: (total / self._weights[name].clamp(min=1)).cpu()
            for name, total in self._sums.items()
        }
