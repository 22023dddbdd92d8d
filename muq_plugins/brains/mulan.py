"""Brain of the stage *mulan*.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.logger import get_logger

from muq_plugins.brains.base import StageBrain
from muq_plugins.brains.statistics import RunningStatistics
from muq_plugins.data.batch import ClipBatch
from muq_plugins.data.captions import CaptionWriter
from muq_plugins.data.sampling import keyed_integer
from muq_plugins.lobes.stages import StageOutput, is_at_chance

logger = get_logger(__name__)


class MuLanBrain(StageBrain):
    """Trains two towers on pairs of clips and captions.

    All pairs of an update are contrasted with each other, so an update is one batch of
    all processes together; memory is bounded inside the module instead. Training hears
    a new caption of a clip each time; validation always the full one.

    Arguments
    ---------
    captions : CaptionWriter
        Knows all clips that are trained or validated on.
    hparams : dict
        As for `StageBrain`, without ``batch_size`` and with ``chance_patience``: the
        update from which on a loss that is still at chance is called out in the log.
    **others : Any
        The other arguments of `StageBrain`.

    Raises
    ------
    ValueError
        If an update has a single pair, which has nothing to be told from.
    """

    def __init__(self, captions: CaptionWriter, hparams: dict[str, Any], **others):
        pairs = hparams["clips_per_update"]
        if pairs < 2:
            raise ValueError(
                f"clips_per_update is {pairs}, but a text can only be told from the "
                "texts of other clips: give it at least 2, and better hundreds."
            )
        super().__init__(hparams={**hparams, "batch_size": pairs}, **others)
        self.captions = captions
        # The loss depends on the number of pairs: the same however many processes.
        self.evaluation_batch_size = pairs
        self.called_out = False

    def compute_forward(self, batch: ClipBatch, stage: sb.Stage) -> StageOutput:
        """Calls the stage's module with the captions of a batch.

        Arguments
        ---------
        batch : ClipBatch
            Clips on the right device.
        stage : sb.Stage
            As for `StageBrain`.

        Returns
        -------
        StageOutput
            Loss and statistics.
        """
        training = stage is sb.Stage.TRAIN
        module = self.modules[self.stage_name] if training else self.module
        write = self.captions.caption if training else self.captions.full_caption
        clips = zip(batch.ids, batch.clip_keys.tolist(), strict=True)
        texts = [write(clip_id, key) for clip_id, key in clips]
        identities = identities_of(texts, batch.ids).to(batch.wavs.device)
        return module(batch.wavs, batch.wav_lens, texts, identities)

    def describe(self, statistics: RunningStatistics, stage: sb.Stage) -> dict:
        """Calls out a training that has learned nothing, once.

        Arguments
        ---------
        statistics : RunningStatistics
            Sums over batches and processes.
        stage : sb.Stage
            What they were gathered in.

        Returns
        -------
        dict
            Name to number.
        """
        row = super().describe(statistics, stage)
        late = self.optimizer_step >= self.hparams.chance_patience
        if stage is sb.Stage.TRAIN and late and not self.called_out:
            self.called_out = is_at_chance(row["loss"], row["chance"])
            if self.called_out:
                logger.warning(
                    f"Step {self.optimizer_step}: the contrastive loss is "
                    f"{row['loss']:.2f}, that of guessing is {row['chance']:.2f}. "
                    "Nothing is learned: check the learning rate, that the captions "
                    "differ from clip to clip, and that the clips are not silent."
                )
        return row


def identities_of(texts: list[str], clip_ids: list[str]) -> torch.Tensor:
    """What tells two pairs apart: neither the same text nor the same clip.

    Arguments
    ---------
    texts : list of str
        Caption of each pair.
    clip_ids : list of str
        Clip of each pair.

    Returns
    -------
    torch.Tensor
        (pairs, 2) int64: hashes of the texts and of the ids, the same in all processes.

    Example
    -------
    >>> found = identities_of(["slow", "fast", "slow"], ["a", "a", "b"])
    >>> (found[0] == found[1]).tolist(), (found[0] == found[2]).tolist()
    ([False, True], [True, False])
    """
    rows = [
        [keyed_integer(1 << 62, "text", text), keyed_integer(1 << 62, "clip", clip_id)]
        for text, clip_id in zip(texts, clip_ids, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.int64)
