"""Probing: every task on every layer, beside what an encoder has to beat.

For one class a clip, single layers are read by a logistic regression, which finds its
penalty by cross-validation on the training part. Everything else is trained by gradient
and stopped by the validation part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from speechbrain.utils.logger import get_logger
from threadpoolctl import threadpool_limits
from torch import nn

from muq_plugins.evaluation.intervals import interval
from muq_plugins.evaluation.probing.clips import Clip, ProbeError, corpus_of
from muq_plugins.evaluation.probing.features import (
    Extractor,
    Features,
    FeatureSettings,
    cached_features,
    extractors_of,
)
from muq_plugins.evaluation.probing.readers import (
    ReaderSettings,
    fit_layers,
    fit_reader,
)
from muq_plugins.evaluation.probing.results import (
    FINAL_FOLDER,
    FINAL_LABEL,
    HIDDEN,
    LINEAR,
    MIXTURE,
    TRAINED,
    Row,
    TaskResult,
    compared,
    kept_reading,
    load_task,
    save_results,
    save_task,
)
from muq_plugins.evaluation.probing.tasks import ProbeTask, TaskData, task_data
from muq_plugins.evaluation.scores import PRIMARY, chance, label_draws, label_scores

logger = get_logger(__name__)

# Raised whenever a change of the code changes the scores.
FORMAT = 1
# The middle of each clip, at the end of a training: a mean over fewer is noisier.
FINAL_SECONDS = 20.0
# The label of a piece whose instruments belong to several families.
MIXED = "mixed"


def probe(
    folder: str | Path,
    extractors: Mapping[str, Extractor],
    corpora: Sequence[list[Clip]],
    tasks: Sequence[ProbeTask],
    features: FeatureSettings,
    reader: ReaderSettings,
    seeds: Sequence[int],
    hold_out: bool = True,
    progress: bool = False,
) -> list[TaskResult]:
    """Probe for all labels, each on the first corpus that has it.

    Each is kept as soon as it is finished, and `scores.json` has them all. `hold_out`
    is as in `task_data`.
    """
    if not seeds:
        raise ProbeError("seeds must list at least one number.")
    places = [corpus_of(task.label, corpora) for task in tasks]
    for task, place in zip(tasks, places, strict=True):
        # Mistakes in labels show before hours of features.
        task_data(task, corpora[place], None, seeds[0], hold_out)
    results = {}
    for place in sorted(set(places)):
        read = {
            name: cached_features(extractor, corpora[place], features, name, progress)
            for name, extractor in extractors.items()
        }
        here = [task for task, its in zip(tasks, places, strict=True) if its == place]
        kept, options = features.folder, (reader, seeds, hold_out)
        for result in probe_tasks(folder, here, corpora[place], read, *options, kept):
            results[result.label] = result
    results = [results[task.label] for task in tasks]
    save_results(folder, results)
    return results


def probe_run(
    run_folder: str | Path,
    untrained: nn.Module,
    trained: nn.Module,
    train_manifest: dict,
    test_manifest: dict,
) -> bool:
    """At the end of a training: what has an encoder learned, where labels allow it?

    Not of the front end, a filtered log-mel, which has a row of its own.
    """
    clips = []
    for part, manifest in (("train", train_manifest), ("test", test_manifest)):
        if not any(FINAL_LABEL in entry for entry in manifest.values()):
            logger.info(f"No probe: the {part} part has no label {FINAL_LABEL!r}.")
            return False
        clips += [
            Clip(name, entry["wav"], entry["duration"], part, {"piece": name, **entry})
            for name, entry in sorted(manifest.items())
            if entry.get(FINAL_LABEL) not in (None, "", MIXED)
        ]
    device = next(trained.parameters()).device
    try:
        probe(
            Path(run_folder) / FINAL_FOLDER,
            extractors_of(trained, untrained.to(device), first=1),
            [clips],
            [ProbeTask(FINAL_LABEL, group="piece")],
            FeatureSettings(None, FINAL_SECONDS, max_windows=1, batch_size=16),
            ReaderSettings([LINEAR], mixture=False),
            seeds=[0],
            hold_out=False,
        )
    except ProbeError as error:  # a tiny corpus may have too few pieces or classes
        logger.warning(f"No probe: {error}")
        return False
    return True


def probe_folder(parent: str | Path, encoder: str | Path) -> str:
    """A folder of its own for the probe of each encoder."""
    path = Path(encoder)
    whole = str(path.resolve() if path.exists() else path)
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    name = "-".join(Path(whole).parts[-2:]).strip("/")
    return str(Path(parent) / f"{name}-{digest}")


def probe_tasks(
    folder: str | Path,
    tasks: Sequence[ProbeTask],
    clips: list[Clip],
    features: Mapping[str, Features],
    reader: ReaderSettings,
    seeds: Sequence[int],
    hold_out: bool = True,
    kept: str | Path | None = None,
) -> Iterator[TaskResult]:
    """The results of tasks on one corpus; `kept` is for readings of other probes."""
    usable = np.all([part.usable for part in features.values()], axis=0)
    for task in tasks:
        about = {
            "format": FORMAT,
            "task": asdict(task),
            "features": {name: part.key for name, part in features.items()},
            # Labels and parts can change without any of the features.
            "labels": [[clip.part, clip.labels.get(task.label)] for clip in clips],
            "groups": [clip.labels.get(task.group) for clip in clips],
            "reader": asdict(reader),
            "seeds": list(seeds),
        }
        text = json.dumps(about, default=list)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        result = load_task(folder, key, task.label)
        if result is None:
            data = task_data(task, clips, usable, seeds[0], hold_out)
            result = probe_task(data, features, reader, seeds, kept)
            save_task(folder, key, result)
            logger.info(f"Probe for {task.label}: finished.")
        else:
            logger.info(f"Probe for {task.label}: finished before.")
        yield result


def probe_task(
    data: TaskData,
    features: Mapping[str, Features],
    settings: ReaderSettings,
    seeds: Sequence[int],
    folder: str | Path | None = None,
) -> TaskResult:
    """Probe for one label: layer by layer, mixed, with a hidden layer."""
    rows: list[Row] = []
    draws: dict[str, np.ndarray] = {}
    targets, groups = data.targets["test"], data.groups["test"]
    predictions = {"targets": targets, "groups": np.array(groups)}

    # The matrices are small: more threads cost more than they give.
    with threadpool_limits(1):
        for name, part in features.items():
            for reader in settings.readers:
                found = kept_reading(
                    folder,
                    [part.key, name, reader, asdict(settings), list(seeds)],
                    data,
                    partial(_read, data, part, name, reader, settings, seeds),
                )
                singles = [row.validation for row, _ in found if row.layer != MIXTURE]
                best = int(np.argmax(singles))
                for index, (row, scores) in enumerate(found):
                    each = [label_draws(targets, score, groups) for score in scores]
                    sample = np.mean(each, axis=0)
                    _, low, high = interval(row.value, sample)
                    chosen = index == best
                    rows.append(replace(row, low=low, high=high, chosen=chosen))
                    draws[row.key], predictions[row.key] = sample, scores
    return TaskResult(
        data.task.label,
        data.task.kind,
        data.task.group,
        data.task.level,
        PRIMARY[data.task.kind],
        chance(targets),
        data.classes,
        {part: len(positions) for part, positions in data.parts.items()},
        len(set(groups)),
        rows,
        compared(rows, draws),
        _best_layers(rows, draws),
        data.notes,
        predictions,
    )


def _read(
    data: TaskData,
    features: Features,
    name: str,
    reader: str,
    settings: ReaderSettings,
    seeds: Sequence[int],
) -> list[tuple[Row, np.ndarray]]:
    """A row and its predictions (seeds, clips, ...) of each layer, then the mixture."""
    parts = {part: features.values[places] for part, places in data.parts.items()}
    places = list(range(parts["train"].shape[1]))
    names = [features.first + place for place in places] if places[1:] else [None]
    found, trained = [], []
    if reader == LINEAR and data.task.kind == "single":
        probes = fit_layers(
            parts["train"],
            data.targets["train"],
            data.groups["train"],
            parts["test"],
            seeds[0],
            settings.folds,
        )
        for layer, (predictions, penalty, validation) in zip(
            names, probes, strict=True
        ):
            row = _row(data, name, reader, layer, predictions[None])
            row = replace(row, seed_std=None, validation=validation, penalty=penalty)
            found.append((row, predictions[None]))
    else:
        trained = [(layer, [place]) for layer, place in zip(names, places, strict=True)]
    if places[1:] and settings.mixture:
        trained.append((MIXTURE, places))
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
    metric = PRIMARY[data.task.kind]
    validation = [label_scores(data.targets["valid"], found)[metric] for found in valid]
    mixed = np.mean(weights, axis=0).round(4).tolist() if layer == MIXTURE else None
    scores = np.array(scores)
    row = _row(data, name, reader, layer, scores)
    return replace(row, validation=float(np.mean(validation)), weights=mixed), scores


def _row(data: TaskData, name: str, reader: str, layer, scores: np.ndarray) -> Row:
    """A row with the metrics of the test part; the interval comes later."""
    by_seed = [label_scores(data.targets["test"], score) for score in scores]
    means = {key: float(np.mean([m[key] for m in by_seed])) for key in by_seed[0]}
    metric = PRIMARY[data.task.kind]
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


def _best_layers(rows: list[Row], draws: dict[str, np.ndarray]) -> list[float]:
    """In which share of the resamplings each layer of the trained encoder is best."""
    layers = [
        draws[row.key]
        for row in rows
        if (row.features, row.reader) == (TRAINED, LINEAR)
        and isinstance(row.layer, int)
    ]
    if not layers:
        return []
    best = np.argmax(layers, axis=0)
    return (np.bincount(best, minlength=len(layers)) / len(best)).round(4).tolist()
