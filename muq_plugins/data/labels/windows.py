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

from muq_plugins.data.audio import AudioError, may_lack, read_audio
from muq_plugins.data.windows import spans
from muq_plugins.errors import UserError
from muq_plugins.lobes.target import Target


@dataclass(frozen=True)
class LabelWindows:
    """The labels of a target, window by window of a track."""

    target: Target
    window_frames: int  # frames that a window has labels for
    # frames on either side that are heard in addition, where the track has them
    context_frames: int

    def __post_init__(self):
        if self.window_frames < 1 or self.context_frames < 0:
            raise UserError(
                f"Labels need windows of at least 1 frame and no negative context, got "
                f"{self.window_frames} frames and {self.context_frames} of context."
            )
        rate = self.target.frame_rate
        if self.frame_samples * rate != self.sample_rate:
            raise UserError(
                f"Frames of {rate:g} Hz are not whole numbers of samples at "
                f"{self.sample_rate} Hz: such labels cannot be stored."
            )

    @classmethod
    def in_seconds(cls, target: Target, window: float, context: float) -> LabelWindows:
        """Windows of a target, from seconds."""
        frames = [seconds * target.frame_rate for seconds in (window, context)]
        if any(abs(value - round(value)) > 1e-6 for value in frames):
            raise UserError(
                f"Windows of {window:g} s with {context:g} s of context are not whole "
                f"numbers of frames: choose multiples of {1 / target.frame_rate:g} s."
            )
        return cls(target, round(frames[0]), round(frames[1]))

    @property
    def sample_rate(self) -> int:
        """Of the audio, in Hz."""
        return self.target.sample_rate

    @property
    def frame_samples(self) -> int:
        """Samples of a frame."""
        return round(self.sample_rate / self.target.frame_rate)

    def spans(self, samples: int) -> list[tuple[int, int]]:
        """The windows of a track, in frames."""
        return spans(samples // self.frame_samples, self.window_frames)

    def heard(self, samples: int, span: tuple[int, int]) -> tuple[int, int]:
        """What a window is computed from, in samples."""
        begin = max(0, span[0] - self.context_frames) * self.frame_samples
        end = min(samples, (span[1] + self.context_frames) * self.frame_samples)
        return begin, samples if span[1] == samples // self.frame_samples else end

    def read(
        self, path: str, samples: int, span: tuple[int, int]
    ) -> tuple[Tensor, int]:
        """Reads the audio of one window, and how many frames of context come first."""
        begin, end = self.heard(samples, span)
        rate = self.sample_rate
        wav = read_audio(path, begin / rate, (end - begin) / rate, rate)
        lacking = end - begin - len(wav)
        if lacking > may_lack(end):
            found = (begin + len(wav)) / rate
            detail = f"the manifest says {samples / rate:.3f} s, found {found:.3f} s"
            raise AudioError(path, "truncated", detail)
        if lacking > 1:  # of the last window alone
            wav = torch.nn.functional.pad(wav, (0, lacking))
        return wav, span[0] - begin // self.frame_samples

    @torch.no_grad()
    def labels(
        self, path: str, samples: int, span: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Codes and latents of one window: what a label is.

        A window is computed alone, so that no digit depends on what stands beside it
        in a batch.
        """
        if span[0] == span[1]:  # a track that is shorter than a frame
            codes = torch.zeros(0, self.target.num_codebooks, dtype=torch.int64)
            return codes, torch.zeros(0, self.target.features.output_size)
        wav, offset = self.read(path, samples, span)
        return self.compute(wav, offset, span[1] - span[0])

    @torch.no_grad()
    def compute(self, wav: Tensor, offset: int, frames: int) -> tuple[Tensor, Tensor]:
        """Codes and latents of frames of the audio of one window."""
        features, quantizer = self.target.features, self.target.quantizer
        device = next(iter(quantizer.state_dict().values())).device
        with torch.autocast(device.type, enabled=False):
            feats, _ = features(wav[None].to(device))
            feats = feats[0, offset : offset + frames]
            codes = quantizer.encode(feats)
        return codes.cpu(), feats.cpu()


def track_samples(entry: dict, sample_rate: int) -> int:
    """The length of a track that crops and labels are counted by."""
    return round(entry["duration"] * sample_rate)
