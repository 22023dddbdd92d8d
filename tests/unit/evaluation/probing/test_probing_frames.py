"""Tasks of frames: what sounds when, read off single frames."""

from dataclasses import replace
from functools import partial

import numpy as np
import pretty_midi
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score

from muq_plugins.data.audio import AudioError
from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.errors import UserError
from muq_plugins.evaluation.probing import clips as clips_module
from muq_plugins.evaluation.probing import frames as module
from muq_plugins.evaluation.probing.clips import (
    Clip,
    ProbeError,
    check_labels,
    csv_clips,
)
from muq_plugins.evaluation.probing.features import (
    FeatureSettings,
    HiddenStates,
    LogMelFrames,
    extractors_of,
)
from muq_plugins.evaluation.probing.frame_labels import played_notes, sounding
from muq_plugins.evaluation.probing.frames import (
    MOST,
    TIMES,
    fit_ridge,
    frame_data,
    read_frames,
)
from muq_plugins.evaluation.probing.page import probing_report
from muq_plugins.evaluation.probing.readers import ReaderSettings
from muq_plugins.evaluation.probing.results import (
    LOG_MEL,
    TRAINED,
    UNTRAINED,
    load_predictions,
    load_results,
)
from muq_plugins.evaluation.probing.run import probe
from muq_plugins.evaluation.probing.tasks import ProbeTask, make_tasks
from muq_plugins.evaluation.scores import clip_precision, macro_precision
from muq_plugins.lobes import MuQEncoder
from tests.unit.evaluation.probed import write_midi, write_songs

TASK = ProbeTask("notes", "frames", group="piece")
SECONDS = 2.0
LINEAR_ALONE = ReaderSettings(["linear"], mixture=False)


def encoder(seed=0):
    torch.manual_seed(seed)
    return MuQEncoder(16, num_layers=1, num_heads=2, ffn_width=16, conv_channels=2)


def test_pitches_sound_from_their_start_to_their_end(tmp_path):
    notes = [(0, 60, 0.0, 1.0), (0, 64, 0.5, 0.7), (40, 60, 1.5, 2.0)]
    path = write_midi(tmp_path / "a.mid", notes, drums=[(35, 0.0, 2.0)])
    found = sounding(played_notes(path), np.array([0.0, 0.45, 0.6, 1.2, 1.7]))
    assert found.shape == (5, 128)
    assert [np.flatnonzero(row).tolist() for row in found] == [
        *([60], [60], [60, 64], [], [60])
    ]
    (tmp_path / "b.mid").write_bytes(b"no notes")
    with pytest.raises(UserError, match="b.mid cannot be read as MIDI .*replace it"):
        played_notes(str(tmp_path / "b.mid"))


def clips_of(manifests):
    return [
        Clip(name, entry["wav"], entry["duration"], part, entry)
        for part, manifest in manifests.items()
        for name, entry in manifest.items()
    ]


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Clips of tones with their notes, a piece each."""
    folder = tmp_path_factory.mktemp("songs")
    return clips_of(
        {
            "train": write_songs(folder, range(10)),
            "valid": write_songs(folder, range(10, 11)),
            "test": write_songs(folder, range(11, 18)),
        }
    )


def test_clips_labels_and_what_chance_is(songs):
    data = frame_data(TASK, songs, SECONDS)
    assert {part: len(clips) for part, clips in data.clips.items()} == {
        "train": 10,
        "test": 7,
    }
    clip, truth = data.clips["test"][0], data.targets["test"][0]
    assert truth.shape == (SECONDS * TIMES, len(data.classes))
    # The window is the middle of the clip, and frames are in the middle of their time.
    start = (clip.duration - SECONDS) / 2
    times = start + (np.arange(SECONDS * TIMES) + 0.5) / TIMES
    pitches = [pretty_midi.note_name_to_number(name) for name in data.classes]
    expected = sounding(played_notes(clip.labels["midi"]), times)[:, pitches]
    assert np.array_equal(truth, expected) and truth.any()
    frequent = np.concatenate(data.targets["train"]).mean(axis=0)
    each = [
        average_precision_score(y.ravel(), np.tile(frequent, len(y)))
        for y in data.targets["test"]
    ]
    assert data.chance == pytest.approx(np.mean(each))


def test_pitches_of_one_piece_are_left_out_and_said(songs, tmp_path):
    high = write_midi(tmp_path / "high.mid", [(0, 100, 0.0, 9.0), (0, 60, 0.0, 9.0)])
    changed = [
        Clip(*(clip.name, clip.wav, clip.duration, clip.part), {**clip.labels, **new})
        for clip in songs
        for new in [{"midi": high} if clip.name in ("song0", "song11") else {}]
    ]
    data = frame_data(TASK, changed, SECONDS)
    assert "E7" not in data.classes and "C4" in data.classes
    assert "fewer than 2 pieces" in data.notes[-1]


def test_clips_are_taken_evenly_from_different_pieces():
    group_of = {place: str(place // 10) for place in range(100)}
    assert module.evenly(range(100), group_of, 10) == list(range(0, 100, 10))
    found = module.evenly(range(100), group_of, 25)
    counts = np.bincount([place // 10 for place in found])
    assert len(found) == 25 and counts.min() == 2 and counts.max() == 3
    assert module.evenly(range(7), group_of, 25) == list(range(7))
    assert MOST["test"] >= 130


def test_too_little_is_said(songs):
    with pytest.raises(ProbeError, match="No clip has the label 'midi'"):
        frame_data(TASK, [Clip("a", "", 1.0, "train", {"piece": "x"})], SECONDS)
    few = [clip for clip in songs if clip.part == "test" or clip.name == "song0"]
    with pytest.raises(ProbeError, match="'notes' leaves too little to read: 1 piece"):
        frame_data(TASK, few, SECONDS)


def test_parts_that_nobody_has_decided_share_no_piece(songs):
    undecided = [Clip(c.name, c.wav, c.duration, None, c.labels) for c in songs]
    data = frame_data(TASK, undecided, SECONDS)
    assert not set(data.groups["train"]) & set(data.groups["test"])
    assert len(data.clips["test"]) >= 2


def test_frames_are_those_of_their_time(songs):
    settings = FeatureSettings(None, SECONDS, batch_size=3)
    model = encoder().eval()
    read = read_frames(HiddenStates(model), songs[:4], settings, [])
    assert read[0].shape == (SECONDS * TIMES, 2, 16)
    log_mel = LogMelFrames(model)
    (mel, *_) = read_frames(log_mel, songs[:1], settings, [])
    assert mel.shape == (SECONDS * TIMES, 1, 4 * 128)  # the four within a frame
    wav = next(module.window_batches(songs[:1], SECONDS, 1, 24000, 1, []))[1]
    with torch.no_grad():
        states = model(wav).hidden_states
        spectrogram = model.features(wav)[0][0]
    frame = int(1.5 / TIMES * 25)  # of the second time
    np.testing.assert_allclose(read[0][1, 1], states[1][0, frame], atol=1e-4)
    stacked = spectrogram[4 * frame : 4 * frame + 4].flatten()
    np.testing.assert_allclose(mel[1, 0], stacked, atol=1e-5)


def test_the_ridge_is_that_of_scikit_learn_and_finds_what_is_there():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 3))
    x = [rng.normal(size=(20, 6)) * [1, 1, 1, 1, 1, 100] + 5 for _ in range(12)]
    y = [(part - 5) @ weights > 2 for part in x]
    found = fit_ridge(x[:8], y[:8], [str(i // 2) for i in range(8)], x[8:])
    reached = [clip_precision(*pair) for pair in zip(y[8:], found.scores, strict=True)]
    assert min(reached) > 0.7 and found.validation > 0.7
    train, mean, std = (
        np.concatenate(x[:8]),
        np.concatenate(x[:8]).mean(axis=0),
        np.concatenate(x[:8]).std(axis=0),
    )
    ridge = Ridge(alpha=found.penalty * len(train))
    ridge.fit((train - mean) / std, np.concatenate(y[:8]).astype(float))
    expected = ridge.predict((x[8] - mean) / std) - ridge.intercept_
    np.testing.assert_allclose(found.scores[0], expected, atol=1e-8)
    noise = fit_ridge(
        [rng.normal(size=(20, 6)) for _ in range(8)], y[:8], list("aabbccdd"), x[8:]
    )
    assert noise.validation < found.validation - 0.2


def test_precisions_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    truth, scores = rng.random((30, 5)) < 0.3, rng.random((30, 5)).round(1)
    expected = average_precision_score(truth.ravel(), scores.ravel())
    assert clip_precision(truth, scores) == pytest.approx(expected)
    truth[:, 2] = False  # never there: not in the mean
    expected = average_precision_score(truth[:, [0, 1, 3, 4]], scores[:, [0, 1, 3, 4]])
    assert macro_precision(truth, scores) == pytest.approx(expected)


def test_a_probe_of_notes_from_audio_to_report(songs, tmp_path, monkeypatch):
    clips = [clip for clip in songs if clip.part != "valid"]
    settings = FeatureSettings(tmp_path / "features", SECONDS)
    extractors = extractors_of(encoder(), [encoder(1), encoder(2)])
    given = [clips], [TASK], settings, LINEAR_ALONE, [0]
    (result,) = probe(tmp_path, extractors, *given)
    assert result.clips == {"train": 10, "valid": 0, "test": 7}
    assert (result.kind, result.test_groups) == ("frames", 7)
    log_mel, trained = result.row(LOG_MEL, "linear"), result.curve(TRAINED, "linear")
    assert log_mel.value > max(0.7, result.chance + 0.3)
    assert log_mel.low <= log_mel.value <= log_mel.high
    assert [row.layer for row in trained] == [0, 1]
    for row in result.curve(UNTRAINED, "linear"):
        assert row.value == pytest.approx(np.mean(row.initialisations))
        assert len(row.initialisations) == 2
    kept = load_predictions(tmp_path, "notes")
    for row in result.rows:
        assert kept[row.key].shape[1:] == (7,)
        assert row.value == pytest.approx(kept[row.key].mean())
    (gain, _) = result.against(UNTRAINED)
    assert gain.value == pytest.approx(
        trained[0].value - result.curve(UNTRAINED, "linear")[0].value
    )
    assert gain.low <= gain.value <= gain.high

    assert result.about.keys() == {"windows", "annotations"}
    assert result.differs(result) is None
    other = replace(result, about={**result.about, "annotations": "of before"})
    assert "is not of before" in result.differs(other)

    monkeypatch.setattr(module, "read_frames", None)  # nothing is read again
    assert probe(tmp_path, extractors, *given) == [result]
    assert load_results(tmp_path) == [result]
    text = probing_report(tmp_path).with_suffix(".md").read_text("utf-8")
    assert "| Notes AP | **" in text and "read frame by frame" in text
    assert "log-mel frames" in text and "log-mel statistics" not in text


def test_what_could_not_be_read_is_said_and_read_the_next_time(
    songs, tmp_path, monkeypatch, caplog
):
    settings = FeatureSettings(tmp_path / "features", SECONDS)
    given = [songs], [TASK], settings, LINEAR_ALONE, [0]
    read, away = clips_module.spread_windows, {songs[0].wav, songs[-1].wav}

    def read_some(path, *window):
        if path in away:
            raise AudioError(path, "unreadable", "the drive is away")
        return read(path, *window)

    extractors = {LOG_MEL: [LogMelFrames(encoder())]}
    with monkeypatch.context() as patch:
        patch.setattr(module.window_batches, "__defaults__", (read_some,))
        (result,) = probe(tmp_path, extractors, *given)
    assert "song0.wav: unreadable (the drive is away)" in caplog.text
    assert "2 of 17 clips could not be read" in result.notes[-1]
    assert result.clips["test"] == 6 and not list(tmp_path.glob("features/reading*"))
    (result,) = probe(tmp_path, extractors, *given)
    assert result.clips["test"] == 7 and "could not" not in "".join(result.notes)
    assert len(list(tmp_path.glob("features/reading*"))) == 1


def test_rows_are_compared_on_the_clips_that_all_could_read(
    songs, tmp_path, monkeypatch
):
    settings, seen = FeatureSettings(tmp_path / "features", SECONDS), []
    read = clips_module.spread_windows

    def once_away(path, *window):
        seen.append(path)
        if path == songs[-1].wav and seen.count(path) == 1:
            raise AudioError(path, "unreadable", "the drive is away")
        return read(path, *window)

    monkeypatch.setattr(module.window_batches, "__defaults__", (once_away,))
    extractors = extractors_of(encoder(), [encoder(1), encoder(2)])
    given = extractors, [songs], [TASK], settings, LINEAR_ALONE, [0]
    (result,) = probe(tmp_path, *given)
    for row in result.rows:
        kept = result.predictions[row.key]
        assert kept.shape[1] == 6 and row.value == pytest.approx(kept.mean())
        assert row.metrics == {"clip_precision": row.value}
        each = row.initialisations or [row.value]
        assert each == pytest.approx(kept.mean(axis=1))


def test_another_extractor_or_other_notes_are_read_again(songs, tmp_path):
    settings = FeatureSettings(tmp_path, SECONDS)
    data = frame_data(TASK, songs, SECONDS)
    reading = module.FrameReading(data, HiddenStates(encoder()), "x", settings)
    assert reading.found([])[0][0] == reading.found([])[0][0]
    assert len(list(tmp_path.iterdir())) == 1
    other = module.FrameReading(data, HiddenStates(encoder(1)), "x", settings)
    other.found([])
    data.targets["test"][0][:] = True
    reading.found([])
    assert len(list(tmp_path.iterdir())) == 3


def test_tasks_name_a_label_of_frames():
    (task,) = make_tasks([{"label": "notes", "kind": "frames"}], "piece")
    assert (task.key, task.group) == ("midi", "piece")
    with pytest.raises(ProbeError, match="'key' has kind 'frames', .* for notes only"):
        ProbeTask("key", "frames")
    check_labels(["midi"], [partial(prepare_manifests, data_folder=None)])


def test_a_csv_file_names_midi_files(tmp_path, songs):
    wav, midi = songs[0].wav, songs[0].labels["midi"]
    text = f"path,midi,artist\n{wav},{midi},x\n"
    (tmp_path / "labels.csv").write_text(text)
    (clip,) = csv_clips(tmp_path / "labels.csv", split_column=None)
    assert clip.labels == {"path": wav, "midi": midi, "artist": "x"}
    (tmp_path / "labels.csv").write_text(text.replace(midi, "gone.mid"))
    with pytest.raises(ProbeError, match="line 2: there is no .*gone.mid"):
        csv_clips(tmp_path / "labels.csv")
