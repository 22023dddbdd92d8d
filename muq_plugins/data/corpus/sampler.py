"""Play one recorded note at any pitch and length.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from dataclasses import dataclass, field

import numpy as np

SAMPLE_RATE = 24000

_FULL_RANGE = 100.0  # dB, what decay and release times refer to


@dataclass(frozen=True)
class Zone:
    """One recorded note of an instrument, and the keys that it is played for.

    Arguments
    ---------
    keys : range
        MIDI pitches.
    samples : numpy.ndarray
        (samples,) float32, oversampled; up to the end of the loop if there is one.
    rate : float
        Sampling rate of `samples` in Hz.
    root : float
        MIDI pitch, with fractions, at which it sounds as recorded.
    scale : float
        Semitones from one key to the next.
    loop : int
        Length of the loop at the end of `samples`; 0 for none.
    gain : float
        Amplitude factor.
    attack, hold, decay, release : float
        Times of the envelope in seconds; decay and release are those of 100 dB.
    sustain : float
        Attenuation that the decay ends at, in dB.

    Example
    -------
    >>> sine = np.sin(2 * np.pi * np.arange(101) / 100).astype("float32")
    >>> times = {"attack": 0.01, "hold": 0.01, "decay": 1.0, "release": 0.1}
    >>> tone = {"rate": 48000.0, "root": 70.7, "scale": 1.0, "loop": 100, "gain": 1.0}
    >>> zone = Zone(range(128), sine, **tone, sustain=0.0, **times)
    >>> len(zone.play(pitch=60, duration=0.5)) / SAMPLE_RATE
    0.6
    """

    keys: range
    samples: np.ndarray = field(repr=False)
    rate: float
    root: float
    scale: float
    loop: int
    gain: float
    attack: float
    hold: float
    decay: float
    sustain: float
    release: float

    def play(self, pitch: int, duration: float) -> np.ndarray:
        """Play a note.

        Arguments
        ---------
        pitch : int
            MIDI pitch.
        duration : float
            Seconds from its onset to its release.

        Returns
        -------
        numpy.ndarray
            (samples,) float32 at `SAMPLE_RATE`, with the release.
        """
        frames = int(np.ceil((duration + self.release) * SAMPLE_RATE))
        step = 2.0 ** ((pitch - self.root) * self.scale / 12.0) * self.rate
        position = np.arange(frames) * (step / SAMPLE_RATE)
        end = len(self.samples) - 1  # the last one is there to interpolate towards
        inside = int(np.searchsorted(position, end))
        if self.loop:
            start = end - self.loop
            position[inside:] = start + (position[inside:] - start) % self.loop
        else:
            position = position[:inside]
        index = position.astype(np.int64)
        below, above = self.samples[index], self.samples[index + 1]
        fraction = (position - index).astype(np.float32)
        audio = below + (above - below) * fraction
        return audio * self._envelope(len(audio), duration)

    def _envelope(self, frames: int, duration: float) -> np.ndarray:
        """Amplitude: linear attack, then decay and release linear in dB."""
        time = np.arange(frames, dtype=np.float32) / SAMPLE_RATE
        held = np.minimum(time, duration) - (self.attack + self.hold)
        attenuation = np.clip(held * (_FULL_RANGE / self.decay), 0.0, self.sustain)
        released = np.maximum(time - duration, 0.0)
        attenuation += released * (_FULL_RANGE / self.release)
        envelope = np.exp(attenuation * (-np.log(10.0) / 20.0), dtype=np.float32)
        rise = int(self.attack * SAMPLE_RATE)
        envelope[:rise] *= time[:rise] / self.attack
        return envelope * np.float32(self.gain)
