"""Brain of the stage *tokenizer*.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import speechbrain as sb

from muq_plugins.brains.base import StageBrain
from muq_plugins.brains.statistics import RunningStatistics
from muq_plugins.evaluation import codes


class TokenizerBrain(StageBrain):
    """Trains a quantizer; its validation rows tell how the codes are used.

    Arguments and errors are those of `StageBrain`.
    """

    def describe(self, statistics: RunningStatistics, stage: sb.Stage) -> dict:
        """Adds usage, perplexity and dead codes per codebook on validation data.

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
            row["usage"] = codes.usage(counts).tolist()
            row["perplexity"] = codes.perplexity(counts).tolist()
            row["dead_codes"] = codes.dead_codes(counts).tolist()
        return row
