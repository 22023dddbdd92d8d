"""Brain of tokenizers that are fitted at once instead of trained by gradients.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import speechbrain as sb
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from muq_plugins.brains.processes import gather
from muq_plugins.brains.tokenizer import TokenizerBrain


class FittingBrain(TokenizerBrain):
    """Collects frames and fits the quantizer to all of them.

    It hears the clips that training by gradients would hear in
    ``optimizer_step_limit`` updates. There is no optimizer, and a run that is
    interrupted begins again.

    Arguments
    ---------
    method : callable
        ``method(quantizer, frames, seed)`` fits the quantizer to the frames
        (frames, size) of all processes; it must give the same on each of them.
    **others : Any
        The arguments of `StageBrain`.
    """

    def __init__(self, method: Callable[[nn.Module, Tensor, int], None], **others):
        super().__init__(**others)
        self.method = method

    def fit(
        self,
        train_loader: DataLoader,
        valid_loader: DataLoader | None = None,
        progressbar: bool | None = None,
    ) -> None:
        """Collects frames, fits, and writes one training and one validation row.

        Arguments
        ---------
        train_loader : DataLoader
            Endless, of this process's share.
        valid_loader : DataLoader or None
            This process's share of the validation batches.
        progressbar : bool or None
            Unused: reading is fast.
        """
        self.logbook.forget_after(0)
        self.logbook.start_stretch()
        frames, seconds, failures = [], 0.0, []
        updates = self.optimizer_step_limit
        for batch in islice(train_loader, updates * self.grad_accumulation_factor):
            batch = batch.to(self.device)
            # On the CPU, where they are fitted: a GPU need not hold all of them.
            frames.append(self.module.own_frames(batch.wavs, batch.wav_lens).cpu())
            seconds += batch.audio_seconds
            failures += batch.failures
        # Every process fits the same frames with the same seed, to the same result.
        everything = torch.cat(gather(torch.cat(frames)))
        self.method(self.module.quantizer, everything, self.hparams.seed)
        self.optimizer_step = updates

        self.modules.eval()
        with torch.no_grad():
            output = self.module.quantize(torch.cat(frames).to(self.device))
        self.logbook.statistics.add(output)
        self.logbook.hear(seconds)
        self.logbook.failures += failures
        statistics, speed = self.logbook.end_stretch(len(train_loader.dataset.ids))
        values = self.describe(statistics, sb.Stage.TRAIN)
        values["audio_seconds_per_second"] = speed
        self.logbook.write("train", self.optimizer_step, values)
        if valid_loader is not None:
            self.validate(valid_loader)
