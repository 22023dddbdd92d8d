"""Tuning, equaliser and reverberation."""

import random

import numpy as np
import pytest

from muq_plugins.data.corpus.effects import Band, Sound, apply_sound, draw_sound
from muq_plugins.data.corpus.soundfont import DRUMS, load_soundfont


def gain_at(frequency, sound):
    """What a sine of a frequency gains, in dB."""
    time = np.arange(24000) / 24000
    sine = np.sin(2 * np.pi * frequency * time).astype(np.float32)
    audio = apply_sound(sine, sound)[12000:24000]
    return 20 * np.log10(np.std(audio) / np.std(sine))


def test_an_equaliser_raises_and_lowers_its_bands():
    sound = Sound(bands=(Band(500.0, 6.0, 1.0), Band(5000.0, -4.0, 1.0)))
    assert gain_at(500.0, sound) == pytest.approx(6.0, abs=0.2)
    assert gain_at(5000.0, sound) == pytest.approx(-4.0, abs=0.2)
    assert gain_at(60.0, sound) == pytest.approx(0.0, abs=0.3)


def test_reverberation_decays_by_60_db_after_the_direct_sound():
    click = np.zeros(2400, np.float32)
    click[0] = 1.0
    sound = Sound(decay=0.5, reverberation=-10.0, seed=3)
    audio = apply_sound(click, sound)
    assert audio[0] == pytest.approx(1.0, abs=0.1)
    early, late = (np.std(audio[start : start + 1200]) for start in (1200, 10800))
    assert 20 * np.log10(early / late) == pytest.approx(60.0 * 0.4 / 0.5, abs=3.0)
    energy = 10 * np.log10(np.sum(audio[1:].astype(float) ** 2))
    assert energy == pytest.approx(-10.0, abs=1.0)
    assert (audio == apply_sound(click, sound)).all()


def test_sounds_are_drawn_by_the_seed_and_some_are_dry():
    sounds = [draw_sound(random.Random(i)) for i in range(200)]
    assert sounds == [draw_sound(random.Random(i)) for i in range(200)]
    assert 60 < sum(bool(sound.bands) for sound in sounds) < 140
    assert 60 < sum(bool(sound.decay) for sound in sounds) < 140
    tunings = [sound.detuning for sound in sounds]
    assert -0.3 <= min(tunings) < -0.25 and 0.25 < max(tunings) <= 0.3
    dry = np.ones(100, np.float32)
    assert (apply_sound(dry, Sound(detuning=0.2)) == dry).all()


def test_a_note_is_detuned_by_cents():
    def peak(detuning):
        flute = load_soundfont().play(73, 69, 2.0, detuning)[12000:36000]
        spectrum = np.abs(np.fft.rfft(flute * np.hanning(24000), 240000))
        return np.argmax(spectrum[4000:5000]) + 4000

    assert 12 * np.log2(peak(0.3) / peak(0.0)) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("pitch", [36, 37, 42, 45, 54, 69, 70])
def test_drums_are_short(pitch):
    audio = load_soundfont().play(DRUMS, pitch, 0.1)
    assert np.abs(audio).max() > 0.01 and len(audio) < 1.2 * 24000
