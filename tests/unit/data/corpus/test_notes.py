"""Single notes: in tune, labelled, apart by their recordings, resumed, errors."""

import json

import numpy as np
import pytest
import soundfile

from muq_plugins.data.corpus import FAMILIES, build_notes, notes
from muq_plugins.data.corpus.notes import (
    NOTE_LABELS,
    SOURCES,
    note_manifests,
    render_note,
)
from muq_plugins.data.corpus.soundfont import load_soundfont
from muq_plugins.data.preparation import prepare_notes

STEP = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two octaves from note to note."""
    return build_notes(tmp_path_factory.mktemp("notes"), STEP, progress=False)


@pytest.fixture
def counted(monkeypatch):
    """The notes that are rendered."""
    rendered = []

    def render(**note):
        rendered.append(note)
        return render_note(**note)

    monkeypatch.setattr(notes, "render_note", render)
    return rendered


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_sources_share_no_recording():
    """Otherwise a probe could know the very recording that it is tested on."""
    font, owner = load_soundfont(), {}
    for part, sources in SOURCES.items():
        for source in sources:
            for program in source:
                for zone in font.zones(program):
                    key = zone.samples[:4000].tobytes()
                    assert owner.setdefault(key, (part, source)) == (part, source)
    programs = [p for sources in SOURCES.values() for s in sources for p in s]
    assert sorted(programs) == sorted(p for family in FAMILIES.values() for p in family)


def test_every_family_and_nearly_every_pitch_is_learned_and_tested():
    manifests = note_manifests()
    found = {
        name: {
            part: {entry[name] for entry in manifest.values()}
            for part, manifest in manifests.items()
        }
        for name in ("instrument_family", "pitch", "source")
    }
    families = found["instrument_family"]
    assert families["train"] == families["test"] == set(FAMILIES)
    assert set(range(36, 97)) <= found["pitch"]["train"] & found["pitch"]["test"]
    assert not found["source"]["train"] & found["source"]["test"]
    assert sum(map(len, manifests.values())) == 2965
    entry = next(iter(manifests["train"].values()))
    audio = {"wav", "duration", "sample_rate", "channels"}
    assert entry.keys() - audio == NOTE_LABELS
    velocities = [entry["velocity"] for entry in manifests["train"].values()]
    assert min(velocities.count(v) for v in set(velocities)) > 500
    assert manifests != note_manifests(seed=5)
    assert manifests == note_manifests()


@pytest.mark.parametrize(("program", "pitch"), [(40, 57), (73, 69), (56, 76)])
def test_notes_are_in_tune(program, pitch):
    spectrum = np.abs(np.fft.rfft(render_note(program, pitch, 120)[6000:30000]))
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    peak = spectrum[30:].argmax() + 30  # Hz, as the window is one second
    assert peak / hertz == pytest.approx(round(peak / hertz), rel=0.02)


def test_files_are_what_the_manifests_say(folder):
    manifests = prepare_notes(folder, STEP, 1234)
    record = read(folder / "notes.json")
    assert record["complete"] and record["settings"] == {"step": STEP, "seed": 1234}
    for part in ("train", "valid", "test"):
        entries = getattr(manifests, part)
        assert len(entries) == record["notes"][part] > 0
        for entry in entries.values():
            audio, rate = soundfile.read(entry["wav"])
            assert (rate, len(audio) / rate) == (24000, entry["duration"])
            assert entry["pitch"] % STEP == 0
            assert np.abs(audio).max() < 0.95
            expected = 0.1 * (entry["velocity"] / 127) ** 2
            assert audio.std() < 1.02 * expected
            assert audio.std() > 0.2 * expected  # the shortest, held back by its peak


def test_an_interrupted_build_goes_on(folder, counted, tmp_path):
    whole = {p.name: p.read_bytes() for p in (folder / "audio").iterdir()}

    def fail(**note):
        if len(counted) == 5:
            raise KeyboardInterrupt
        counted.append(note)
        return render_note(**note)

    notes.render_note, keep = fail, notes.render_note
    with pytest.raises(KeyboardInterrupt):
        build_notes(tmp_path, STEP, progress=False)
    notes.render_note = keep
    assert not read(tmp_path / "notes.json")["complete"]
    (tmp_path / "audio" / ".000-048.flac.1.partial").write_bytes(b"half")
    counted.clear()
    build_notes(tmp_path, STEP, progress=False)
    assert len(counted) == len(whole) - 5
    again = {p.name: p.read_bytes() for p in (tmp_path / "audio").iterdir()}
    assert again == whole
    next((tmp_path / "audio").iterdir()).unlink()
    for _ in range(2):  # what is complete is not rendered again
        build_notes(tmp_path, STEP, progress=False)
        assert len(counted) == len(whole) - 4


def test_other_settings_and_other_data_are_refused(folder, tmp_path):
    """What else is refused is that of the corpus."""
    with pytest.raises(ValueError, match="'step': 24.*'step': 12.*or delete"):
        build_notes(folder, 12)
    with pytest.raises(ValueError, match="step is 0"):
        build_notes(folder, 0)
    (tmp_path / "audio").mkdir()
    with pytest.raises(ValueError, match="has audio but no notes.json"):
        build_notes(tmp_path)
