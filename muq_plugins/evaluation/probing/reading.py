"""Reading one label off all features: layer by layer, mixed, with a hidden layer.

For one class a clip, single layers are read by the logistic regression of
`muq_plugins.evaluation.probe`, which finds its penalty by cross-validation on the
training part. Everything else is trained by gradient and stopped by the validation
part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from muq_plugins.evaluation.intervals import interval
from muq_plugins.evaluation.probe import fit_layers
from muq_plugins.evaluation.probing import metrics
from muq_plugins.evaluation.probing.cache import Features
from muq_plugins.evaluation.probing.kept import kept_reading
from muq_plugins.evaluation.probing.readers import ReaderSettings, fit_reader
from muq_plugins.evaluation.probing.result import (
    HIDDEN,
    LINEAR,
    LOG_MEL,
    MIXTURE,
    TRAINED,
    UNTRAINED,
    Comparison,
    Row,
    TaskResult,
)
from muq_plugins.evaluation.probing.tasks import TaskData


def probe_task(
    data: TaskData,
    features: dict[str, Features],
    settings: ReaderSettings,
    seeds: Sequence[int],
    folder: str | Path | None = None,
) -> tuple[TaskResult, dict[str, np.ndarray]]:
    """Probe for one label."""
    rows: list[Row] = []
    draws: dict[tuple, np.ndarray] = {}
    targets, groups = data.targets["test"], data.groups["test"]
    predictions = {"targets": targets, "groups": np.array(groups)}

    # The matrices are small: more threads cost more than they give.
    with threadpool_limits(1):
        for name, part in features.items():
            parts = {p: part.values[places] for p, places in data.parts.items()}
            for reader in settings.readers:
                found = kept_reading(
                    folder,
                    [part.key, name, reader, dataclasses.asdict(settings), list(seeds)],
                    data,
                    partial(_read, data, parts, name, reader, settings, seeds),
                )
                singles = [row.validation for row, _ in found if row.layer != MIXTURE]
                best = int(np.argmax(singles))
                for index, (row, scores) in enumerate(found):
                    sample = np.mean(
                        [metrics.draws(targets, score, groups) for score in scores],
                        axis=0,
                    )
                    _, low, high = interval(row.value, sample)
                    chosen = index == best
                    rows.append(
                        dataclasses.replace(row, low=low, high=high, chosen=chosen)
                    )
                    draws[name, reader, row.layer] = sample
                    predictions[f"{name}/{reader}/{row.layer}"] = scores
    result = TaskResult(
        data.task.label,
        data.task.kind,
        data.task.group,
        data.task.level,
        metrics.PRIMARY[data.task.kind],
        metrics.chance(targets),
        data.classes,
        {part: len(positions) for part, positions in data.parts.items()},
        len(set(groups)),
        rows,
        _compare(rows, draws),
        _best_layers(rows, draws),
        data.notes,
    )
    return result, predictions


def _read(
    data: TaskData,
    parts: dict[str, np.ndarray],
    name: str,
    reader: str,
    settings: ReaderSettings,
    seeds: Sequence[int],
) -> list[tuple[Row, np.ndarray]]:
    """A row and its predictions (seeds, clips, ...) of each layer, then the mixture."""
    layers = parts["train"].shape[1]
    numbers = list(range(layers)) if layers > 1 else [None]
    found, trained = [], []
    if reader == LINEAR and data.task.kind == "single":
        probes = fit_layers(
            parts["train"],
            data.names("train"),
            parts["test"],
            data.names("test"),
            data.groups["train"],
            data.groups["test"],
            seeds[0],
            name,
            settings.folds,
        )
        class_number = {label: index for index, label in enumerate(data.classes)}
        for layer, probe in zip(numbers, probes, strict=True):
            scores = np.array([[class_number[label] for label in probe.predictions]])
            row = _row(data, name, reader, layer, scores)
            row = dataclasses.replace(
                row,
                seed_std=None,
                validation=probe.validation,
                penalty=probe.penalty,
            )
            found.append((row, scores))
    else:
        trained = [(layer, [layer or 0]) for layer in numbers]
    if layers > 1 and settings.mixture:
        trained.append((MIXTURE, numbers))
    for layer, used in trained:
        read = {part: values[:, used] for part, values in parts.items()}
        found.append(_train(data, read, name, reader, layer, settings, seeds))
    return found


def _train(data, parts, name, reader, layer, settings, seeds) -> tuple[Row, np.ndarray]:
    """Train a probe with each seed on the layers that `parts` holds."""
    is_single = data.task.kind == "single"
    valid, scores, weights = [], [], []
    for seed in seeds:
        fit = fit_reader(
            parts["train"],
            data.targets["train"],
            parts["valid"],
            data.targets["valid"],
            len(data.classes),
            reader == HIDDEN,
            settings,
            seed,
        )
        for kept, part in ((valid, "valid"), (scores, "test")):
            logits = fit.scores(parts[part])
            kept.append(logits.argmax(axis=1) if is_single else logits)
        weights.append(fit.reader.weights.numpy())
    metric = metrics.PRIMARY[data.task.kind]
    row = dataclasses.replace(
        _row(data, name, reader, layer, np.array(scores)),
        validation=float(
            np.mean([metrics.metrics(data.targets["valid"], v)[metric] for v in valid])
        ),
        weights=np.mean(weights, axis=0).round(4).tolist()
        if layer == MIXTURE
        else None,
    )
    return row, np.array(scores)


def _row(data: TaskData, name: str, reader: str, layer, scores: np.ndarray) -> Row:
    """A row with the metrics of the test part; the interval comes later."""
    by_seed = [metrics.metrics(data.targets["test"], score) for score in scores]
    means = {key: float(np.mean([m[key] for m in by_seed])) for key in by_seed[0]}
    metric = metrics.PRIMARY[data.task.kind]
    return Row(
        features=name,
        reader=reader,
        layer=layer,
        value=means[metric],
        low=means[metric],
        high=means[metric],
        metrics=means,
        seed_std=float(np.std([m[metric] for m in by_seed])),
    )


def _compare(rows: list[Row], draws: dict) -> list[Comparison]:
    """The trained encoder with each reference, both at the layer that was chosen."""
    chosen = {(row.features, row.reader): row for row in rows if row.chosen}
    comparisons = []
    for reader in (LINEAR, HIDDEN):
        for reference in (UNTRAINED, LOG_MEL):
            ours, other = chosen.get((TRAINED, reader)), chosen.get((reference, reader))
            if ours is None or other is None:
                continue
            sample = (
                draws[TRAINED, reader, ours.layer]
                - draws[reference, reader, other.layer]
            )
            comparisons.append(
                Comparison(
                    reader,
                    reference,
                    *interval(ours.value - other.value, sample),
                )
            )
    return comparisons


def _best_layers(rows: list[Row], draws: dict) -> list[float]:
    """In which share of the resamplings each layer of the trained encoder is best."""
    layers = [
        row.layer
        for row in rows
        if (row.features, row.reader) == (TRAINED, LINEAR)
        and isinstance(row.layer, int)
    ]
    if not layers:
        return []
    best = np.argmax([draws[TRAINED, LINEAR, layer] for layer in layers], axis=0)
    shares = np.bincount(best, minlength=len(layers)) / len(best)
    return shares.round(4).tolist()
