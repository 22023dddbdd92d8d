"""The room and the tone of a take: its tuning, an equaliser and reverberation."""

import random
from typing import NamedTuple

import numpy as np
from scipy.signal import oaconvolve, sosfilt

from muq_plugins.data.corpus.soundfont import SAMPLE_RATE

_DETUNING = 0.3  # semitones, up or down
_SHARE = 0.5  # of the takes that an equaliser, and reverberation, are drawn for
_BANDS = (1, 3)
_FREQUENCY = (100.0, 8000.0)  # Hz
_BAND_GAIN = 6.0  # dB
_QUALITY = (0.5, 1.5)
_DECAY = (0.2, 1.2)  # seconds until the reverberation has lost 60 dB
_REVERBERATION = (-20.0, -8.0)  # dB, beside the direct sound


class Band(NamedTuple):
    """A peak or a dip of the equaliser."""

    frequency: float  # Hz
    gain: float  # dB
    quality: float  # frequency by width


class Sound(NamedTuple):
    """What is done to the sound of a whole take."""

    detuning: float = 0.0  # semitones
    bands: tuple[Band, ...] = ()
    decay: float = 0.0  # seconds until reverberation has lost 60 dB; 0 for none
    reverberation: float = 0.0  # its level in dB
    seed: int = 0  # of the noise that it is made of


DRY = Sound()


def draw_sound(rng: random.Random) -> Sound:
    """Draw what is done to a take."""
    bands = decay = 0
    if rng.random() < _SHARE:
        bands = rng.randint(*_BANDS)
    if rng.random() < _SHARE:
        decay = rng.uniform(*_DECAY)
    low, high = np.log(_FREQUENCY)
    return Sound(
        detuning=rng.uniform(-_DETUNING, _DETUNING),
        bands=tuple(
            Band(
                float(np.exp(rng.uniform(low, high))),
                rng.uniform(-_BAND_GAIN, _BAND_GAIN),
                rng.uniform(*_QUALITY),
            )
            for _ in range(bands)
        ),
        decay=decay,
        reverberation=rng.uniform(*_REVERBERATION),
        seed=rng.getrandbits(32),
    )


def apply_sound(audio: np.ndarray, sound: Sound) -> np.ndarray:
    """Equalise and reverberate, after which the audio is longer by the decay.

    The detuning is done by whoever plays the notes.
    """
    if sound.bands:
        audio = sosfilt([_biquad(band) for band in sound.bands], audio)
    if sound.decay:
        # A diffuse room is noise that decays exponentially (J. A. Moorer, 1979).
        time = np.arange(round(sound.decay * SAMPLE_RATE)) / SAMPLE_RATE
        noise = np.random.default_rng(sound.seed).standard_normal(len(time))
        room = noise * 10.0 ** (-3.0 * time / sound.decay)
        room *= 10.0 ** (sound.reverberation / 20.0) / np.linalg.norm(room)
        room[0] += 1.0  # the direct sound
        audio = oaconvolve(audio, room)
    return audio.astype(np.float32)


def _biquad(band: Band) -> list[float]:
    """A peaking filter as in R. Bristow-Johnson's cookbook, as scipy wants it."""
    angle = 2.0 * np.pi * band.frequency / SAMPLE_RATE
    gain = 10.0 ** (band.gain / 40.0)
    alpha = np.sin(angle) / (2.0 * band.quality)
    cosine = -2.0 * np.cos(angle)
    ahead = np.array([1.0 + alpha * gain, cosine, 1.0 - alpha * gain])
    back = np.array([1.0 + alpha / gain, cosine, 1.0 - alpha / gain])
    return [*(ahead / back[0]), *(back / back[0])]
