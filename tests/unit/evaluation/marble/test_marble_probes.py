"""Oracles of the probes: labels as features, shuffled labels, logistic regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from muq_plugins.data.datasets.tagged import Labelled
from muq_plugins.errors import UserError
from muq_plugins.evaluation.intervals import interval, mean_draws
from muq_plugins.evaluation.marble.protocols import (
    ALL_LAYERS,
    CORRECTED,
    PROTOCOLS,
    V1,
    V2,
    find_protocol,
)
from muq_plugins.evaluation.marble.reading import ClipReading, clip_part, constant
from muq_plugins.evaluation.marble.task import MUQ, PAPER, Opened
from muq_plugins.evaluation.marble.tasks import TASKS, find_task
from muq_plugins.evaluation.probing.clips import Clip
from muq_plugins.evaluation.probing.store import Stored

GENRE = TASKS["gtzan_genre"]


def opened(task, targets, classes, clips_each=1):
    """Recordings without files: a third for each part."""
    parts = np.resize(["train", "train", "valid", "test"], len(targets))
    recordings = [
        Clip(f"{i}.wav", "", 1.0, part, {"artist": str(i // 4)})
        for i, part in enumerate(parts)
    ]
    labelled = Labelled("made up", None, [], classes)
    whose = np.repeat(np.arange(len(targets)), clips_each)
    return Opened(task, recordings, np.array(targets), labelled, []), whose


def read(task, values, targets, classes, protocol=CORRECTED, clips_each=1, lrs=(5e-3,)):
    """What is read off features (clips, layers, size), by layer."""
    found, whose = opened(task, targets, classes, clips_each)
    layers = list(values.astype(np.float16).swapaxes(0, 1))
    stored = Stored(layers, np.arange(len(values)), "key")
    plan = protocol.plan(task)._replace(lrs=lrs)
    of_part = np.array([one.part for one in found.recordings])
    parts = {
        part: clip_part(found, stored, whose, np.flatnonzero(of_part == part), plan)
        for part in ("train", "valid", "test")
    }
    reading = ClipReading(task, protocol, plan, "made up", parts, classes, [0])
    reads = protocol.reads(plan.recipe, values.shape[1])
    return {one.layer: reading._read(one) for one in reads}, parts


def test_a_feature_that_is_the_label_gives_all_and_a_shuffled_one_chance():
    rng = np.random.default_rng(0)
    targets, classes = rng.permutation(np.arange(240) % 4), list("abcd")
    told = np.eye(4)[targets]
    noise = rng.normal(size=(240, 4))
    rows, parts = read(GENRE, np.stack([told, noise], 1), targets, classes)
    assert rows[0][0].value == 1.0 and rows[0][0].validation == 1.0
    assert rows["mixture"][0].value == 1.0
    assert rows["mixture"][0].weights[0] > rows["mixture"][0].weights[1]
    majority = np.bincount(parts["train"].truth).argmax()
    share = np.mean(parts["test"].truth == majority)
    assert constant(GENRE, parts["train"].truth, parts["test"].truth) == share
    shuffled = rng.permutation(targets)
    rows, parts = read(GENRE, told[:, None], shuffled, classes)
    row, scores = rows[None]
    hits = scores[0] == parts["test"].truth
    _, low, high = interval(hits.mean(), mean_draws(hits, parts["test"].groups))
    assert low <= 0.25 <= high


@pytest.mark.parametrize("protocol", [CORRECTED, V1])
def test_the_head_agrees_with_logistic_regression(protocol):
    """On the same features, within the interval."""
    rng = np.random.default_rng(1)
    targets, classes = np.arange(600) % 3, list("abc")
    values = rng.normal(size=(600, 1, 8)) + 1.2 * np.eye(3, 8)[targets][:, None]
    rows, parts = read(GENRE, values, targets, classes, protocol)
    _, scores = rows[None]
    train, test = parts["train"], parts["test"]
    x = [part.x[slice(None)][:, 0].numpy() for part in (train, test)]
    theirs = LogisticRegression(max_iter=1000).fit(x[0], train.truth).predict(x[1])
    both = [(found == test.truth).astype(float) for found in (scores[0], theirs)]
    difference = both[0] - both[1]
    draws = mean_draws(difference, test.groups)
    _, low, high = interval(difference.mean(), draws)
    assert low <= 0 <= high and both[0].mean() > 0.6


def test_clips_of_a_recording_vote_and_under_v1_some_do_not():
    """One clip in two tells nothing: the mean over a recording still does."""
    targets, classes = np.arange(120) % 2, ["f1", "m1"]
    values = np.zeros((240, 1, 2))
    values[::2, 0] = 3 * np.eye(2)[targets]
    rows, parts = read(GENRE, values, targets, classes, clips_each=2)
    assert len(parts["test"].truth) == 30 and rows[None][0].value == 1.0
    singer = TASKS["vocalset_singer"]
    rows, parts = read(singer, values, targets, classes, V1, clips_each=2)
    assert len(parts["test"].truth) == 60 and rows[None][0].value < 0.9


def test_a_last_batch_of_one_clip_is_learned_from_too():
    targets = np.arange(129) % 2  # of which 65 are trained on, 64 at a time
    values = np.repeat(np.eye(2)[targets][:, None], 2, axis=1)
    rows, parts = read(GENRE, values, targets, ["a", "b"])
    assert len(parts["train"].truth) % 64 == 1
    assert rows[0][0].value == rows["mixture"][0].value == 1.0


def test_numbers_and_tags_are_read_too():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(400, 1, 4))
    rows, _ = read(TASKS["emo"], values, values[:, 0, :2], ["arousal", "valence"])
    row, scores = rows[None]
    assert row.value > 0.9 and scores.shape == (1, 100, 2)
    assert {"r2", "r2_arousal", "r2_valence"} == set(row.metrics)
    tags = (values[:, 0, :3] > 0.5).astype(float)
    rows, parts = read(TASKS["mtg_mood"], values, tags, list("abc"))
    assert rows[None][0].value > 0.95 and rows[None][0].metrics["roc_auc"] > 0.95
    share = constant(TASKS["mtg_mood"], parts["train"].truth, parts["test"].truth)
    assert share == pytest.approx(parts["test"].truth.mean())


def test_what_v2_tests_is_its_last_epoch():
    """T1: a probe that has overfitted is tested as it is, not as it was at its best."""
    rng = np.random.default_rng(3)
    targets, classes = np.arange(200) % 2, ["a", "b"]
    values = rng.normal(size=(200, 2, 64)) + 0.6 * np.eye(2, 64)[targets][:, None]
    v1, _ = read(GENRE, values, targets, classes, V1)
    v2, _ = read(GENRE, values, targets, classes, V2)
    assert list(v2) == [1]  # 6 of an encoder of twelve layers
    best = max(row.validation for row, _ in v1.values())
    assert v2[1][0].validation < best
    rows, _ = read(TASKS["giantsteps_key"], values, targets, classes, V2)
    assert list(rows) == [ALL_LAYERS]


def test_the_learning_rate_falls_when_validation_stands_still(monkeypatch):
    """As MARBLE has it: a score that does not rise is none, nor is one that falls."""
    made, plain = [], torch.optim.lr_scheduler.ReduceLROnPlateau

    def keep(*args, **options):
        made.append(plain(*args, **options))
        return made[-1]

    monkeypatch.setattr(torch.optim.lr_scheduler, "ReduceLROnPlateau", keep)
    read(GENRE, np.zeros((40, 1, 2)), np.zeros(40, int), ["a", "b"], V1)
    # After 7 epochs without a better score, and again, of the 20 that stop it.
    assert made[0].optimizer.param_groups[0]["lr"] == 5e-3 / 4


def test_protocols_name_what_they_do():
    notes = " ".join(V2.plan(GENRE).notes)
    assert all(trap in notes for trap in ("(T1)", "(T9)", "probabilities"))
    assert V2.plan(GENRE).cutting == (30.2, 1, 0.8)
    assert (
        V1.plan(GENRE).cutting.padded is CORRECTED.plan(GENRE).cutting.padded is False
    )
    # Where v1 updates by recordings of several clips, which ours does not.
    for name in ("emo", "mtg_genre", "giantsteps_key"):
        assert "64 recordings" in V1.not_comparable(TASKS[name], PAPER)
    assert "(T6)" in " ".join(V1.plan(GENRE).notes)
    assert [r.used for r in V1.reads(GENRE.v1, 4)][-1] == [1, 2, 3]
    assert [r.used for r in CORRECTED.reads(GENRE.v1, 4)][-1] == [0, 1, 2, 3]
    assert V1.plan(GENRE).lrs == (5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2)
    recipe = V1.plan(TASKS["vocalset_singer"]).recipe
    assert recipe.clip_seconds * 44100 == 132_000  # T16
    assert "voice detector" in " ".join(V1.plan(TASKS["vocalset_singer"]).notes)
    assert V1.not_comparable(GENRE, PAPER) is None
    assert V1.not_comparable(GENRE, MUQ) and CORRECTED.not_comparable(GENRE, PAPER)
    assert V1.not_comparable(TASKS["vocalset_singer"], PAPER)
    with pytest.raises(UserError, match="nsynth_pitch is no task of v2_as_shipped"):
        V2.plan(TASKS["nsynth_pitch"])
    with pytest.raises(UserError, match="nearest is 'v1_constrained'"):
        find_protocol("v1")
    with pytest.raises(UserError, match="nearest is 'gtzan_genre'"):
        find_task("gtzan_genres")
    with pytest.raises(UserError, match="nearest is 'abx_xab'"):
        find_task("abx_xaby")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_plan_under_some_protocol(name):
    task, planned = TASKS[name], []
    for protocol in PROTOCOLS.values():
        try:
            planned.append(protocol.plan(task))
        except UserError:
            assert {V1.name: task.v1, V2.name: task.v2}[protocol.name] is None
    assert len(planned) == 1 + (task.v1 is not None) + (task.v2 is not None)
    assert all(torch.tensor(plan.lrs).gt(0).all() for plan in planned)
