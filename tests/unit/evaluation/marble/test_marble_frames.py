"""Tasks of frames: scores of mir_eval, labels as features, and what protocols do."""

import json
from dataclasses import replace
from pathlib import Path

import mir_eval
import numpy as np
import pytest
import torch

from muq_plugins.data.datasets.annotations import (
    BEATS,
    CHORDS,
    SECTIONS,
    Beats,
    Intervals,
    read_beats,
    read_intervals,
)
from muq_plugins.data.datasets.chords import TRIADS
from muq_plugins.data.datasets.tagged import Labelled
from muq_plugins.errors import UserError
from muq_plugins.evaluation.marble import chords, sections
from muq_plugins.evaluation.marble.beats import (
    BeatAnswer,
    BeatTruth,
    DecodedBeats,
    FirstBeats,
    PickedBeats,
    tempo_hits,
    tempo_of,
)
from muq_plugins.evaluation.marble.chords import Chords, ShippedChords, chord_class
from muq_plugins.evaluation.marble.frames import FrameReading, frame_part
from muq_plugins.evaluation.marble.kinds import peaks, weighted_mean, widened
from muq_plugins.evaluation.marble.protocols import CORRECTED, V1, V2
from muq_plugins.evaluation.marble.run import _left_out
from muq_plugins.evaluation.marble.sections import Sections
from muq_plugins.evaluation.marble.task import MUQ, PAPER, Opened
from muq_plugins.evaluation.marble.tasks import TASKS
from muq_plugins.evaluation.probing.clips import Clip, ProbeError
from muq_plugins.evaluation.probing.results import LINEAR, Row, TaskResult
from muq_plugins.evaluation.probing.store import Framing, Stored

ORACLES = Path(__file__).parents[3] / "data" / "mir_eval"
RATE = 25.0
BEAT, CHORD = TASKS["gtzan_beat"], TASKS["harte_chords"]
SONG = TASKS["harmonix_structure"]
SECTION_NAMES = ["intro", "verse", "chorus"]


def oracle(name):
    return json.loads((ORACLES / f"{name}.json").read_text())


def intervals(name):
    return read_intervals(ORACLES / f"{name}.lab", "mir_eval")


def test_beats_are_scored_as_mir_eval_publishes():
    truth, answer = (
        read_beats(ORACLES / f"beat_{one}08.txt", "mir_eval") for one in ("ref", "est")
    )
    answer = BeatAnswer(answer.times, answer.times[::4])
    scored = PickedBeats().scores(BeatTruth(truth, 120.0), answer, 1000, RATE)
    expected = oracle("beat_output08")
    assert scored["beat_f"] == (pytest.approx(expected["F-measure"]), 1.0)
    assert scored["beat_cmlt"][0] == pytest.approx(
        expected["Correct Metric Level Total"]
    )
    assert scored["beat_amlt"][0] == pytest.approx(expected["Any Metric Level Total"])
    assert scored["downbeat_f"][1] == 0.0  # bars are not known


@pytest.mark.parametrize("kind", [PickedBeats(), DecodedBeats()])
def test_downbeats_do_not_count_where_only_some_are_known(kind):
    truth = BeatTruth(Beats.of([[6.0, 0], [7.0, 1], [8.0, 2]], "one"), 60.0)
    answer = BeatAnswer(truth.beats.times, truth.beats.downbeats)
    assert kind.scores(truth, answer, 250, RATE)["downbeat_f"] == (1.0, 0.0)


def test_chords_are_scored_as_mir_eval_publishes():
    known, said = intervals("chord_ref01"), intervals("chord_est01")
    end = known.times[-1, 1]
    rows = [*said.rows(), [said.times[-1, 1], end, "N"]]
    scored = chords.compared(known, Intervals.of(rows, "said"))
    for name, value in oracle("chord_output01").items():
        if name in chords.MEASURES:
            assert scored[f"chord_{name}"][0] == pytest.approx(value), name
    # What does not count has no weight.
    counts = [label in ("N", "Bb") for label in known.labels]
    seconds = np.diff(known.times[counts]).sum()
    assert scored["chord_majmin_total"][1] == pytest.approx(seconds)
    with_others = Intervals(np.array([[0.0, 1.0], [1.0, 4.0]]), ["C:maj", "C:sus4"])
    said = Intervals(np.array([[0.0, 4.0]]), ["C:maj"])
    assert chords.compared(with_others, said)["chord_majmin_total"] == (1.0, 1.0)


def test_sections_are_scored_as_mir_eval_publishes():
    known = intervals("segment_ref04")
    said = intervals("segment_est04").within(0.0, known.times[-1, 1])
    scored, expected = sections.compared(known, said), oracle("segment_output04")
    assert scored["hit_rate_05_untrimmed"][0] == pytest.approx(
        expected["F-measure@0.5"]
    )
    assert scored["hit_rate_3_untrimmed"][0] == pytest.approx(expected["F-measure@3.0"])
    assert scored["section_pairwise"][0] == pytest.approx(
        expected["Pairwise F-measure"]
    )
    assert scored["section_v"][0] == pytest.approx(expected["V-measure"])
    # T22: one stretch from start to end finds the edges, which is worth nothing.
    whole = Intervals(np.array([[0.0, 10.0]]), ["verse"])
    two = Intervals(np.array([[0.0, 5.0], [5.0, 10.0]]), ["intro", "verse"])
    scored = sections.compared(two, whole)
    assert scored["hit_rate_3"] == (0.0, 1.0)
    assert scored["hit_rate_3_untrimmed"][0] == pytest.approx(0.8)
    assert sections.compared(whole, two)["hit_rate_3"] == (0.0, 0.0)


def test_a_gap_between_sections_is_of_what_is_before_it():
    truth = Intervals(np.array([[0.5, 1.0], [2.0, 3.0]]), ["verse", "chorus"])
    cut, _ = sections._both(truth, truth, 4.0)
    assert cut.rows() == [[0.0, 2.0, "verse"], [2.0, 4.0, "chorus"]]


def test_clips_count_in_draws_what_they_say():
    row = Row("r", LINEAR, 0, 0.9, 0.9, 0.9, {})
    known = {
        "groups": np.array(["p", "q"]),
        row.key: np.array([[[1.0, 9.0], [0.0, 1.0]]]),
    }
    about = "x", "frames", None, None, "beat_f", 0.0, [], {}, 2, [row]
    result = TaskResult(*about, predictions=known)
    assert set(result.draws(row).round(6)) == {0.0, 0.9, 1.0}


def test_a_tempo_is_right_within_four_percent_and_its_multiples_for_acc2():
    assert tempo_hits(124.7, 120.0) == (True, True)
    assert tempo_hits(125.0, 120.0) == (False, False)
    for tempo in (60.0, 240.0, 40.0, 360.0):
        assert tempo_hits(tempo, 120.0) == (False, True)
    # Beats in whole frames, one of them missed.
    beats = np.floor(np.delete(np.arange(0.3, 15, 0.5), 7) * RATE) / RATE
    assert tempo_of(beats) == pytest.approx(120, rel=5e-3)
    assert np.isnan(tempo_of(beats[:1]))
    assert np.isnan(tempo_of(np.array([0.0, 0.3, 2.0])))  # steps that tell nothing


def test_chords_become_what_mir_eval_takes_for_the_same():
    same = {"C": "C:maj", "C#:7/3": "Db:maj", "A:min7": "A:min", "N": "N"}
    assert {label: TRIADS[chord_class(label)] for label in same} == same
    assert {chord_class(label) for label in ("X", "C:sus4", "B:dim7")} == {-1}
    with pytest.raises(UserError, match="song 3: 'H:maj' is no chord"):
        Chords().truth({CHORDS: [[0, 1, "H:maj"]]}, "song 3")


def test_peaks_are_the_highest_of_their_surroundings():
    curve = np.array([0.9, 0.1, 0.5, 0.5, 0.2, 0.1, 0.3, 0.6])
    assert peaks(curve, 0.4, 1).tolist() == [0, 2, 7]
    assert peaks(curve, 0.55, 2).tolist() == [0, 7]
    expected = [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]
    assert widened(np.array([0.085, 0.13]), 6, RATE, [0.5]).tolist() == expected


def made_up(task, labels, classes, seconds):
    """Recordings without files: of four, two train, one validates, one tests."""
    parts = np.resize(["train", "train", "valid", "test"], len(labels))
    recordings = [
        Clip(f"{i}.wav", "", seconds, part, {task.frames.key: rows})
        for i, (part, rows) in enumerate(zip(parts, labels, strict=True))
    ]
    truths = [task.frames.truth(one.labels, one.name) for one in recordings]
    return Opened(task, recordings, truths, Labelled("m", None, [], classes), [])


def read(opened, values, protocol=CORRECTED, rate=RATE, lrs=(5e-3,)):
    """What is read off features (frames, layers, size) of each recording, by layer."""
    every = np.concatenate(values).astype(np.float16).swapaxes(0, 1)
    whose = np.repeat(np.arange(len(values)), [len(one) for one in values])
    stored = Stored(list(every), np.arange(len(whose)), "key", rate)
    plan = protocol.plan(opened.task)._replace(lrs=lrs)
    of_part = np.array([one.part for one in opened.recordings])
    parts = {
        part: frame_part(opened, stored, whose, np.flatnonzero(of_part == part), plan)
        for part in ("train", "valid", "test")
    }
    about = "made up", parts, opened.labelled.classes, [0]
    reading = FrameReading(opened.task, protocol, plan, *about)
    assert 0 <= reading.constant() <= 1
    reads = protocol.reads(plan.recipe, every.shape[0])
    return {one.layer: reading._read(one) for one in reads}, reading


def ticks(rng, seconds):
    """Beats at a tempo of their own, in bars of four."""
    step = rng.uniform(0.4, 0.7)
    times = np.arange(rng.uniform(0.1, 0.5), seconds, step)
    return [[time, 1 + at % 4] for at, time in enumerate(times.tolist())]


def song(rng, seconds, names, shortest=4.0):
    """Stretches of random names, no two of one name in a row."""
    rows, begin = [], 0.0
    while begin < seconds:
        end = min(seconds, begin + shortest + rng.uniform(0, 3))
        others = [name for name in names if not rows or name != rows[-1][2]]
        rows.append([begin, end, str(rng.choice(others))])
        begin = end
    return rows


def told(opened, rate):
    """Features that say what they should be read as."""
    kind = replace(
        opened.task.frames,
        classes=tuple(opened.labelled.classes),
        metric=opened.task.metric,
    )
    values = []
    for truth, one in zip(opened.targets, opened.recordings, strict=True):
        count = int(one.duration * rate)
        targets = kind.targets(truth, count, rate).numpy()
        if kind.key == BEATS:
            values.append(targets)
        elif kind.key == CHORDS:
            values.append(np.eye(len(TRIADS) + 1)[targets.astype(int)])
        else:
            names = np.eye(len(kind.classes) + 1)[targets[:, 0].astype(int)]
            values.append(np.concatenate([names, targets[:, 1:]], axis=1))
    return [one[:, None] for one in values]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_features_that_are_the_beats_give_all_and_shuffled_ones_chance(rng):
    labels = [ticks(rng, 12.0) for _ in range(12)]
    opened = made_up(BEAT, labels, ["beat", "downbeat"], 12.0)
    rows, reading = read(opened, told(opened, RATE))
    row, scores = rows[None]
    assert row.value == 1.0 and row.validation == 1.0
    assert row.metrics["tempo_acc1"] == row.metrics["beat_amlt"] == 1.0
    assert scores.tolist() == [[[1.0, 1.0]] * 3]
    bars = opened._replace(task=TASKS["gtzan_downbeat"])
    assert read(bars, told(opened, RATE))[0][None][0].value == 1.0
    assert reading.constant() < 0.6  # the median tempo, in no phase
    shuffled = [rng.permutation(one) for one in told(opened, RATE)]
    row, _ = read(opened, shuffled)[0][None]
    assert row.value < 0.6


def test_features_that_are_the_chords_give_all_and_shuffled_ones_chance(rng):
    names = ["C:maj", "A:min7", "F:7", "N"]
    labels = [song(rng, 20.0, names, 1.0) for _ in range(12)]
    opened = made_up(CHORD, labels, TRIADS, 20.0)
    rows, reading = read(opened, told(opened, RATE))
    row, _ = rows[None]
    # But for the frames in which a chord changes.
    assert row.value > 0.98 and row.metrics["chord_root"] > 0.98
    assert row.metrics["frame_accuracy"] == 1.0
    # No answer has a seventh.
    assert row.metrics["chord_sevenths"] < 0.8
    targets = np.concatenate(told(opened, RATE))
    shuffled = rng.permutation(targets).reshape(12, -1, *targets.shape[1:])
    row, _ = read(opened, list(shuffled))[0][None]
    assert abs(row.value - reading.constant()) < 0.15


def test_features_that_are_the_sections_give_all_and_shuffled_ones_chance(rng):
    labels = [song(rng, 40.0, SECTION_NAMES) for _ in range(12)]
    opened = made_up(SONG, labels, SECTION_NAMES, 40.0)
    rows, reading = read(opened, told(opened, 5.0), rate=5.0)
    row, _ = rows[None]
    assert row.value == 1.0
    by_hits = opened._replace(task=replace(SONG, metric="hit_rate_05"))
    row, _ = read(by_hits, told(opened, 5.0), rate=5.0)[0][None]
    assert row.value == row.metrics["hit_rate_3"] == 1.0
    assert reading.constant() < 0.6
    shuffled = [rng.permutation(one) for one in told(opened, 5.0)]
    row, _ = read(opened, shuffled, rate=5.0)[0][None]
    assert row.value < 0.7


def test_beats_within_the_first_seconds_are_not_scored_and_bars_may_be_unknown(rng):
    opened = made_up(BEAT, [ticks(rng, 4.0)] * 4, ["beat", "downbeat"], 4.0)
    with pytest.raises(ProbeError, match="nothing to score beat_f on in the valid"):
        read(opened, told(opened, RATE))
    rows = [[time, 0] for time, _ in ticks(rng, 12.0)]
    opened = made_up(BEAT, [rows] * 4, ["beat", "downbeat"], 12.0)
    found, reading = read(opened, told(opened, RATE))
    assert (reading.parts["train"].targets[:, 1] == -1).all()
    row, _ = found[None]
    assert row.value == 1.0 and "downbeat_f" not in row.metrics


def test_annotations_of_longer_recordings_are_said(rng):
    everything = [
        (BEAT, [[1.0, 1], [9.0, 2]]),
        (CHORD, [[0.0, 9.0, "C"]]),
        (SONG, [[0.0, 9.0, "intro"]]),
    ]
    for task, rows in everything:
        opened = made_up(task, [rows, rows, [], rows], [], 5.0)
        notes = " ".join(_left_out(opened, {0, 1, 2, 3}))
        assert "Of 3 recordings the annotation goes on for more than 2 s" in notes
        opened = made_up(task, [rows] * 4, [], 8.0)
        assert "goes on" not in " ".join(_left_out(opened, {0, 1, 2, 3}))


def test_beats_of_marble_are_decoded_by_a_network_and_counted_together():
    """T3, T4, T14: by hand for two clips."""
    kind = DecodedBeats()
    truth = BeatTruth(Beats.of([[0.5, 1], [1.0, 2], [1.51, 3]], "one"), 120.0)
    answer = BeatAnswer(np.array([0.57, 1.2]), np.array([]))
    scored = kind.scores(truth, answer, 50, RATE)
    # 0.5 s is rounded to 0.48 s, as half a frame goes to the even one: 0.08 s too far.
    assert scored["beat_f"] == (0.0, 5.0)
    answer = BeatAnswer(np.array([0.53, 1.2]), np.array([0.5]))
    scored = kind.scores(truth, answer, 50, RATE)
    assert scored["beat_f"] == (pytest.approx(0.4), 5.0)
    assert scored["downbeat_f"] == (1.0, 2.0)
    nothing = BeatTruth(Beats.of([], "two"), float("nan"))
    other = kind.scores(nothing, BeatAnswer(np.array([1.0]), np.array([])), 50, RATE)
    pooled = weighted_mean([scored["beat_f"], other["beat_f"]])
    assert pooled == pytest.approx(2 * 1 / (3 + 2 + 0 + 1))
    # A steady pulse of 0.52 s, weak and with a hole, is found whole.
    curve = np.full((250, 2), -4.0)
    curve[5::13] = 1.0
    curve[5 + 13 * 6] = -4.0
    found = kind.answer(curve.astype(np.float32), RATE)
    assert found.beats == pytest.approx(np.arange(5, 250, 13) / RATE)
    assert np.array_equal(found.beats, found.downbeats)
    targets = kind.targets(truth, 50, RATE)[:, 0]
    assert targets[9:15].tolist() == [0.0, 0.25, 0.5, 1.0, 0.5, 0.25]


def test_protocols_of_marble_read_beats_as_it_does(rng):
    labels = [ticks(rng, 20.0) for _ in range(8)]
    opened = made_up(BEAT, labels, ["beat", "downbeat"], 20.0)
    values = [np.repeat(one, 2, axis=1) for one in told(opened, RATE)]
    rows, reading = read(opened, values, V2, lrs=(1e-2,))
    assert list(rows) == ["all layers"]
    assert len(reading.parts["test"].units) == 4  # two clips of 10 s each
    row, scores = rows["all layers"]
    assert scores.shape == (1, 4, 2) and set(row.metrics) == {"beat_f", "downbeat_f"}
    expected = (scores[0, :, 0] * scores[0, :, 1]).sum() / scores[0, :, 1].sum()
    assert row.value == pytest.approx(expected) and row.value > 0.9
    notes = " ".join(V2.plan(BEAT).notes)
    assert all(f"({trap})" in notes for trap in ("T1", "T3", "T4", "T14"))
    assert V2.plan(BEAT).cutting == Framing(10.0, 0.0, None, 0.8)
    assert isinstance(V1.plan(BEAT).frames, FirstBeats)
    recipe = V1.plan(BEAT).recipe
    assert (recipe.patience, recipe.plateau) == (20, (0.5, 6))
    assert "random 10 s" in V1.not_comparable(BEAT, PAPER)
    assert "(T4)" not in " ".join(V1.plan(BEAT).notes)
    assert V1.not_comparable(BEAT, PAPER) and CORRECTED.not_comparable(SONG, MUQ)
    with pytest.raises(UserError, match="gtzan_tempo is no task of v2_as_shipped"):
        V2.plan(TASKS["gtzan_tempo"])
    with pytest.raises(UserError, match="choose the protocol corrected"):
        V1.plan(SONG)


def test_v2_takes_the_chord_before_for_the_truth_where_none_sounds():
    """T5."""
    rows = [[0, 0.08, "N"], [0.08, 0.16, "C"], [0.16, 0.24, "N"], [0.24, 0.32, "X"]]
    truth = Intervals.of([*rows, [0.32, 0.4, "N"]], "song")
    none, major = TRIADS.index("N"), TRIADS.index("C:maj")
    plain, shipped = Chords(classes=tuple(TRIADS)), ShippedChords()
    expected = [none, none, major, major, none, none, -1, -1, none, none]
    assert plain.targets(truth, 10, RATE).tolist() == expected
    expected = [none, none, major, major, major, major, -1, -1, -1, -1]
    assert shipped.targets(truth, 10, RATE).tolist() == expected
    answer = np.full(10, major)
    assert shipped.scores(truth, answer, 10, RATE)["frame_accuracy"] == (4 / 6, 6.0)
    plan = V2.plan(TASKS["chords1217"])
    assert plan.metric == "frame_accuracy" and "(T5)" in " ".join(plan.notes)


def test_what_is_needed_is_said_with_the_command_that_installs_it(monkeypatch):
    from muq_plugins import errors

    monkeypatch.setattr(errors.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mir_eval: run `pip install 'muq-plugins\[ma"):
        CORRECTED.plan(CHORD)
    with pytest.raises(UserError, match="needs mir_eval and madmom_infer"):
        V2.plan(BEAT)
    CORRECTED.plan(TASKS["gtzan_genre"])


def test_frames_of_no_known_class_do_not_train_a_head():
    outputs = torch.zeros(3, 25, requires_grad=True)
    loss = Chords().loss(outputs, torch.full((3,), -1))
    loss.backward()
    assert loss == 0 and not outputs.grad.any()
    kind = Sections(classes=("a", "b"))
    targets = torch.tensor([[-1.0, 1.0], [-1.0, 0.0]])
    assert torch.isfinite(kind.loss(torch.zeros(2, 3), targets))
    assert SECTIONS == kind.key and mir_eval.__version__
