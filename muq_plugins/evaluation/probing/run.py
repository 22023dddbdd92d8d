"""Probing: every task on every layer, beside what an encoder has to beat."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from speechbrain.utils.logger import get_logger
from torch import nn

from muq_plugins.evaluation.probe import ProbeError
from muq_plugins.evaluation.probing.cache import (
    Features,
    FeatureSettings,
    cached_features,
)
from muq_plugins.evaluation.probing.clips import Clip, corpus_of
from muq_plugins.evaluation.probing.features import (
    LayerAverages,
    LogMelStatistics,
    untrained_like,
)
from muq_plugins.evaluation.probing.readers import ReaderSettings
from muq_plugins.evaluation.probing.reading import probe_task
from muq_plugins.evaluation.probing.result import (
    LOG_MEL,
    TRAINED,
    UNTRAINED,
    TaskResult,
)
from muq_plugins.evaluation.probing.storage import load_task, save_results, save_task
from muq_plugins.evaluation.probing.tasks import ProbeTask, task_data

logger = get_logger(__name__)

# Raised whenever a change of the code changes the scores.
FORMAT = 1


def make_tasks(tasks: Sequence[dict], group: str | None) -> list[ProbeTask]:
    """The tasks that an experiment file lists."""
    known = [field.name for field in dataclasses.fields(ProbeTask)]
    for task in tasks:
        if not isinstance(task, dict) or "label" not in task or set(task) - set(known):
            raise ProbeError(
                f"A task is a mapping with the key label and any of "
                f"{', '.join(known[1:])}, got {task!r}."
            )
    labels = [task["label"] for task in tasks]
    if not labels or len(set(labels)) < len(labels):
        raise ProbeError(f"tasks must list at least one label, each once: {labels}.")
    return [ProbeTask(**{"group": group, **task}) for task in tasks]


def probe_folder(parent: str | Path, encoder: str | Path) -> str:
    """A folder of its own for the probe of each encoder."""
    path = Path(encoder)
    whole = str(path.resolve() if path.exists() else path)
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    name = "-".join(Path(whole).parts[-2:]).strip("/")
    return str(Path(parent) / f"{name}-{digest}")


def probe_encoder(
    folder: str | Path,
    encoder: nn.Module,
    untrained_seed: int,
    tasks: Sequence[ProbeTask],
    corpora: Sequence[list[Clip]],
    feature_settings: FeatureSettings,
    settings: ReaderSettings,
    seeds: Sequence[int],
    progress: bool = False,
) -> list[TaskResult]:
    """Probe an encoder beside its untrained self and log-mel statistics."""
    if not seeds:
        raise ProbeError("seeds must list at least one number.")
    places = [corpus_of(task.label, corpora) for task in tasks]
    for task, place in zip(tasks, places, strict=True):
        # Mistakes in labels show before hours of features.
        task_data(task, corpora[place], seed=seeds[0])
    extractors = {
        LOG_MEL: LogMelStatistics(encoder),
        UNTRAINED: LayerAverages(untrained_like(encoder, untrained_seed)),
        TRAINED: LayerAverages(encoder),
    }
    results = {}
    for place in sorted(set(places)):
        clips = corpora[place]
        features = {
            name: cached_features(extractor, clips, feature_settings, name, progress)
            for name, extractor in extractors.items()
        }
        here = [task for task, its in zip(tasks, places, strict=True) if its == place]
        kept = feature_settings.folder
        for result in _results(folder, here, clips, features, settings, seeds, kept):
            results[result.label] = result
    results = [results[task.label] for task in tasks]
    save_results(folder, results)
    return results


def probe_tasks(
    folder: str | Path,
    tasks: Sequence[ProbeTask],
    clips: list[Clip],
    features: dict[str, Features],
    settings: ReaderSettings,
    seeds: Sequence[int],
) -> list[TaskResult]:
    """Probe for all labels, and keep each as soon as it is finished."""
    results = list(_results(folder, tasks, clips, features, settings, seeds))
    save_results(folder, results)
    return results


def _results(
    folder, tasks, clips, features, settings, seeds, kept=None
) -> Iterator[TaskResult]:
    """See `probe_tasks`; `kept` is where readings are kept for other probes."""
    usable = np.all([part.usable for part in features.values()], axis=0)
    for task in tasks:
        about = {
            "format": FORMAT,
            "task": dataclasses.asdict(task),
            "features": {name: part.key for name, part in features.items()},
            # Labels and parts can change without any of the features.
            "labels": [[clip.part, clip.labels.get(task.label)] for clip in clips],
            "groups": [clip.labels.get(task.group) for clip in clips],
            "reader": dataclasses.asdict(settings),
            "seeds": list(seeds),
        }
        text = json.dumps(about, default=list)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        result = load_task(folder, key, task.label)
        if result is None:
            data = task_data(task, clips, usable, seeds[0])
            result, predictions = probe_task(data, features, settings, seeds, kept)
            save_task(folder, key, result, predictions)
            logger.info(f"Probe for {task.label}: finished.")
        else:
            logger.info(f"Probe for {task.label}: finished before.")
        yield result
