"""How training gets labels: targets whose codes belong to places in tracks.

`StoredLabels` and `ComputedLabels` are what an experiment file names. Their targets
follow the Target contract and give the same codes for every crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor, nn

from muq_plugins.data.audio import AudioError
from muq_plugins.data.labels.description import describe
from muq_plugins.data.labels.extraction import Throughput, extract_labels
from muq_plugins.data.labels.shards import LabelSet
from muq_plugins.data.labels.windows import LabelWindows, track_samples
from muq_plugins.data.preparation import Manifests
from muq_plugins.errors import UserError
from muq_plugins.lobes.lengths import absolute_lengths
from muq_plugins.lobes.target import PADDING_CODE, Crops, Target, untrained_parts

logger = get_logger(__name__)


class TrackTarget(nn.Module):
    """Codes of the frames that crops are made of, wherever these begin.

    A frame that a crop only begins has the label that the whole frame has; one that
    the track does not fill has none. Nothing is a parameter or a submodule: there is
    nothing to train, to save or to move.
    """

    def __init__(self, windows: LabelWindows):
        super().__init__()
        target = windows.target
        self.frame_samples = windows.frame_samples
        self.sample_rate = target.sample_rate
        self.frame_rate = target.frame_rate
        self.num_codebooks = target.num_codebooks
        self.codebook_size = target.codebook_size
        self.untrained = untrained_parts(target)

    def codes_of(self, clip_id: str, first: int, count: int) -> Tensor:
        """Codes (frames, N) int64 of a track; fewer where it ends."""
        raise NotImplementedError

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None,
        crops: Crops,
    ) -> Tensor:
        """Gives the codes (batch, frames, N) int64 of a batch of crops.

        Of the waveforms only the lengths matter. Codes are -1 beyond the end of a crop
        or its track.
        """
        batch, samples = wavs.shape
        size = self.frame_samples
        lengths = absolute_lengths(wav_lens, samples, batch)
        lengths = [samples] * batch if lengths is None else lengths.tolist()
        shape = (batch, -(-samples // size), self.num_codebooks)
        codes = torch.full(shape, PADDING_CODE)
        for row, length, (clip_id, start) in zip(codes, lengths, crops, strict=True):
            first, rest = divmod(round(start * self.sample_rate), size)
            if rest:
                raise UserError(
                    f"A crop of {clip_id} begins at {start} s, between two frames: "
                    f"labels exist for every {1 / self.frame_rate:g} s. Set the grid "
                    f"of the crops to a multiple of {size} samples."
                )
            found = self.codes_of(clip_id, first, -(-length // size))
            row[: len(found)] = found
        return codes.to(wavs.device, non_blocking=True)


class StoredTarget(TrackTarget):
    """Codes from a set of labels."""

    def __init__(self, windows: LabelWindows, labels: LabelSet):
        super().__init__(windows)
        self.labels = labels

    def codes_of(self, clip_id: str, first: int, count: int) -> Tensor:
        """Reads them."""
        return torch.from_numpy(self.labels.codes(clip_id, first, count).astype("i8"))


class ComputedTarget(TrackTarget):
    """The same codes, computed when they are asked for: no storage, more work.

    The windows that a crop lies in are read and labelled whole. The target follows to
    another device, but is no submodule.
    """

    def __init__(self, windows: LabelWindows, manifest: dict):
        super().__init__(windows)
        self.windows = windows
        self._tracks = {
            clip: (entry["wav"], track_samples(entry, windows.sample_rate))
            for clip, entry in manifest.items()
        }

    def _apply(self, fn, recurse=True) -> ComputedTarget:
        """Lets the target follow to another device."""
        self.windows.target._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def codes_of(self, clip_id: str, first: int, count: int) -> Tensor:
        """Computes them; none if a window around them cannot be read."""
        path, samples = self._tracks[clip_id]
        spans = [
            span
            for span in self.windows.spans(samples)
            if span[0] < first + count and first < span[1]
        ]
        codes = [torch.zeros(0, self.num_codebooks, dtype=torch.int64)]
        try:
            codes += [self.windows.labels(path, samples, span)[0] for span in spans]
        except AudioError as error:
            logger.warning(f"No labels: {error}")
            return codes[0]
        begin = first - spans[0][0] if spans else 0
        return torch.cat(codes)[begin : begin + count]


@dataclass
class ComputedLabels:
    """Labels that are computed during training, whenever they are needed."""

    # each frame is labelled in one window of its track, this long
    window_seconds: float
    context_seconds: float  # what is heard on either side of a window in addition

    def target_for(self, target: Target, manifests: Manifests) -> ComputedTarget:
        """The target to train on: the codes that `StoredLabels` gives too."""
        return ComputedTarget(self.windows(target), all_clips(manifests))

    def windows(self, target: Target) -> LabelWindows:
        """Which audio each label comes from; refuses what fits no frames."""
        return LabelWindows.in_seconds(
            target, self.window_seconds, self.context_seconds
        )


@dataclass
class StoredLabels:
    """Labels that are extracted once, and read during training."""

    folder: str | Path  # where they are kept
    # each frame is labelled in one window of its track, this long
    window_seconds: float
    context_seconds: float  # what is heard on either side of a window in addition
    shard_minutes: float = 30.0  # audio in a shard, the unit of work of an extraction
    latents: bool = False  # whether an extraction stores what was quantized as well
    max_bad_fraction: float = 0.01  # share of files that may turn out unreadable

    def extract(
        self,
        target: Target,
        manifests: Manifests,
        share: tuple[int, int] | None = None,
    ) -> Throughput:
        """Does a share of the extraction, see `extract_labels`."""
        return extract_labels(
            self.folder,
            self.windows(target),
            all_clips(manifests),
            self.shard_minutes,
            self.latents,
            self.max_bad_fraction,
            share,
        )

    def target_for(self, target: Target, manifests: Manifests) -> StoredTarget:
        """The target to train on; what is not labelled yet is labelled first."""
        logger.info(f"Labels in {self.folder}: {self.extract(target, manifests)}.")
        windows, clips = self.windows(target), all_clips(manifests)
        description = describe(windows, clips, self.shard_minutes, self.latents)
        return StoredTarget(windows, LabelSet(self.folder, clips, description))

    def windows(self, target: Target) -> LabelWindows:
        """Which audio each label comes from; refuses what fits no frames."""
        return LabelWindows.in_seconds(
            target, self.window_seconds, self.context_seconds
        )


def all_clips(manifests: Manifests) -> dict:
    """The clips of all parts of a corpus; a clip may be in two of them."""
    clips: dict = {}
    for part in manifests.parts.values():
        for clip_id, entry in part.items():
            if clips.setdefault(clip_id, entry)["wav"] != entry["wav"]:
                raise UserError(
                    f"Two clips have the id {clip_id}: {clips[clip_id]['wav']} and "
                    f"{entry['wav']}. Ids must differ across the parts of a corpus."
                )
    return clips
