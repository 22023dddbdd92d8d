"""Brain of the stage *pretrain*.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import math

import speechbrain as sb

from muq_plugins.brains.base import StageBrain
from muq_plugins.brains.statistics import RunningStatistics
from muq_plugins.evaluation import codes


class PretrainBrain(StageBrain):
    """Trains masked prediction; its validation rows say what guessing would give.

    Arguments and errors are those of `StageBrain`.
    """

    def describe(self, statistics: RunningStatistics, stage: sb.Stage) -> dict:
        """Adds the chance level and the entropy of the codes on validation data.

        The entropy of the codes' own frequencies is the cross-entropy of a model
        that has only counted; the logarithm of the codebook size is that of one
        that has not even done that.

        Arguments
        ---------
        statistics : RunningStatistics
            Sums over batches and processes.
        stage : sb.Stage
            What they were gathered in.

        Returns
        -------
        dict
            Name to number or list of numbers.
        """
        row = super().describe(statistics, stage)
        if stage is not sb.Stage.TRAIN:
            counts = statistics.code_counts
            entropy = codes.entropy(counts)
            row["code_entropy"] = float(entropy.mean())
            row["code_entropy_per_codebook"] = entropy.tolist()
            row["chance"] = math.log(counts.shape[1])
        return row
