"""Does a model know a recording again? Its second half is sought by its first.

    python benchmarks/halves.py /my/music --model small

No labels are needed. Of each recording (at least 8 s), the middle is cut in two halves,
of at most 10 s each. A half is the mean and the standard deviation over frames, each
value in units of its spread over all halves. A recording is found if, by the cosine, no
other one's second half is closer to its first half. Log-mel statistics and the same
encoder untrained (mean of three initialisations) stand beside each layer.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from muq_plugins import MuQ
from muq_plugins.data.audio import AudioError, audio_info, read_audio
from muq_plugins.errors import UserError
from muq_plugins.evaluation.probing.clips import Clip
from muq_plugins.evaluation.probing.features import (
    UNTRAINED_SEEDS,
    Extractor,
    FeatureSettings,
    extractors_of,
    mean_and_deviation,
    moment_sums,
    untrained_like,
)
from muq_plugins.inference.cli.inputs import find_inputs

SHORTEST, HALF = 8.0, 10.0  # seconds of a recording, and of a half at most


def found(halves: np.ndarray) -> float:
    """The share of (recordings, 2, size) whose second half is closest to the first."""
    spread = halves.std((0, 1))
    units = (halves - halves.mean((0, 1))) / np.where(spread > 0, spread, 1)
    units /= np.linalg.norm(units, axis=-1, keepdims=True)
    closest = (units[:, 0] @ units[:, 1].T).argmax(1)
    return float((closest == np.arange(len(halves))).mean())


def features(extractor: Extractor, clips: Sequence[Clip]) -> np.ndarray:
    """Halves of clips as vectors (layers, recordings, 2, size)."""
    rows = []
    for clip in clips:
        wav = read_audio(clip.wav, sample_rate=extractor.sample_rate)
        half = min(len(wav) // 2, round(HALF * extractor.sample_rate))
        middle = len(wav) // 2
        pair = torch.stack([wav[middle - half : middle], wav[middle : middle + half]])
        sums, frames = moment_sums(*extractor.states(pair, torch.ones(2)))
        moments = sums.numpy() / frames.numpy()[:, None, None, None]
        rows.append([mean_and_deviation(one) for one in moments])
    return np.array(rows).transpose(2, 0, 1, 3)


def long_enough(sources: list[str]) -> list[Clip]:
    """The recordings that can be cut in two; others are named."""
    inputs, problems = find_inputs(sources)
    clips = []
    for item in inputs:
        try:
            clips.append(Clip(item.name, item.path, audio_info(item.path).duration))
        except AudioError as error:
            problems.append(str(error))
    for problem in problems:
        print(f"Left out: {problem}")
    clips = [clip for clip in clips if clip.duration >= SHORTEST]
    if len(clips) < 2:
        raise UserError(f"{', '.join(sources)}: fewer than two recordings of 8 s.")
    return clips


def main() -> None:
    """Measures, and prints the rows of a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("music", nargs="+")
    parser.add_argument("--model", default="small")
    given = parser.parse_args()
    encoder = MuQ.from_pretrained(given.model, "cpu").mods.encoder
    clips = long_enough(given.music)
    settings = FeatureSettings(None, window_seconds=HALF, max_windows=1)
    untrained = untrained_like(encoder, UNTRAINED_SEEDS[:3], clips, settings)
    print(f"{len(clips)} recordings\n\n| features | found, by layer |\n|---|---|")
    for name, several in extractors_of(encoder, untrained).items():
        shares = np.mean([list(map(found, features(x, clips))) for x in several], 0)
        print(f"| {name} | {', '.join(f'{share:.0%}' for share in shares)} |")


if __name__ == "__main__":
    main()
