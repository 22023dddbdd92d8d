"""Do two segments that an encoder finds alike sound alike to listeners?

Of two segments the one is chosen whose vector, the mean over its frames, has the larger
cosine with that of a third. What is compared with is the majority of the listeners:
single answers differ so much that nothing can agree with more than four in five.
Nothing is trained, so there is no part by which a layer could be chosen: the last one
stands in tables, and a figure shows them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import accuracy_score

from muq_plugins.data.datasets import inst_sim_abx
from muq_plugins.data.datasets.inst_sim_abx import (
    ASPECTS,
    EXPERIMENTS,
    SOUNDS,
    Triplet,
    song_of,
)
from muq_plugins.data.datasets.tagged import Sheet
from muq_plugins.errors import UserError
from muq_plugins.evaluation.kept import digest
from muq_plugins.evaluation.probing.clips import Clip, ProbeError
from muq_plugins.evaluation.probing.features import Extractor
from muq_plugins.evaluation.probing.results import (
    HIDDEN,
    Found,
    Row,
    TaskResult,
    mean_of_initialisations,
    resampled,
)
from muq_plugins.evaluation.probing.store import (
    Cutting,
    Stored,
    about_encoders,
    features_of_all,
)

PROTOCOL = "majority"
WORDS = (
    "the larger cosine of two means over frames against the majority of the listeners; "
    "the last hidden state, since nothing is trained"
)
# One clip a segment, however long it is.
WHOLE = 600.0


@dataclass(frozen=True)
class SimilarityTask:
    """One experiment of Inst-Sim-ABX; each aspect is a result."""

    name: str
    experiment: str
    sheet: Sheet = inst_sim_abx.SHEET


SIMILARITY_TASKS = {
    task.name: task
    for task in (SimilarityTask(f"abx_{name.lower()}", name) for name in EXPERIMENTS)
}


class Compared(NamedTuple):
    """The triplets whose segments are there."""

    task: SimilarityTask
    recordings: list[Clip]
    triplets: list[Triplet]
    left_out: int  # triplets


def open_similarity(
    task: SimilarityTask, folder: str | Path, leave_out_missing: bool = False
) -> Compared:
    """Finds every segment, or says what is missing and where it is from."""
    try:
        triplets = inst_sim_abx.read_triplets(folder, task.experiment)
        labelled = inst_sim_abx.segments_of(folder, triplets)
        found, _ = labelled.found(leave_out_missing)
        if not found:
            raise UserError("No segment is there.")
    except UserError as error:
        raise task.sheet.lacks(folder, str(error)) from error
    recordings = [
        Clip(clip.path, str(path), info.duration, None) for clip, path, info in found
    ]
    here = {clip.name for clip in recordings}
    kept = [one for one in triplets if here.issuperset((one.x, *one.pair))]
    return Compared(task, recordings, kept, len(triplets) - len(kept))


def similarity_results(
    opened: Compared,
    encoders: Mapping[str, Sequence[Extractor]],
    features_folder: str | Path,
    batch_size: int = 8,
    progress: bool = False,
) -> list[TaskResult]:
    """What every encoder says of the triplets, for each aspect."""
    task = opened.task
    where = features_folder, batch_size, task.name, progress
    read = features_of_all(encoders, opened.recordings, Cutting(WHOLE), *where)
    chosen = {
        name: [_choices(opened, *one) for one in several]
        for name, several in read.items()
    }
    every = [choices for several in chosen.values() for choices in several]
    usable = np.all([(choices >= 0).all(axis=0) for choices in every], axis=0)
    about = {
        "protocol": PROTOCOL,
        "protocol_words": WORDS,
        "data": f"Inst-Sim-ABX {task.experiment}",
        "licence": task.sheet.licence,
        **about_encoders(encoders, read),
        "published": [],
    }
    return [_result(opened, aspect, chosen, usable, about) for aspect in ASPECTS]


def _choices(opened: Compared, stored: Stored, whose: np.ndarray) -> np.ndarray:
    """What each layer chooses: 0 or 1 (layers, triplets); -1 without a segment."""
    names = [opened.recordings[at].name for at in whose]
    row_of = {name: row for row, name in enumerate(names)}
    vectors = stored[slice(None)].numpy()
    vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
    found = np.full((stored.shape[0], len(opened.triplets)), -1)
    for place, triplet in enumerate(opened.triplets):
        rows = [row_of.get(path) for path in (triplet.x, *triplet.pair)]
        if None not in rows:
            x, first, second = vectors[rows]
            found[:, place] = (x * second).sum(-1) > (x * first).sum(-1)
    return found


def _result(opened: Compared, aspect: str, chosen, usable, about: dict) -> TaskResult:
    """One aspect, on the triplets that have a majority."""
    majority = [one.majority(aspect) for one in opened.triplets]
    kept = [
        place
        for place, wanted in enumerate(majority)
        if wanted is not None and usable[place]
    ]
    if not kept:
        raise ProbeError(f"{opened.task.name}: no triplet has a majority ({aspect}).")
    triplets = [opened.triplets[place] for place in kept]
    truth = np.array([majority[place] for place in kept])
    rows, predictions = [], {}
    for name, several in chosen.items():
        found = mean_of_initialisations(
            [_rows(name, choices[:, kept], truth, triplets) for choices in several]
        )
        for row, scores in found:
            rows.append(replace(row, chosen=row is found[-1][0]))
            predictions[row.key] = scores
    task, groups = opened.task, [song_of(one.x) for one in triplets]
    seconds = max(clip.duration for clip in opened.recordings)
    result = TaskResult(
        label=f"{task.name}_{aspect}",
        kind="similarity",
        group="song",
        level=None,
        metric="accuracy",
        chance=0.5,
        classes=["first", "second"],
        clips={"train": 0, "valid": 0, "test": len(triplets)},
        test_groups=len(set(groups)),
        rows=rows,
        notes=_notes(opened, aspect, triplets, truth, len(majority)),
        about={
            **about,
            "title": f"{task.experiment}, {aspect}",
            "split": digest(
                [[*one[:3], int(truth[n])] for n, one in enumerate(triplets)]
            ),
            "cutting": {"seconds": seconds},
            "seeds": [],
            "learning_rates": [],
        },
        predictions={"targets": truth, "groups": np.array(groups), **predictions},
    )
    ours, *others = chosen
    return resampled(result, ours, others)


def _rows(name: str, choices: np.ndarray, truth, triplets: list[Triplet]) -> Found:
    """A row for every layer."""
    found = []
    for layer, said in enumerate(choices):
        values = by_sound(triplets, lambda it, said=said: said[it] == truth[it])
        metrics = {"accuracy": float(accuracy_score(truth, said)), **values}
        place = layer if len(choices) > 1 else None
        row = Row(name, HIDDEN, place, *[metrics["accuracy"]] * 3, metrics)
        found.append((row, said[None]))
    return found


def by_sound(triplets: list[Triplet], hit: Callable[[int], float]) -> dict[str, float]:
    """The share of triplets of each sound for which something holds, by place."""
    places: dict[str, list[int]] = {}
    for place, triplet in enumerate(triplets):
        places.setdefault(triplet.sound, []).append(place)
    return {
        sound: float(np.mean([hit(place) for place in places[sound]]))
        for sound in SOUNDS
        if sound in places
    }


def same_song(triplets: list[Triplet], truth: Sequence[int]) -> dict[str, float]:
    """How often the segment of the same song is the one that most have chosen."""
    known = [place for place, one in enumerate(triplets) if one.same_song is not None]
    some, wanted = [triplets[at] for at in known], [truth[at] for at in known]
    return by_sound(some, lambda at: some[at].same_song == wanted[at])


def one_listener(triplets: list[Triplet], aspect: str) -> dict[str, float]:
    """How often a listener chooses what most of the others have chosen."""
    asked, agreed = [], []
    for one in triplets:
        for place, vote in enumerate(one.answers[aspect]):
            others = one.majority(aspect, without=place)
            if others is not None:
                asked.append(one)
                agreed.append(vote == others)
    return by_sound(asked, lambda at: agreed[at])


def _notes(opened: Compared, aspect: str, triplets, truth, every: int) -> list[str]:
    notes = ["Chance is 50.0%."]
    if baseline := same_song(triplets, truth):
        notes.append(f"The segment of the same song, always: {_listed(baseline)}.")
    listener = one_listener(opened.triplets, aspect)
    notes.append(f"A listener against the others: {_listed(listener)}.")
    if opened.task.experiment == "XYC":
        notes.append("The same song explains nearly all of it: XAB tells more.")
    different = len({(one.x, one.pair) for one in triplets})
    notes.append(
        f"{len(triplets)} triplets have a majority, {every - len(triplets)} have none "
        f"or could not be heard, {opened.left_out} lack a segment. {different} are "
        "different: two surveys have asked some of them. The interval is over songs."
    )
    return notes


def _listed(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{sound} {share:.1%}" for sound, share in shares.items())
