"""Which audio the label of a frame is computed from.

What a teacher says about a frame depends on all the audio that it hears. A label must
not depend on the crop that somebody happens to ask for, so each frame belongs to one
window of its track, and its label is computed from that window and a little audio on
either side. Stored labels and labels that are computed on the fly both follow this
definition, and window for window the same computation: they are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from muq_plugins.data.audio import AudioError, read_audio
from muq_plugins.errors import UserError
from muq_plugins.lobes.target import Target


@dataclass(frozen=True)
class LabelWindows:
    """Cuts tracks into windows, one after another.

    The last window takes what is left over, and is up to twice as long as the others.
    """

    window_frames: int  # frames that a window has labels for
    # frames on either side that are heard in addition, where the track has them
    context_frames: int
    frame_samples: int  # samples of a frame
    sample_rate: int  # of the audio, in Hz

    def __post_init__(self):
        if self.window_frames < 1 or self.context_frames < 0:
            raise UserError(
                f"Labels need windows of at least 1 frame and no negative context, got "
                f"{self.window_frames} frames and {self.context_frames} of context."
            )

    @classmethod
    def in_seconds(cls, target: Target, window: float, context: float) -> LabelWindows:
        """Windows of a target, from seconds."""
        samples = round(target.sample_rate / target.frame_rate)
        if samples * target.frame_rate != target.sample_rate:
            raise UserError(
                f"Frames of {target.frame_rate:g} Hz are not whole numbers of samples "
                f"at {target.sample_rate} Hz: such labels cannot be stored."
            )
        frames = [seconds * target.frame_rate for seconds in (window, context)]
        if any(abs(value - round(value)) > 1e-6 for value in frames):
            raise UserError(
                f"Windows of {window:g} s with {context:g} s of context are not whole "
                f"numbers of frames: choose multiples of {1 / target.frame_rate:g} s."
            )
        return cls(round(frames[0]), round(frames[1]), samples, target.sample_rate)

    def spans(self, samples: int) -> list[tuple[int, int]]:
        """The windows of a track."""
        frames = samples // self.frame_samples
        count = max(1, frames // self.window_frames)
        starts = [number * self.window_frames for number in range(count)]
        return list(zip(starts, [*starts[1:], frames], strict=True))

    def covering(self, samples: int, first: int, last: int) -> list[tuple[int, int]]:
        """The windows that hold some frames of a track."""
        return [
            span for span in self.spans(samples) if span[0] < last and first < span[1]
        ]

    def read(
        self, path: str, samples: int, span: tuple[int, int]
    ) -> tuple[Tensor, int]:
        """Reads the audio of one window with its context."""
        begin = max(0, span[0] - self.context_frames) * self.frame_samples
        end = min(samples, (span[1] + self.context_frames) * self.frame_samples)
        if span[1] == samples // self.frame_samples:
            end = samples
        rate = self.sample_rate
        wav = read_audio(path, begin / rate, (end - begin) / rate, rate)
        # A manifest's seconds are rounded: they may promise one sample too many.
        if len(wav) < end - begin - 1:
            found = (begin + len(wav)) / rate
            detail = f"the manifest says {samples / rate:.3f} s, found {found:.3f} s"
            raise AudioError(path, "truncated", detail)
        return wav, span[0] - begin // self.frame_samples


@torch.no_grad()
def window_labels(
    target: Target,
    windows: LabelWindows,
    path: str,
    samples: int,
    span: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Computes the labels of one window: what a label is.

    A window is computed alone, so that no digit depends on what stands beside it in a
    batch.
    """
    if span[0] == span[1]:  # a track that is shorter than a frame
        codes = torch.zeros(0, target.num_codebooks, dtype=torch.int64)
        return codes, torch.zeros(0, target.features.output_size)
    wav, offset = windows.read(path, samples, span)
    device = next(iter(target.quantizer.state_dict().values())).device
    with torch.autocast(device.type, enabled=False):
        feats, _ = target.features(wav[None].to(device))
        feats = feats[0, offset : offset + span[1] - span[0]]
        codes = target.quantizer.encode(feats)
    return codes.cpu(), feats.cpu()


def track_samples(entry: dict, sample_rate: int) -> int:
    """The length of a track that crops and labels are counted by."""
    return round(entry["duration"] * sample_rate)
