"""Studies that never ran, with known effects: what can so many seeds and clips tell?

Tests hold the statistics of the report against them. A study can be planned with them:
simulate it with the difference that is hoped for, and see whether it is found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from muq_plugins.evaluation.probing.results import LOG_MEL, TRAINED, UNTRAINED

UPDATES = 800
LAYERS = 5
# Task: its kind, and what log-mel statistics and an untrained encoder recognise.
TASKS = {"corpus/family": ("acoustic", 4), "notes/mode": ("semantic", 2)}
RECALL = {LOG_MEL: 0.5, UNTRAINED: 0.45}


@dataclass(frozen=True)
class Simulated:
    """The truth about an experiment."""

    label: str
    recall: float = 0.7
    gain: float = 0.5
    spread: float = 0.02
    num_codebooks: int = 8
    codebook_size: int = 64
    tokenizer_seconds: float | None = None


def simulate_study(
    experiments: dict[str, Simulated],
    groups: Sequence[dict] = (),
    questions: Sequence[dict] = (),
    seeds: Sequence[int] = (1, 2, 3),
    pieces: int = 40,
    seed_effect: float = 0.03,
    number: int = 0,
    probed: bool = True,
) -> dict:
    """Carry out a study with known truth.

    A clip is recognised if a sum is above zero: of the experiment's ability, and of
    random effects of the seed, the piece, the clip, of experiment and piece together,
    and of encoder and clip together.
    """
    rng = np.random.default_rng([number, 5])
    clips = {name: _Clips(rng, classes, pieces) for name, (_, classes) in TASKS.items()}
    runs = [
        _run(rng, name, truth, seed, seed_effect)
        for name, truth in experiments.items()
        for seed in seeds
    ]
    if probed:
        for run in runs:
            shift = seed_effect * rng.normal()
            recall = experiments[run["experiment"]].recall
            run["probe"] = {
                name: {
                    TRAINED: part.probe(rng, run["experiment"], recall, shift),
                    **{
                        features: part.probe(rng, features, share, 0.0)
                        for features, share in RECALL.items()
                    },
                }
                for name, part in clips.items()
            }
    base = next(iter(experiments))
    return {
        "format": 1,
        "study": "simulated",
        "title": "A simulated study",
        "command": "python recipes/MuQ/ablate.py hparams/studies/study_targets.yaml",
        "machine": {"processor": "none", "cores": 2, "device": "cpu"},
        "base": base,
        "seeds": list(seeds),
        "budget": {"optimizer_step_limit": UPDATES, "lr": 0.0004},
        "experiments": {
            name: {"label": truth.label, "file": "muq.yaml", "overrides": {}}
            for name, truth in experiments.items()
        },
        "groups": list(groups),
        "questions": list(questions),
        "tasks": {
            name: part.task(TASKS[name][0]) for name, part in clips.items() if probed
        },
        "runs": runs,
        "missing": [],
    }


class _Clips:
    """A test part."""

    def __init__(self, rng: np.random.Generator, classes: int, pieces: int):
        self.pieces = np.repeat(np.arange(pieces), 4)
        size = len(self.pieces)
        self.targets = np.arange(size) // 2 % classes
        self.classes = [f"class {number}" for number in range(1, classes + 1)]
        # All effects but that of the seed together have a variance of 1.
        self.difficulty = rng.normal(0, 0.2**0.5, pieces)[self.pieces]
        self.difficulty += rng.normal(0, 0.3**0.5, size)
        self.tastes: dict[str, np.ndarray] = {}

    def probe(
        self, rng: np.random.Generator, taste: str, recall: float, shift: float
    ) -> dict:
        if taste not in self.tastes:
            of_piece = rng.normal(0, 0.2**0.5, self.pieces[-1] + 1)
            self.tastes[taste] = self.difficulty + of_piece[self.pieces]
        values = []
        for layer in range(LAYERS):
            share = recall * (0.8 + 0.2 * math.sin(math.pi * layer / (LAYERS - 1)))
            own = rng.normal(0, 0.3**0.5, len(self.targets))
            ability = stats.norm.ppf(recall if layer == 2 else share) + shift
            found = ability + self.tastes[taste] + own > 0
            classes = np.unique(self.targets)
            values.append(np.mean([found[self.targets == c].mean() for c in classes]))
            if layer == 2:
                hits = "".join("1" if hit else "0" for hit in found)
        return {
            "layers": values,
            "validation": values,
            "chosen": 2,
            "value": values[2],
            "hits": hits,
        }

    def task(self, level: str) -> dict:
        return {
            "level": level,
            "metric": "balanced_accuracy",
            "chance": 1 / len(self.classes),
            "classes": self.classes,
            "targets": self.targets.tolist(),
            "pieces": self.pieces.tolist(),
        }


def _run(
    rng: np.random.Generator, name: str, truth: Simulated, seed: int, seed_effect: float
) -> dict:
    entropy = math.log(truth.codebook_size) - 0.3
    gain = truth.gain + truth.spread * rng.normal()
    steps = np.arange(UPDATES // 8, UPDATES + 1, UPDATES // 8)
    curve = entropy - gain * (1.6 * (1 - np.exp(-2 * steps / UPDATES)) - 0.38)
    codebooks = np.linspace(0, 1, truth.num_codebooks)
    usage = 1 - 0.2 * codebooks * rng.uniform(size=truth.num_codebooks)
    has_tokenizer = truth.tokenizer_seconds is not None
    return {
        "experiment": name,
        "seed": seed,
        "updates": UPDATES,
        "audio_seconds": 32.0 * UPDATES,
        "training_seconds": 120.0 + rng.uniform(),
        "tokenizer_updates": UPDATES if has_tokenizer else None,
        "tokenizer_audio_seconds": 16.0 * UPDATES if has_tokenizer else None,
        "tokenizer_seconds": truth.tokenizer_seconds,
        "parameters": 1_000_000 + 8192 * truth.num_codebooks,
        "num_codebooks": truth.num_codebooks,
        "codebook_size": truth.codebook_size,
        "learning": {"updates": steps.tolist(), "cross_entropy": curve.tolist()},
        "cross_entropy": entropy - gain,
        "accuracy": 0.05 + 0.1 * gain,
        "code_entropy": entropy,
        "cross_entropy_per_codebook": [entropy - gain] * truth.num_codebooks,
        "accuracy_per_codebook": [0.05 + 0.1 * gain] * truth.num_codebooks,
        "usage": usage.tolist(),
        "perplexity": (0.7 * usage * truth.codebook_size).tolist(),
        "reconstruction_error_per_level": [0.8, 0.4] if has_tokenizer else None,
    }
