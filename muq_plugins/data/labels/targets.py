"""Targets whose codes belong to places in tracks: stored, or computed on the fly.

Both follow the Target contract and give the same codes for every crop.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor, nn

from muq_plugins.data.audio import AudioError
from muq_plugins.data.labels.errors import LabelError
from muq_plugins.data.labels.reading import LabelSet
from muq_plugins.data.labels.windows import LabelWindows, track_samples, window_labels
from muq_plugins.lobes.lengths import absolute_lengths
from muq_plugins.lobes.target import PADDING_CODE, Crops, Target

logger = get_logger(__name__)


class TrackTarget(nn.Module):
    """Codes of the frames that crops are made of, wherever these begin.

    A frame that a crop only begins has the label that the whole frame has; one that
    the track does not fill has none. Nothing is a parameter or a submodule: there is
    nothing to train, to save or to move.

    Arguments
    ---------
    target : Target
        What the codes are those of; it tells rates and sizes.
    windows : LabelWindows
        How tracks are cut.
    """

    def __init__(self, target: Target, windows: LabelWindows):
        super().__init__()
        self.windows = windows
        self.sample_rate = target.sample_rate
        self.frame_rate = target.frame_rate
        self.num_codebooks = target.num_codebooks
        self.codebook_size = target.codebook_size

    def codes_of(self, clip_id: str, first: int, count: int) -> Tensor:
        """The codes of some frames of a track.

        Arguments
        ---------
        clip_id : str
            Id in the manifest.
        first : int
            First frame.
        count : int
            How many; fewer are given where the track ends.

        Returns
        -------
        Tensor
            (frames, N) int64.
        """
        raise NotImplementedError

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None,
        crops: Crops,
    ) -> Tensor:
        """Gives the codes of a batch of crops.

        Arguments
        ---------
        wavs : Tensor
            The crops (batch, samples); only their lengths matter.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.
        crops : Crops
            Id of the clip and begin of the crop in seconds, for each crop.

        Returns
        -------
        Tensor
            Codes (batch, frames, N) int64; -1 beyond the end of a crop or its track.

        Raises
        ------
        LabelError
            If there are no labels for a crop, or it begins between two frames.
        """
        batch, samples = wavs.shape
        size = self.windows.frame_samples
        lengths = absolute_lengths(wav_lens, samples, batch)
        lengths = [samples] * batch if lengths is None else lengths.tolist()
        shape = (batch, -(-samples // size), self.num_codebooks)
        codes = torch.full(shape, PADDING_CODE)
        for row, length, (clip_id, start) in zip(codes, lengths, crops, strict=True):
            first, rest = divmod(round(start * self.sample_rate), size)
            if rest:
                raise LabelError(
                    f"A crop of {clip_id} begins at {start} s, between two frames: "
                    f"labels exist for every {1 / self.frame_rate:g} s. Set the grid "
                    f"of the crops to a multiple of {size} samples."
                )
            found = self.codes_of(clip_id, first, -(-length // size))
            row[: len(found)] = found
        return codes.to(wavs.device)


class StoredTarget(TrackTarget):
    """Codes from a set of labels.

    Arguments
    ---------
    target : Target
        What the codes are those of.
    windows : LabelWindows
        How tracks are cut.
    labels : LabelSet
        The labels.
    """

    def __init__(self, target: Target, windows: LabelWindows, labels: LabelSet):
        super().__init__(target, windows)
        self.labels = labels

    def codes_of(self, clip_id: str, first: int, count: int) -> Tensor:
        """Reads them.

        Arguments
        ---------
        clip_id : str
            Id in the manifest.
        first : int
            First frame.
        count : int
            How many.

        Returns
        -------
        Tensor
            (frames, N) int64.
        """
        return torch.from_numpy(self.labels.codes(clip_id, first, count).astype("i8"))


class ComputedTarget(TrackTarget):
    """The same codes, computed when they are asked for: no storage, more work.

    The windows that a crop lies in are read and labelled whole.

    Arguments
    ---------
    target : Target
        Computes the codes; it follows to another device, but is no submodule.
    windows : LabelWindows
        How tracks are cut.
    manifest : dict
        Clip id to entry.
    """

    def __init__(self, target: Target, windows: LabelWindows, manifest: dict):
        super().__init__(target, windows)
        self._target = (target,)
        self._tracks = {
            clip: (entry["wav"], track_samples(entry, target.sample_rate))
            for clip, entry in manifest.items()
        }

    def _apply(self, fn, recurse=True) -> ComputedTarget:
        """Lets the target follow to another device."""
        self._target[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def codes_of(self, clip_id: str, first: int, count: int) -> Tensor:
        """Computes them.

        Arguments
        ---------
        clip_id : str
            Id in the manifest.
        first : int
            First frame.
        count : int
            How many.

        Returns
        -------
        Tensor
            (frames, N) int64; none if a window around them cannot be read.
        """
        path, samples = self._tracks[clip_id]
        spans = self.windows.covering(samples, first, first + count)
        nothing = torch.zeros(0, self.num_codebooks, dtype=torch.int64)
        (target,) = self._target
        try:
            codes = torch.cat(
                [nothing]
                + [
                    window_labels(target, self.windows, path, samples, span)[0]
                    for span in spans
                ]
            )
        except AudioError as error:
            logger.warning(f"No labels: {error}")
            return nothing
        begin = first - spans[0][0] if spans else 0
        return codes[begin : begin + count]
