"""Does the encoder know which instruments play?

The time-averaged hidden state of one window of every clip is read by a linear probe,
beside two things that it has to beat: plain statistics of the log-mel, and the same
encoder before training. Each encoder may offer several layers, of which the probe
chooses one by cross-validation.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from muq_plugins.data.audio import AudioError, read_audio
from muq_plugins.evaluation.probe import fit_probe
from muq_plugins.evaluation.probe_result import ProbeResult
from muq_plugins.evaluation.probing.features import masked_sum

logger = get_logger(__name__)

LOG_MEL = "log-mel statistics"
# The label of a piece whose instruments belong to several families.
MIXED = "mixed"


def family_probe(
    encoders: dict[str, Callable],
    log_mel: Callable,
    train_manifest: dict[str, dict],
    test_manifest: dict[str, dict],
    label: str = "family",
    clip_seconds: float = 5.0,
    sample_rate: int = 24000,
    batch_size: int = 16,
    max_clips: int | None = None,
    device: str | torch.device = "cpu",
) -> list[ProbeResult]:
    """Probe encoders, and the log-mel beside them, for a label of the manifest.

    Clips without the label or with the label "mixed" are left out, and so are files
    that cannot be read and test clips of a class that the training part lacks; the log
    says which or how many.
    """
    for name, encoder in encoders.items():
        if getattr(encoder, "training", False):
            raise ValueError(f"{name!r} is in train mode: call eval() before probing")
    parts = [
        _labelled(manifest, label, max_clips)
        for manifest in (train_manifest, test_manifest)
    ]
    parts[1] = _known(parts[1], {entry[label] for entry in parts[0]}, label)

    extractors = {LOG_MEL: _statistics_of(log_mel)}
    extractors |= {name: _average_of(encoder) for name, encoder in encoders.items()}
    embedded = [
        _embed(extractors, part, clip_seconds, sample_rate, batch_size, device)
        for part in parts
    ]
    (train, train_x), (test, test_x) = embedded
    return [
        fit_probe(
            train_x[name],
            [entry[label] for entry in train],
            test_x[name],
            [entry[label] for entry in test],
            [entry["piece"] for entry in train],
            [entry["piece"] for entry in test],
            name=name,
        )
        for name in extractors
    ]


def _labelled(entries: dict, label: str, max_clips: int | None) -> list[dict]:
    """The entries with a usable label, each with the piece that it belongs to."""
    kept = [
        {"piece": key, **entry}
        for key, entry in sorted(entries.items())
        if entry.get(label) not in (None, "", MIXED)
    ]
    if len(kept) < len(entries):
        logger.info(
            f"Probe: {len(entries) - len(kept)} of {len(entries)} clips have no "
            f"{label} or a mixed one and are left out."
        )
    if max_clips is not None and len(kept) > max_clips:
        chosen = np.linspace(0, len(kept) - 1, max_clips).round().astype(int)
        kept = [kept[index] for index in chosen]
    return kept


def _known(part: list[dict], classes: set, label: str) -> list[dict]:
    """The test entries of classes that the probe can know."""
    unknown = Counter(entry[label] for entry in part if entry[label] not in classes)
    if unknown:
        logger.warning(
            f"Probe: test clips of classes without a training clip are left out: "
            f"{dict(unknown)}"
        )
    return [entry for entry in part if entry[label] in classes]


def _embed(
    extractors: dict[str, Callable],
    part: list[dict],
    clip_seconds: float,
    sample_rate: int,
    batch_size: int,
    device: str | torch.device,
) -> tuple[list[dict], dict[str, np.ndarray]]:
    """The entries that could be read, and the features of each by name."""
    readable, features = [], {name: [] for name in extractors}
    for first in range(0, len(part), batch_size):
        windows = []
        for entry in part[first : first + batch_size]:
            try:
                windows.append(_window(entry, clip_seconds, sample_rate))
                readable.append(entry)
            except AudioError as error:
                logger.warning(f"Probe: left out: {error}")
        if not windows:
            continue
        wavs = torch.nn.utils.rnn.pad_sequence(windows, batch_first=True).to(device)
        lengths = torch.tensor([len(window) for window in windows], device=device)
        wav_lens = lengths / wavs.shape[1]
        with torch.no_grad():
            for name, extract in extractors.items():
                features[name].append(extract(wavs, wav_lens).cpu().numpy())
    empty = np.zeros((0, 1))  # fit_probe says that the part is empty
    return readable, {
        name: np.concatenate(rows) if rows else empty for name, rows in features.items()
    }


def _window(entry: dict, clip_seconds: float, sample_rate: int) -> torch.Tensor:
    """The middle of a clip (samples,)."""
    start = max(0.0, (entry["duration"] - clip_seconds) / 2)
    return read_audio(entry["wav"], start, clip_seconds, sample_rate)


def _average_of(encoder: Callable) -> Callable:
    """Turn hidden states into their means (batch, layers, width) over valid frames."""

    def average(wavs, wav_lens):
        states = encoder(wavs, wav_lens)
        return torch.stack([_mean(state.float(), wav_lens) for state in states], dim=1)

    return average


def _statistics_of(log_mel: Callable) -> Callable:
    """Turn features into their mean and standard deviation over the valid frames."""

    def statistics(wavs, wav_lens):
        feats, lens = log_mel(wavs, wav_lens)
        feats = feats.float()
        mean = _mean(feats, lens)
        variance = _mean((feats - mean[:, None]) ** 2, lens)
        return torch.cat([mean, variance.sqrt()], dim=1)

    return statistics


def _mean(values: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """Mean over the valid frames: (batch, frames, size) to (batch, size)."""
    total, frames = masked_sum(values, lens)
    return total / frames[:, None]
