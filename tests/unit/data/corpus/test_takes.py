"""Mixing, levelling and writing."""

import numpy as np
import pretty_midi
import pytest
import soundfile

from muq_plugins.data.corpus.arrangement import Part, PlayedNote
from muq_plugins.data.corpus.takes import level, render, write_flac, write_midi


def part(program, pitch, gain=0.0, velocity=84):
    notes = [PlayedNote(i * 0.5, 0.5, pitch, velocity) for i in range(4)]
    return Part(program, gain, notes)


def test_quiet_instrument_is_heard_beside_a_loud_one():
    """The glockenspiel (9) is 20 dB softer than the soft synth brass (63)."""
    audio = render([part(9, 84), part(63, 48)])
    spectrum = np.abs(np.fft.rfft(audio[:48000]))
    frequencies = np.fft.rfftfreq(48000, 1.0 / 24000)
    bells = spectrum[frequencies > 2500.0].max()
    assert bells > 0.02 * spectrum.max()
    alone = np.abs(np.fft.rfft(render([part(63, 48)])[:48000]))
    assert alone[frequencies > 2500.0].max() < 0.5 * bells


def test_gain_and_velocity_change_the_balance():
    def share(first, second):
        spectrum = np.abs(np.fft.rfft(render([first, second])[:24000]))
        return spectrum[430:450].max() / spectrum[320:340].max()  # A4 and E4

    even = share(part(73, 69), part(73, 64))
    assert share(part(73, 69, gain=6.0), part(73, 64)) > 1.5 * even
    notes = [PlayedNote(0.0, 1.0, 69, 100), PlayedNote(0.0, 1.0, 64, 60)]
    loud_a = np.abs(np.fft.rfft(render([Part(73, 0.0, notes)])[:24000]))
    assert loud_a[430:450].max() / loud_a[320:340].max() > 1.5 * even


def test_level_sets_rms_unless_the_peak_is_in_the_way():
    time = np.arange(24000) / 24000
    tone = level(3.0 * np.sin(2 * np.pi * 440 * time))
    assert np.sqrt(np.mean(tone**2)) == pytest.approx(0.1, rel=1e-4)
    click = np.zeros(24000)
    click[100] = 0.2
    assert np.abs(level(click)).max() == pytest.approx(0.95)
    assert tone.dtype == np.float32


@pytest.mark.parametrize("sample", [0.0, np.nan, np.inf])
def test_silent_or_broken_audio_is_refused(sample):
    with pytest.raises(ValueError, match="silent or not finite"):
        level(np.full(100, sample))


def test_flac_keeps_the_samples(tmp_path):
    audio = np.linspace(-1.0, 1.0, 1000)
    write_flac(tmp_path / "a.flac", audio)
    read, rate = soundfile.read(tmp_path / "a.flac")
    assert rate == 24000
    np.testing.assert_allclose(read, audio, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["a.flac"]


def test_midi_says_what_sounds_to_the_millisecond(tmp_path):
    notes = [
        PlayedNote(0.0, 2.0, 60, 84),
        PlayedNote(0.1234, 0.5, 64, 90),
        PlayedNote(0.6234, 0.5, 64, 91),  # played again at once
        PlayedNote(1.0, 0.5, 60, 70),  # while the first one still sounds
        PlayedNote(1.0, 3.0, 67, 60),
        PlayedNote(1.0, 1.0, 67, 61),  # twice at the same time
    ]
    parts = [Part(40, 0.0, notes), Part(0, 2.0, [PlayedNote(0.5, 1.0, 50, 100)])]
    for name in ("a.mid", "b.mid"):
        write_midi(tmp_path / name, parts)
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()
    violin, piano = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).instruments
    assert (violin.program, piano.program) == (40, 0)
    played = sorted((n.start, n.end, n.pitch, n.velocity) for n in violin.notes)
    expected = [
        (0.0, 1.0, 60, 84),
        (0.123, 0.623, 64, 90),
        (0.623, 1.123, 64, 91),
        (1.0, 2.0, 60, 70),
        (1.0, 4.0, 67, 61),
    ]
    np.testing.assert_allclose(played, expected, atol=1e-6)
    (note,) = piano.notes
    assert (note.start, note.end, note.pitch, note.velocity) == (0.5, 1.5, 50, 100)
