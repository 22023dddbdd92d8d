"""The sampler: notes in tune, that decay and release, on every instrument."""

import numpy as np
import pytest

from muq_plugins.data.corpus.arrangement import INSTRUMENTS
from muq_plugins.data.corpus.soundfont import (
    SAMPLE_RATE,
    SoundFont,
    Zone,
    load_soundfont,
)


def tuning(audio, pitch):
    """Distance in cents of the strongest partials from a harmonic series."""
    size = 1 << 18
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), size))
    cents = np.arange(-600, 600, 5)
    scores = []
    for offset in cents:
        frequency = 440.0 * 2.0 ** ((pitch - 69 + offset / 100.0) / 12.0)
        partials = np.arange(1, 7) * frequency
        bins = np.round(partials[partials < 11000] * size / SAMPLE_RATE).astype(int)
        scores.append((spectrum[bins] / np.sqrt(np.arange(1, len(bins) + 1))).sum())
    return cents[int(np.argmax(scores))]


@pytest.mark.parametrize("program", [0, 6, 12, 24, 26, 40, 42, 48, 56, 60, 65, 68, 73])
@pytest.mark.parametrize("pitch", [60, 67, 74])
def test_notes_are_in_tune(program, pitch):
    """The piano's C4 zone, for one, is a G sharp 5 unless its root key is read."""
    audio = load_soundfont().play(program, pitch, 1.2)
    assert abs(tuning(audio[2400 : 2400 + 24000], pitch)) <= 20


def test_every_instrument_plays_its_whole_range():
    font = load_soundfont()
    for program, instrument in INSTRUMENTS.items():
        for pitch in range(instrument.low, instrument.high + 1):
            audio = font.play(program, pitch, 0.1)
            assert np.isfinite(audio).all(), (program, pitch)
            assert np.abs(audio).max() > 1e-3, (program, pitch)


def rms(audio, start, end):
    return np.sqrt(np.mean(audio[int(start * 24000) : int(end * 24000)] ** 2))


def test_plucked_string_decays_and_organ_does_not():
    guitar, organ = (load_soundfont().play(p, 60, 3.0) for p in (24, 16))
    assert rms(guitar, 2.5, 2.9) < 0.4 * rms(guitar, 0.1, 0.5)
    assert rms(organ, 2.5, 2.9) == pytest.approx(rms(organ, 0.1, 0.5), rel=0.2)


@pytest.mark.parametrize("program", [0, 40, 73])
def test_note_ends_after_its_release(program):
    audio = load_soundfont().play(program, 64, 0.5)
    assert 0.5 * 24000 < len(audio) <= 1.5 * 24000
    assert np.abs(audio[-24:]).max() < 1e-3


@pytest.mark.parametrize("pitch", [57, 69, 73])
def test_loop_has_no_seam(pitch):
    """A looped sine stays one sine, at the frequency of the key to a fraction."""
    rate, period = 96000.0, 200
    zone = Zone(
        keys=range(128),
        samples=np.sin(2 * np.pi * np.arange(5 * period + 1) / period).astype("f4"),
        rate=rate,
        root=69.0,
        scale=1.0,
        loop=3 * period,
        gain=1.0,
        attack=1e-3,
        hold=1e-3,
        decay=1e-3,
        sustain=0.0,
        release=0.1,
    )
    audio = zone.play(pitch, 2.0)[100:47000]
    time = np.arange(100, 47000) / SAMPLE_RATE
    frequency = rate / period * 2.0 ** ((pitch - 69) / 12.0)
    np.testing.assert_allclose(audio, np.sin(2 * np.pi * frequency * time), atol=2e-3)


def test_another_file_is_named(tmp_path):
    path = tmp_path / "song.wav"
    path.write_bytes(b"RIFF\x00\x00\x00\x00WAVE")
    with pytest.raises(ValueError, match="song.wav is not a SoundFont 2 file"):
        SoundFont(path)


def test_missing_program_is_named(monkeypatch):
    font = load_soundfont()
    presets = font._tables["phdr"]
    monkeypatch.setitem(font._tables, "phdr", presets[presets["preset"] != 78])
    with pytest.raises(ValueError, match="no program 78"):
        font.zones(78)
