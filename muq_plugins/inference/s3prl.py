"""MuQ as an upstream of s3prl (github.com/s3prl/s3prl), which need not be installed.

The names that are exported are what s3prl's hub collects from the ``hubconf.py`` of an
upstream; their arguments are those that ``run_downstream.py`` and ``S3PRLUpstream``
give: ``ckpt`` (option ``-k``), ``model_config`` and ``refresh``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from muq_plugins.inference.pretrained_muq import PretrainedMuQ

__all__ = ["muq", "muq_local"]

SAMPLE_RATE = 16000  # Hz, of all of s3prl


class UpstreamExpert(nn.Module):
    """All hidden states of a MuQ, for a batch of waveforms at 16 kHz.

    Options go to `PretrainedMuQ`. Whether anything is trained is up to s3prl, which
    freezes an upstream unless it is told to train it.
    """

    def __init__(
        self,
        ckpt: str | Path,
        model_config: str | None = None,
        refresh: bool = False,
        **options: Any,
    ):
        super().__init__()
        # s3prl pads what is too short for a window in whole batches only.
        self.model = PretrainedMuQ(
            ckpt,
            input_sample_rate=SAMPLE_RATE,
            output_all_hiddens=True,
            pad_short_clips=True,
            **options,
        )

    def get_downsample_rates(self, key: str) -> int:
        """Samples of the waveform in a frame, the same for every output."""
        return round(SAMPLE_RATE / self.model.frame_rate)

    def forward(self, wavs: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Hidden states (batch, frames, width), from front end to last layer."""
        lengths = torch.tensor([len(wav) for wav in wavs], device=wavs[0].device)
        padded = pad_sequence(wavs, batch_first=True)
        hidden = self.model(padded, lengths / padded.shape[1])
        return {"hidden_states": list(hidden), "last_hidden_state": hidden[-1]}


def muq_local(ckpt: str | Path, **options: Any) -> UpstreamExpert:
    """A folder of ours or of the official layout, or a model on the hub."""
    return UpstreamExpert(ckpt, **options)


def muq(ckpt: str | Path | None = None, **options: Any) -> UpstreamExpert:
    """The released MuQ, unless another one is given."""
    return UpstreamExpert(ckpt or "OpenMuQ/MuQ-large-msd-iter", **options)
