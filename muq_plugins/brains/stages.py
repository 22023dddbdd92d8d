"""The Brain of each stage: what is left of it beside its module."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from muq_plugins.brains.base import StageBrain
from muq_plugins.brains.logbook import RunningStatistics
from muq_plugins.brains.processes import gather, share_pairs, world_size
from muq_plugins.data.captions import CaptionWriter
from muq_plugins.data.clips import ClipBatch, keyed_integer
from muq_plugins.data.columns import Columns
from muq_plugins.data.preparation import Manifests
from muq_plugins.errors import UserError
from muq_plugins.lobes.lengths import frames_inside, most_precise
from muq_plugins.lobes.objectives.base import (
    StageOutput,
    directions,
    is_at_chance,
    references_of,
)
from muq_plugins.lobes.quantizers.base import nearest_centres

logger = get_logger(__name__)


class TokenizerBrain(StageBrain):
    """Trains a quantizer; its validation rows tell how the codes are used.

    Arguments and errors are those of `StageBrain`.
    """

    def make_loaders(
        self, manifests: Manifests
    ) -> tuple[DataLoader, DataLoader, DataLoader]:
        """Makes the loaders, if there is enough for the codebooks to learn from.

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
            raise UserError(
                f"codebook_size is {entries}, but there are only {heard} training "
                f"frames in {clips} clips of {hparams.clip_seconds:g} s: raise "
                f"optimizer_step_limit or clips_per_update, or lower codebook_size."
            )
        seconds = sum(Columns.of(manifests.train).durations.tolist())
        if entries > seconds * frame_rate:
            raise UserError(
                f"codebook_size is {entries}, but the training part of "
                f"{manifests.folder} has only {int(seconds * frame_rate)} frames "
                f"({seconds:.0f} s of audio): add recordings, or lower codebook_size."
            )
        return super().make_loaders(manifests)


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

        There is no progress bar: reading is fast.
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
        # In the order in which one process alone would have heard them.
        turns = zip(*gather(frames), strict=True)
        everything = torch.cat([heard for turn in turns for heard in turn])
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


def fit_centres(
    quantizer: nn.Module,
    frames: Tensor,
    seed: int,
    batch_size: int = 4096,
    iterations: int = 100,
    restarts: int = 5,
) -> None:
    """Sets a quantizer's centres by mini-batch k-means.

    The method of HuBERT's recipe (arXiv 2106.07447), scikit-learn's
    ``MiniBatchKMeans`` started by k-means++. Of several levels, each is fitted to what
    the ones before it leave over.

    Arguments
    ---------
    quantizer : nn.Module
        Has ``num_codebooks``, ``codebook_size`` and ``set_centres``.
    frames : Tensor
        Feature vectors (frames, size).
    seed : int
        Of the start and of the mini-batches.
    batch_size : int
        Frames in a mini-batch.
    iterations : int
        Passes over all frames at most.
    restarts : int
        Starts that are tried; the best one is used.

    Raises
    ------
    ValueError
        If there are fewer frames, or fewer different ones, than centres of a level.

    Example
    -------
    >>> from muq_plugins.lobes import KMeans
    >>> quantizer = KMeans(1, codebook_size=2)
    >>> frames = torch.tensor([[0.0], [0.0], [8.0], [8.0], [8.0], [8.0]])
    >>> fit_centres(quantizer, frames, seed=1)
    >>> quantizer.centres.flatten().sort().values.round()
    tensor([0., 8.])
    """
    from sklearn.cluster import MiniBatchKMeans

    # Virtual codes are on top of those that have centres.
    clusters = getattr(quantizer, "quantizer", quantizer).codebook_size
    left = frames.cpu().numpy()
    if len(left) < clusters:
        raise UserError(
            f"codebook_size is {clusters}, but there are only {len(left)} training "
            f"frames: raise optimizer_step_limit or clips_per_update, or lower "
            f"codebook_size."
        )
    centres = []
    for level in range(quantizer.num_codebooks):
        different = len(np.unique(left, axis=0))
        if different < clusters:
            after = f" after {level} levels" if level else ""
            raise UserError(
                f"codebook_size is {clusters}, but only {different} of the {len(left)} "
                f"training frames differ from each other{after}: is the audio silent?"
            )
        kmeans = MiniBatchKMeans(
            n_clusters=clusters,
            init="k-means++",
            n_init=restarts,
            max_iter=iterations,
            batch_size=batch_size,
            random_state=seed,
        )
        centres.append(kmeans.fit(left).cluster_centers_)
        if level + 1 < quantizer.num_codebooks:
            found = map(torch.from_numpy, (left, centres[-1]))
            left = left - centres[-1][nearest_centres(*found).numpy()]
    quantizer.set_centres(torch.from_numpy(np.concatenate(centres)))


class PretrainBrain(StageBrain):
    """Trains an encoder; its validation rows say what guessing would give.

    They also have ``encoder_rank``, over how many directions the frames of clean music
    spread that come out of the encoder (RankMe, a share of its width). A model that
    knows no more than one that looks at nothing is called out in the log, once a tenth
    of the updates is done and the learning rate has warmed up.

    Arguments and errors are those of `StageBrain`.
    """

    looks_early = True  # what learns nothing need not be waited for
    knows_fsdp = True
    called_out = False

    def compute_forward(self, batch: ClipBatch, stage: sb.Stage) -> StageOutput:
        """Calls the stage's module, and outside training listens to the clean clips."""
        output = super().compute_forward(batch, stage)
        if stage is not sb.Stage.TRAIN:
            out = self.module.encoder(batch.wavs, batch.wav_lens)
            hidden = out.last_hidden_state
            inside = frames_inside(hidden, out.lens)
            frames = hidden.flatten(0, 1) if inside is None else hidden[inside]
            frames = frames.to(most_precise(frames.device))
            output.totals |= {
                "heard_frames": torch.tensor(len(frames)),
                "heard_sum": frames.sum(0),
                "heard_products": frames.T @ frames,
            }
        return output

    def describe(self, statistics: RunningStatistics, stage: sb.Stage) -> dict:
        """Adds the rank, and calls out a training that has learned nothing, once."""
        heard = [
            statistics.totals.pop(f"heard_{name}", None)
            for name in ("frames", "sum", "products")
        ]
        row = super().describe(statistics, stage)
        if heard[0] is not None:
            row["encoder_rank"] = directions(*heard)
        warm = getattr(self.hparams.lr_schedule, "warmup", 0)
        late = self.optimizer_step >= max(self.optimizer_step_limit // 10, warm)
        if stage is sb.Stage.VALID and late and not self.called_out:
            self.called_out = self._call_out(row)
        return row

    def _call_out(self, row: dict) -> bool:
        """Warns of what is no better than a model that looks at nothing."""
        found = False
        for name, measure in self.module.measures.items():
            held = list(references_of(row, measure).items())
            if measure.margin is None or name not in row or not held:
                continue
            strictest, reached = held[0]
            if measure.better * (row[name] - reached) <= 0:
                found = True
                *objective, _ = name.split("/")
                title = ": ".join([*objective, measure.title.partition(",")[0]])
                logger.warning(
                    f"Step {self.optimizer_step} of {self.optimizer_step_limit}: "
                    f"{title} is {row[name]:.3f} in "
                    f"validation, {strictest} has {reached:.3f}. Nothing has "
                    "been learned so far, or nothing that carries over: look at the "
                    "loss in training, which more music would bring nearer; else check "
                    "the learning rate and its warm-up, the target, and that the clips "
                    "are not silent."
                )
        return found


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
        If an update has a single pair, which has nothing to be told from, or if the
        processes cannot share its pairs evenly.
    """

    def __init__(self, captions: CaptionWriter, hparams: dict[str, Any], **others):
        pairs = hparams["clips_per_update"]
        share = share_pairs(pairs, world_size())
        super().__init__(hparams={**hparams, "batch_size": share}, **others)
        self.captions = captions
        # The loss depends on the number of pairs: the same however many processes.
        self.evaluation_batch_size = pairs
        self.called_out = False

    def compute_forward(self, batch: ClipBatch, stage: sb.Stage) -> StageOutput:
        """Calls the stage's module with the captions of a batch."""
        training = stage is sb.Stage.TRAIN
        module = self.modules[self.stage_name] if training else self.module
        write = self.captions.caption if training else self.captions.full_caption
        clips = zip(batch.ids, batch.clip_keys.tolist(), strict=True)
        texts = [write(clip_id, key) for clip_id, key in clips]
        identities = identities_of(texts, batch.ids).to(batch.wavs.device)
        return module(batch.wavs, batch.wav_lens, texts, identities)

    def describe(self, statistics: RunningStatistics, stage: sb.Stage) -> dict:
        """Calls out a training that has learned nothing, once."""
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
    """What tells two pairs apart: neither the same text nor the same clip."""
    rows = [
        [keyed_integer(1 << 62, "text", text), keyed_integer(1 << 62, "clip", clip_id)]
        for text, clip_id in zip(texts, clip_ids, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.int64)
