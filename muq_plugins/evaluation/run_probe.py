"""The probe that ends a pre-training run."""

from __future__ import annotations

from pathlib import Path

import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor, nn

from muq_plugins.evaluation.family_probe import family_probe
from muq_plugins.evaluation.probe_result import save_probe
from muq_plugins.evaluation.probing.clips import ProbeError
from muq_plugins.evaluation.probing.features import log_mel_beside

logger = get_logger(__name__)

LABEL = "family"
CLIP_SECONDS = 20.0  # of the middle of each clip; a mean over fewer is noisier


def probe_run(
    run_folder: str | Path,
    untrained: nn.Module,
    trained: nn.Module,
    train_manifest: dict,
    test_manifest: dict,
) -> bool:
    """Compares an encoder with itself before training, where labels allow it."""
    for name, manifest in (("train", train_manifest), ("test", test_manifest)):
        if not any(LABEL in entry for entry in manifest.values()):
            logger.info(f"No probe: the {name} part has no label {LABEL!r}.")
            return False
    device = next(trained.parameters()).device
    encoders = {
        "untrained encoder": _HiddenStates(untrained.to(device)).eval(),
        "trained encoder": _HiddenStates(trained).eval(),
    }
    try:
        with torch.no_grad():
            results = family_probe(
                encoders,
                log_mel_beside(trained),
                train_manifest,
                test_manifest,
                clip_seconds=CLIP_SECONDS,
                sample_rate=trained.sample_rate,
                device=device,
            )
    except ProbeError as error:  # a tiny corpus may have too few pieces or classes
        logger.warning(f"No probe: {error}")
        return False
    save_probe(run_folder, results)
    return True


class _HiddenStates(nn.Module):
    """Gives what the probe reads: the outputs of the layers.

    Not that of the front end, a filtered log-mel, which has a row of its own.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, ...]:
        return self.encoder(wavs, wav_lens).hidden_states[1:]
