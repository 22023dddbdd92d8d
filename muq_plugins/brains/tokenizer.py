"""Brain of the stage *tokenizer*.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from torch.utils.data import DataLoader

from muq_plugins.brains.base import StageBrain
from muq_plugins.data.preparation import Manifests


class TokenizerBrain(StageBrain):
    """Trains a quantizer; its validation rows tell how the codes are used.

    Arguments and errors are those of `StageBrain`.
    """

    def make_loaders(
        self, manifests: Manifests
    ) -> tuple[DataLoader, DataLoader, DataLoader]:
        """Makes the loaders, if there is enough for the codebooks to learn from.

        Arguments
        ---------
        manifests : Manifests
            The parts of the corpus.

        Returns
        -------
        tuple of DataLoader
            Training (endless), validation and test.

        Raises
        ------
        ValueError
            If a codebook has more entries than training has frames: most of them
            could never be told apart.
        """
        hparams, frame_rate = self.hparams, self.module.features.frame_rate
        entries = self.module.quantizer.codebook_size
        clips = self.optimizer_step_limit * hparams.clips_per_update
        heard = round(clips * hparams.clip_seconds * frame_rate)
        if entries > heard:
            raise ValueError(
                f"codebook_size is {entries}, but there are only {heard} training "
                f"frames in {clips} clips of {hparams.clip_seconds:g} s: raise "
                f"optimizer_step_limit or clips_per_update, or lower codebook_size."
            )
        seconds = sum(entry["duration"] for entry in manifests.train.values())
        if entries > seconds * frame_rate:
            raise ValueError(
                f"codebook_size is {entries}, but the training part of "
                f"{manifests.folder} has only {int(seconds * frame_rate)} frames "
                f"({seconds:.0f} s of audio): add recordings, or lower codebook_size."
            )
        return super().make_loaders(manifests)
