"""Reading the runs of a study, and refusing what does not fit together."""

from __future__ import annotations

import numpy as np

from muq_plugins.evaluation.probing.result import TRAINED
from muq_plugins.evaluation.study.entries import Entry
from muq_plugins.evaluation.study.record import Run, Score, Task
from muq_plugins.evaluation.study.resampling import balanced_accuracy

COST_OF_TOKENIZER = (
    "tokenizer_updates",
    "tokenizer_audio_seconds",
    "tokenizer_seconds",
)
# Numbers in the file are rounded to six digits.
ROUNDING = 1e-4


def read_run(entry: Entry, tasks: dict[str, Task]) -> Run:
    """Read one run."""
    learning, optional = entry["learning"], entry.optional
    updates = [e.whole() for e in learning["updates"].elements()]
    losses = [e.number() for e in learning["cross_entropy"].elements()]
    if len(updates) != len(losses) or updates != sorted(set(updates)):
        learning.fail("as many cross-entropies as updates, and rising updates")
    codebooks = entry["num_codebooks"].whole()
    for key in ("usage", "perplexity"):
        if len(entry[key].numbers()) != codebooks:
            entry[key].fail(f"one number for each of the {codebooks} codebooks")
    cost = {
        key: None if (value := optional(key)) is None else value.number()
        for key in COST_OF_TOKENIZER
    }
    errors = optional("reconstruction_error_per_level")
    parameters = optional("parameters")
    return Run(
        experiment=entry["experiment"].text(),
        seed=entry["seed"].whole(),
        updates=entry["updates"].whole(),
        audio_seconds=entry["audio_seconds"].number(),
        training_seconds=entry["training_seconds"].number(),
        **cost,
        parameters=None if parameters is None else parameters.whole(),
        num_codebooks=codebooks,
        codebook_size=entry["codebook_size"].whole(),
        learning_updates=updates,
        learning_cross_entropy=losses,
        cross_entropy=entry["cross_entropy"].number(),
        accuracy=entry["accuracy"].number(),
        code_entropy=entry["code_entropy"].number(),
        usage=entry["usage"].numbers(),
        perplexity=entry["perplexity"].numbers(),
        reconstruction_error=None if errors is None else errors.numbers()[-1],
        probe=_probe(entry, tasks) if tasks else {},
    )


def _probe(entry: Entry, tasks: dict[str, Task]) -> dict[str, dict[str, Score]]:
    return {
        name: {
            features: _score(score, task, needs_hits=features == TRAINED)
            for features, score in {
                TRAINED: entry["probe"][name][TRAINED],
                **entry["probe"][name].mapping(),
            }.items()
        }
        for name, task in tasks.items()
    }


def _score(entry: Entry, task: Task, needs_hits: bool) -> Score:
    layers, chosen = entry["layers"].numbers(), entry["chosen"].whole()
    if chosen >= len(layers):
        entry["chosen"].fail(f"one of {len(layers)} layers, counted from 0")
    value = entry["value"].number()
    if abs(value - layers[chosen]) > ROUNDING:
        entry["value"].fail(f"{layers[chosen]}, that of the chosen layer {chosen}")
    hits = entry.optional("hits")
    if hits is None:
        if needs_hits:
            entry.fail("an object with the key 'hits'")
        return Score(layers, chosen, None)
    text = hits.text()
    if len(text) != len(task.targets) or set(text) - {"0", "1"}:
        hits.fail(f"a 0 or 1 for each of the {len(task.targets)} test clips")
    found = np.array([letter == "1" for letter in text], dtype=float)
    counted = balanced_accuracy(found, task.targets)
    if abs(value - counted) > ROUNDING:
        entry["value"].fail(f"{counted:.6g}, the balanced accuracy of the hits")
    return Score(layers, chosen, found)
