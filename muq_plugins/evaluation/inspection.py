"""How a trained tokenizer does on any audio: use of its codes, and what they keep.

Also on audio that it was not trained on, for which its own training says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muq_plugins.evaluation.probing.clips import Clip, window_batches
from muq_plugins.evaluation.run_files import (
    METRICS_FILE,
    read_metrics,
    save_diagnostics,
    select,
)
from muq_plugins.files import write_json
from muq_plugins.lobes import StackedFrames, Target, TokenizerTraining, codes
from muq_plugins.lobes.codes import count_codes
from muq_plugins.lobes.lengths import lengths_on
from muq_plugins.lobes.quantizers.base import decoding_errors

INSPECTION_FILE = "inspection.json"
# Of the clip that the report shows: more would be too small to see.
EXAMPLE_SECONDS = 5.0


def inspect_tokenizer(
    target: Target,
    clips: list[Clip],
    folder: str | Path | None = None,
    window_seconds: float = 10.0,
    max_windows: int = 3,
    batch_size: int = 8,
) -> dict[str, Any]:
    """Tokenize clips, count the codes, and decode them again."""
    stage = TokenizerTraining(target.features, target.quantizer).eval()
    device = next(target.buffers()).device
    can_decode = hasattr(target.quantizer, "decode")
    skipped: list[str] = []
    heard: set[int] = set()
    counts = torch.zeros(target.num_codebooks, target.codebook_size, dtype=torch.int64)
    errors = torch.zeros(target.num_codebooks + 1, dtype=torch.float64)
    samples, example = 0, None
    windows = window_seconds, max_windows, target.sample_rate, batch_size
    for places, wavs, lens in window_batches(clips, *windows, skipped):
        with torch.no_grad():
            frames = stage.own_frames(wavs.to(device), lengths_on(lens, device))
            found = target.quantizer.encode(frames)
            counts += count_codes(found, target.codebook_size).cpu()
            if can_decode:
                lost = decoding_errors(target.quantizer, frames, found)
                errors += lost.double().cpu() * len(frames)
        heard |= set(places)
        lengths = (lens * wavs.shape[1]).round().int().tolist()
        samples += sum(lengths)
        if example is None:
            seconds = round(EXAMPLE_SECONDS * target.sample_rate)
            example = wavs[0, : min(seconds, lengths[0])]
    if example is None:
        raise ValueError(
            f"None of the {len(clips)} clips could be read: "
            f"{'; '.join(skipped[:3]) or 'there are none'}"
        )
    frames = int(counts[0].sum())
    result = {
        "clips": len(heard),
        "seconds": round(samples / target.sample_rate, 3),
        "frames": frames,
        "num_codebooks": target.num_codebooks,
        "codebook_size": target.codebook_size,
        "usage": codes.usage(counts).tolist(),
        "perplexity": codes.perplexity(counts).tolist(),
        "entropy": codes.entropy(counts).tolist(),
        "dead_codes": codes.dead_codes(counts).tolist(),
        "most_frequent_share": codes.most_frequent_share(counts).tolist(),
        "reconstruction_error_per_level": (
            (errors / frames).tolist() if can_decode else None
        ),
        "skipped": skipped,
    }
    if folder is not None:
        examples = reconstruction_examples(target, example[None]) if can_decode else {}
        save_diagnostics(folder, code_counts=counts, **examples)
        write_json(Path(folder) / INSPECTION_FILE, result)
    return result


def own_errors(run_folder: str | Path) -> list[float]:
    """Errors that a tokenizer's run has measured on its own test part, if it has."""
    path = Path(run_folder) / METRICS_FILE
    rows = read_metrics(path) if path.is_file() else []
    tests = select(rows, stage="tokenizer", kind="test") or [{}]
    return tests[-1].get("reconstruction_error_per_level") or []


@torch.no_grad()
def reconstruction_examples(target: Target, wavs: Tensor) -> dict[str, Tensor]:
    """One clip (1, samples) from the first, half and all levels of its codes.

    Named as `save_diagnostics` takes them; empty if the target cannot decode codes to a
    spectrogram.
    """
    features, quantizer = target.features, target.quantizer
    if not isinstance(features, StackedFrames) or not hasattr(quantizer, "decode"):
        return {}
    device = next(target.buffers()).device
    found = target(wavs.to(device))
    feats, _ = features(wavs.to(device))
    levels = sorted({1, max(1, quantizer.num_codebooks // 2), quantizer.num_codebooks})
    decoded = [quantizer.decode(found[..., :level]) for level in levels]
    return {
        "mel": features.unstack(feats)[0].cpu(),
        "reconstructions": torch.stack(
            [features.unstack(feats)[0].cpu() for feats in decoded]
        ),
        "reconstruction_levels": torch.tensor(levels),
    }
