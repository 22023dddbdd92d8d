"""Probing: every task on every layer, beside what an encoder has to beat.

For one class a clip, single layers are read by a logistic regression, which finds its
penalty by cross-validation on the training part. Everything else is trained by gradient
and stopped by the validation part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from speechbrain.utils.logger import get_logger
from threadpoolctl import threadpool_limits
from torch import nn

from muq_plugins.evaluation.kept import digest
from muq_plugins.evaluation.probing.clips import (
    Clip,
    ProbeError,
    check_seeds,
    corpus_of,
)
from muq_plugins.evaluation.probing.features import (
    UNTRAINED_SEEDS,
    Extractor,
    Features,
    FeatureSettings,
    cached_features,
    extractors_of,
    untrained_like,
)
from muq_plugins.evaluation.probing.frame_labels import MIDI, NOTES
from muq_plugins.evaluation.probing.frames import frame_data, probe_frames
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
    Found,
    Row,
    TaskResult,
    kept_in,
    mean_of_initialisations,
    resampled,
    save_results,
    spread,
)
from muq_plugins.evaluation.probing.tasks import (
    ProbeTask,
    TaskData,
    or_without,
    task_data,
)
from muq_plugins.evaluation.scores import PRIMARY, chance, label_scores

logger = get_logger(__name__)

# Raised whenever a change of the code changes what is read.
FORMAT = 2
# The middle of each clip, at the end of a training: a mean over less is noisier.
FINAL_SECONDS = {"single": 20.0, "frames": 6.0}
# The label of a piece whose instruments belong to several families.
MIXED = "mixed"


def probe(
    folder: str | Path,
    extractors: Mapping[str, Sequence[Extractor]],
    corpora: Sequence[list[Clip]],
    tasks: Sequence[ProbeTask],
    features: FeatureSettings,
    reader: ReaderSettings,
    seeds: Sequence[int],
    hold_out: bool = True,
    progress: bool = False,
) -> list[TaskResult]:
    """Probe for all labels, each on the first corpus that has it.

    `hold_out` is as in `task_data`. What takes long is kept in the folder of the
    features, from which a probe that was stopped goes on.
    """
    check_seeds(seeds)
    places = [corpus_of(task.key, corpora) for task in tasks]
    framed = {}
    for task, place in zip(tasks, places, strict=True):
        # Mistakes in labels show before hours of features.
        if task.kind == "frames":
            seconds = features.window_seconds
            framed[task.label] = frame_data(task, corpora[place], seconds, seeds[0])
        else:
            with or_without(task):
                task_data(task, corpora[place], None, seeds[0], hold_out)
    results = {}
    for label, data in framed.items():
        results[label] = probe_frames(data, extractors, features)
        logger.info(f"Probe for {label}: finished.")
    # What else is read beside a score does not decide about it.
    trained = {**asdict(reader), "readers": None, "mixture": None}
    windows = [features.window_seconds, features.max_windows]
    about = {"windows": windows, "reader": trained, "seeds": list(seeds)}
    for place, corpus in enumerate(corpora):
        here = [
            task
            for task, its in zip(tasks, places, strict=True)
            if its == place and task.label not in framed
        ]
        if not here:
            continue
        read = {
            name: [
                cached_features(one, corpus, features, name, progress)
                for one in several
            ]
            for name, several in extractors.items()
        }
        options = reader, seeds, hold_out, features.folder
        for result in probe_tasks(here, corpus, read, *options):
            results[result.label] = replace(result, about=about)
    results = [results[task.label] for task in tasks]
    save_results(folder, results)
    return results


def probe_run(
    run_folder: str | Path,
    trained: nn.Module,
    train_manifest: dict,
    test_manifest: dict,
) -> bool:
    """At the end of a training: what has an encoder learned, where labels allow it?"""

    def extractors(clips, features):
        untrained = untrained_like(trained, UNTRAINED_SEEDS, clips, features)
        return extractors_of(trained, untrained)

    folder = Path(run_folder) / FINAL_FOLDER
    return probe_at_end(folder, extractors, train_manifest, test_manifest) is not None


def probe_at_end(
    folder: str | Path,
    extractors: Callable[[list[Clip], FeatureSettings], Mapping],
    train_manifest: dict,
    test_manifest: dict,
) -> TaskResult | None:
    """Which notes sound when, or the family of instruments where notes are not known.

    ``extractors(clips, features)`` gives what is read; None without labels.
    """
    clips = [
        Clip(name, entry["wav"], entry["duration"], part, {"piece": name, **entry})
        for part, manifest in (("train", train_manifest), ("test", test_manifest))
        for name, entry in sorted(manifest.items())
    ]
    tasks = [
        ProbeTask(NOTES, "frames", group="piece"),
        ProbeTask(FINAL_LABEL, group="piece", ignore=[MIXED]),
    ]
    known = [
        {key for x in clips if x.part == p for key in x.labels}
        for p in ("train", "test")
    ]
    tasks = [task for task in tasks if all(task.key in labels for labels in known)]
    if not tasks:
        logger.info(
            f"No probe: not both the training and the test part have notes ({MIDI!r}) "
            f"or the label {FINAL_LABEL!r}."
        )
        return None
    seconds = FINAL_SECONDS[tasks[0].kind]
    features = FeatureSettings(None, seconds, max_windows=1, batch_size=16)
    try:
        (result,) = probe(
            folder,
            extractors(clips, features),
            [clips],
            tasks[:1],
            features,
            ReaderSettings([LINEAR], mixture=False),
            seeds=[0],
            hold_out=False,
        )
    except ProbeError as error:  # a tiny corpus may have too few pieces or classes
        logger.warning(f"No probe: {error}")
        return None
    return result


def probe_folder(
    parent: str | Path,
    encoder: str | Path,
    tasks: str | dict | Sequence[str | dict] = (),
) -> str:
    """A folder of its own for the probe of each encoder, and of some tasks."""
    tasks = [tasks] if isinstance(tasks, str | dict) else tasks
    if tasks:
        names = [str(x.get("label")) if isinstance(x, dict) else x for x in tasks]
        many = f"{len(tasks)}_tasks-{digest(list(tasks))[:8]}"
        parent = Path(parent) / ("-".join(names) if len(tasks) < 5 else many)
    path = Path(encoder)
    whole = str(path.resolve() if path.exists() else path)
    name = "-".join(Path(whole).parts[-2:]).strip("/")
    return str(Path(parent) / f"{name}-{digest(os.fsencode(whole))[:8]}")


def probe_tasks(
    tasks: Sequence[ProbeTask],
    clips: list[Clip],
    features: Mapping[str, Sequence[Features]],
    reader: ReaderSettings,
    seeds: Sequence[int],
    hold_out: bool = True,
    kept: str | Path | None = None,
) -> list[TaskResult]:
    """The results of tasks on one corpus; ``kept`` is the folder of `Reading.found`.

    Of the untrained encoder there are several features, one of each initialisation: its
    rows are their mean.
    """
    usable = np.all([x.usable for several in features.values() for x in several], 0)
    results = []
    for task in tasks:
        data = task_data(task, clips, usable, seeds[0], hold_out)
        results.append(probe_task(data, features, reader, seeds, kept))
        logger.info(f"Probe for {task.label}: finished.")
    return results


def probe_task(
    data: TaskData,
    features: Mapping[str, Sequence[Features]],
    settings: ReaderSettings,
    seeds: Sequence[int],
    folder: str | Path | None = None,
) -> TaskResult:
    """Probe for one label: layer by layer, mixed, with a hidden layer."""
    rows: list[Row] = []
    targets, groups = data.targets["test"], np.array(data.groups["test"])
    predictions = {"targets": targets, "groups": groups}
    # The matrices are small: more threads cost more than they give.
    with threadpool_limits(1):
        for name, several in features.items():
            for reader in settings.readers:
                options = name, reader, settings, seeds
                found = mean_of_initialisations(
                    [Reading(data, one, *options).found(folder) for one in several]
                )
                singles = [row.validation for row, _ in found if row.layer != MIXTURE]
                best = int(np.argmax(singles))
                for index, (row, scores) in enumerate(found):
                    rows.append(replace(row, chosen=index == best))
                    predictions[row.key] = scores
        task = data.task
        result = TaskResult(
            *(task.label, task.kind, task.group, task.level),
            PRIMARY[task.kind],
            chance(targets),
            data.classes,
            {part: len(positions) for part, positions in data.parts.items()},
            len(set(data.groups["test"])),
            rows,
            notes=data.notes,
            predictions=predictions,
        )
        return resampled(result)


@dataclass(frozen=True)
class Reading:
    """One label that is read off one kind of features by one kind of probe."""

    data: TaskData
    features: Features
    name: str  # of the features
    reader: str
    settings: ReaderSettings
    seeds: Sequence[int]

    def found(self, folder: str | Path | None) -> Found:
        """A row and predictions (seeds, clips, ...) of each layer, then the mixture.

        Kept in a folder: a probe goes on where it was stopped, and references are the
        same for many encoders.
        """
        if folder is None:
            return self._read()
        data, settings = self.data, asdict(self.settings)
        about = [self.features.key, self.name, self.reader, settings, list(self.seeds)]
        content = {
            "format": FORMAT,
            "about": about,
            "kind": data.task.kind,
            "classes": data.classes,
            "parts": {part: places.tolist() for part, places in data.parts.items()},
            "targets": {part: found.tolist() for part, found in data.targets.items()},
            "groups": data.groups,
        }
        return kept_in(folder, content, self._read)

    def _read(self) -> Found:
        data = self.data
        parts = {part: self.features.values[at] for part, at in data.parts.items()}
        places = list(range(parts["train"].shape[1]))
        names = places if places[1:] else [None]
        trained = {name: [at] for name, at in zip(names, places, strict=True)}
        found = []
        if self.reader == LINEAR and data.task.kind == "single":
            train = parts["train"], data.targets["train"], data.groups["train"]
            options = self.seeds[0], self.settings.folds
            fits = fit_layers(*train, parts["test"], *options)
            for layer, fit in zip(names, fits, strict=True):
                known = {"validation": fit.validation, "penalty": fit.penalty}
                row = self._row(layer, fit.predictions[None], seed_std=None, **known)
                found.append((row, fit.predictions[None]))
            trained = {}
        if places[1:] and self.settings.mixture:
            trained[MIXTURE] = places
        for layer, used in trained.items():
            read = {part: values[:, used] for part, values in parts.items()}
            found.append(self._train(layer, read))
        return found

    def _train(self, layer, parts: dict[str, np.ndarray]) -> tuple[Row, np.ndarray]:
        """Train a probe with each seed on the layers that `parts` holds."""
        data, metric = self.data, PRIMARY[self.data.task.kind]
        scores, weights, validation = [], [], []
        known = parts["train"], data.targets["train"]
        known += parts["valid"], data.targets["valid"], len(data.classes)
        for seed in self.seeds:
            fit = fit_reader(*known, self.reader == HIDDEN, self.settings, seed)
            valid, test = (fit.scores(parts[part]) for part in ("valid", "test"))
            if data.task.kind == "single":
                valid, test = valid.argmax(axis=1), test.argmax(axis=1)
            validation.append(label_scores(data.targets["valid"], valid)[metric])
            scores.append(test)
            weights.append(fit.reader.weights.numpy())
        mixed = np.mean(weights, axis=0).round(4).tolist() if layer == MIXTURE else None
        scores, validation = np.array(scores), float(np.mean(validation))
        return self._row(layer, scores, validation=validation, weights=mixed), scores

    def _row(self, layer, scores: np.ndarray, **known) -> Row:
        """A row with the metrics of the test part; the interval comes later."""
        by_seed = [label_scores(self.data.targets["test"], score) for score in scores]
        means = {key: float(np.mean([m[key] for m in by_seed])) for key in by_seed[0]}
        metric = PRIMARY[self.data.task.kind]
        known = {"seed_std": spread([m[metric] for m in by_seed]), **known}
        place, ends = (self.name, self.reader, layer), [means[metric]] * 3
        return Row(*place, *ends, means, **known)
