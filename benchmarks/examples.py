#!/usr/bin/env python3
"""Search by an audio example on real recordings: do notes find their instrument?

Of a folder with a `manifest.csv` (columns path, kind, instrument, source_repo,
source_path and source_set) and its recordings:

> python benchmarks/examples.py /data/real-music --models results/muq_mulan/1234

Every note is a query once; the others are ranked, but for itself and those cut from the
same recording. Relevant are those of the same instrument. Beside the latents of models
stand statistics of the log-mel spectrogram (mean and standard deviation of every band),
compared by cosine as well. All are there twice: as they are, and with each number
standardised over all notes, which takes out what the notes have in common.

Notes of one sample library share microphone and room, so a second row takes the
candidates from the query's own library alone, where that has several instruments: there
the library cannot tell. Intervals are 95 %, over instruments.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from muq_plugins.data.audio import read_audio
from muq_plugins.evaluation.intervals import draws, interval
from muq_plugins.evaluation.probing.features import (
    LogMelFrames,
    mean_and_deviation,
    moment_sums,
)
from muq_plugins.evaluation.retrieval import query_scores
from muq_plugins.evaluation.zero_shot.clips import audio_latents
from muq_plugins.inference.mulan import MuQMuLan

STANDARDISED = "{}, standardised"
LOG_MEL = STANDARDISED.format("log-mel statistics")
EVERYWHERE, OWN_LIBRARY = "all libraries", "own library"
# Places of the average precision and of the first hit in what `query_scores` gives.
SCORES = [5, 0]


class Notes(NamedTuple):
    """The notes of a folder: what each is of, was cut from, and belongs to."""

    files: list[str]
    instruments: np.ndarray
    recordings: np.ndarray
    libraries: np.ndarray


def read_notes(folder: str | Path, kind: str) -> Notes:
    """Reads the manifest of a folder."""
    with open(Path(folder) / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == kind]
    return Notes(
        [str(Path(folder) / row["path"]) for row in rows],
        np.array([row["instrument"] for row in rows]),
        np.array([f"{row['source_repo']} {row['source_path']}" for row in rows]),
        np.array([row["source_set"] for row in rows]),
    )


@torch.no_grad()
def log_mel_statistics(encoder: torch.nn.Module, files: Sequence[str]) -> np.ndarray:
    """Mean and standard deviation of each band of the log-mel spectrogram."""
    log_mel = LogMelFrames(encoder)
    rows = []
    for file in files:
        wav = read_audio(file, sample_rate=log_mel.sample_rate)
        wavs = torch.as_tensor(wav).reshape(1, -1)
        sums, frames = moment_sums(*log_mel.states(wavs, torch.ones(1)))
        rows.append(mean_and_deviation((sums[0] / frames).numpy()).ravel())
    return np.stack(rows)


def both_ways(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Features as they are, and standardised."""
    scaled = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9)
    return {name: values, STANDARDISED.format(name): scaled}


def search_scores(latents: np.ndarray, notes: Notes, own_library: bool) -> np.ndarray:
    """Ranks all notes for each of them, by cosine similarity.

    Gives average precision and whether the first is right, and both by chance
    (notes, 4); NaN where there is nothing to find, or nothing else.
    """
    lengths = np.linalg.norm(latents, axis=1, keepdims=True)
    near = latents / np.maximum(lengths, 1e-9)
    near = near @ near.T
    found = np.full((len(near), 4), np.nan)
    for row in range(len(near)):
        # A note is of its own recording, so this leaves the query out too.
        allowed = notes.recordings != notes.recordings[row]
        if own_library:
            allowed &= notes.libraries == notes.libraries[row]
        relevant = (notes.instruments == notes.instruments[row])[allowed]
        if relevant.any() and not relevant.all():
            for place, scores in (
                (0, near[row, allowed]),
                (2, np.zeros(len(relevant))),
            ):
                found[row, place : place + 2] = query_scores(scores, relevant)[SCORES]
    return found


def compare(features: dict[str, np.ndarray], notes: Notes) -> dict:
    """Scores of all features, and their differences from log-mel statistics."""
    result = {}
    for place in (EVERYWHERE, OWN_LIBRARY):
        scores = {
            name: search_scores(latents, notes, place == OWN_LIBRARY)
            for name, latents in features.items()
        }
        asked = ~np.isnan(scores[LOG_MEL][:, 0])
        if not asked.any():
            continue
        weights = draws(notes.instruments[asked])
        base = scores[LOG_MEL][asked, 0]
        rows = [
            {
                "name": name,
                "map": _mean(found[asked, 0], weights),
                "first": _mean(found[asked, 1], weights),
                "difference": _mean(found[asked, 0] - base, weights),
                "chance": float(found[asked, 2].mean()),
            }
            for name, found in scores.items()
        ]
        result[place] = {"queries": int(asked.sum()), "rows": rows}
    return result


def markdown(result: dict) -> str:
    """Writes the table of a comparison."""
    lines = [
        "| candidates | queries | features | mAP | first one right | mAP - log-mel's |",
        "|---|---|---|---|---|---|",
    ]
    for place, part in result.items():
        begin = f"| {place} | {part['queries']} |"
        for row in part["rows"]:
            cells = [row["name"], *(_text(row[key]) for key in ("map", "first"))]
            cells.append("-" if row["name"] == LOG_MEL else _text(row["difference"]))
            lines.append(f"{begin} {' | '.join(cells)} |")
        chance = part["rows"][0]["chance"]
        lines.append(f"{begin} chance | {chance:.3f} | - | - |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="recordings with a manifest.csv")
    parser.add_argument(
        "--models", nargs="+", required=True, help="what MuQMuLan.from_pretrained takes"
    )
    parser.add_argument("--kind", default="note", help="which rows of the manifest")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--latents_folder", default="results/latents")
    parser.add_argument("--json", help="file that the numbers go to")
    arguments = parser.parse_args(argv)
    notes = read_notes(arguments.folder, arguments.kind)
    features: dict[str, np.ndarray] = {}
    for source in arguments.models:
        model = MuQMuLan.from_pretrained(source, device=arguments.device)
        if not features:
            encoder = model.mods.audio.encoder
            statistics = log_mel_statistics(encoder, notes.files)
            features |= both_ways("log-mel statistics", statistics)
        kept = arguments.latents_folder
        latents = audio_latents(model, notes.files, kept, progress=True)
        features |= both_ways(source, latents)
    result = compare(features, notes)
    print(markdown(result))
    if arguments.json:
        content = json.dumps(result, indent=1)
        Path(arguments.json).write_text(content, encoding="utf-8")


def _mean(values: np.ndarray, weights: np.ndarray) -> list[float]:
    return list(interval(values.mean(), weights @ values / weights.sum(axis=1)))


def _text(numbers: Sequence[float]) -> str:
    value, low, high = numbers
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
