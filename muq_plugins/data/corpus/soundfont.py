"""The instruments of the soundfont that ships in pretty_midi.

Why not symusic, the one synthesizer that needs no system library: its release 0.5.9
plays this font wrong (and 0.6.0 returns no audio). It ignores the root keys that 86 %
of the zones override, so notes sound many semitones off (C4 on the piano sounds as
G#5), and it ignores decays, so plucked strings ring like an organ. At some high
pitches it never returns, at others it reads memory that is not its own. Music whose
key label is to be true needs notes in tune.

What is played: samples with their loops, tuning, attenuation and volume envelope
(SoundFont 2.01 specification, sections 7 to 9). What is not: filters, vibrato,
modulators and panning.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.signal import firwin, resample_poly

from muq_plugins.errors import UserError

SAMPLE_RATE = 24000
DRUMS = 128  # the program of the drum kit, whose pitches are those of General MIDI
_FULL_RANGE = 100.0  # dB, what decay and release times refer to
# The tables of a SoundFont 2 file, as the specification names and lays them out.
_TABLES = {
    "phdr": [
        ("", "S20"),
        ("preset", "<u2"),
        ("bank", "<u2"),
        ("bag", "<u2"),
        ("_", "V12"),
    ],
    "pbag": [("gen", "<u2"), ("_", "V2")],
    "pgen": [("oper", "<u2"), ("amount", "<i2")],
    "inst": [("", "S20"), ("bag", "<u2")],
    "ibag": [("gen", "<u2"), ("_", "V2")],
    "igen": [("oper", "<u2"), ("amount", "<i2")],
    "shdr": [
        ("", "S20"),
        *((name, "<u4") for name in ("start", "end", "loop_start", "loop_end", "rate")),
        ("root", "u1"),
        ("correction", "i1"),
        ("_", "V4"),
    ],
}
# Generators: their numbers in the specification.
_LOOP_START, _LOOP_END = 2, 3
_ATTACK, _HOLD, _DECAY, _SUSTAIN, _RELEASE = 34, 35, 36, 37, 38
_INSTRUMENT, _KEY_RANGE, _ATTENUATION = 41, 43, 48
_COARSE_TUNE, _FINE_TUNE, _SAMPLE, _SAMPLE_MODES = 51, 52, 53, 54
_SCALE_TUNING, _ROOT_KEY = 56, 58
_INSTANT = -12000  # timecents: 1 ms, the default of all times
_OVERSAMPLING = 4  # so that linear interpolation between samples is clean
_CUTOFF = 10000.0  # Hz; leaves three semitones upwards without aliasing at 24 kHz
_LONGEST_RELEASE = 1.0  # seconds


class SoundFont:
    """Reads the instruments of a SoundFont 2 file as they are asked for."""

    def __init__(self, path: str | Path):
        data = Path(path).read_bytes()
        if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
            raise UserError(f"{path} is not a SoundFont 2 file.")
        self._tables: dict[str, np.ndarray] = {}
        self._read_chunks(data, 12, len(data))
        self._zones: dict[int, list[Zone]] = {}
        self._samples: dict[tuple, np.ndarray] = {}

    def zones(self, program: int) -> list[Zone]:
        """Give the zones of an instrument."""
        if program not in self._zones:
            presets = self._tables["phdr"]
            # The kits are in bank 128, everything else is in bank 0.
            numbers = presets["bank"].astype(int) + presets["preset"]
            found = np.flatnonzero(numbers == program)
            if not len(found):
                raise UserError(f"The soundfont has no program {program}.")
            instruments = self._generators("p", presets["bag"], found[0], _INSTRUMENT)
            self._zones[program] = [
                self._zone(generators)
                for instrument in instruments
                for generators in self._generators(
                    "i", self._tables["inst"]["bag"], instrument[_INSTRUMENT], _SAMPLE
                )
            ]
        return self._zones[program]

    def play(
        self, program: int, pitch: int, duration: float, detuning: float = 0.0
    ) -> np.ndarray:
        """Play a note on an instrument, with all zones of its key.

        `detuning` is in semitones. A key that the font forgot (E4 of the alto
        saxophone) takes the nearest zone.
        """
        zones = self.zones(program)
        fitting = [zone for zone in zones if pitch in zone.keys]
        if not fitting:
            fitting = [min(zones, key=lambda zone: abs(zone.root - pitch))]
        notes = [zone.play(pitch + detuning, duration) for zone in fitting]
        audio = np.zeros(max(len(note) for note in notes), dtype=np.float32)
        for note in notes:
            audio[: len(note)] += note
        return audio

    def _read_chunks(self, data: bytes, start: int, end: int) -> None:
        while start + 8 <= end:
            name, size = struct.unpack_from("<4sI", data, start)
            name = name.decode("ascii")
            start += 8
            if name == "LIST":
                self._read_chunks(data, start + 4, start + size)
            elif name == "smpl":
                self._tables[name] = np.frombuffer(data, "<i2", size // 2, start)
            elif name in _TABLES:
                row = np.dtype(_TABLES[name])
                self._tables[name] = np.frombuffer(
                    data, row, size // row.itemsize, start
                )
            start += size + size % 2

    def _generators(
        self, level: str, bags: np.ndarray, item: int, last: int
    ) -> list[dict[int, int]]:
        """Generators by number, for each bag of an item that ends in `last`.

        The first bag may have another end: it then holds what the others inherit.
        """
        table, starts = self._tables[f"{level}gen"], self._tables[f"{level}bag"]["gen"]
        shared: dict[int, int] = {}
        found = []
        for bag in range(bags[item], bags[item + 1]):
            rows = table[starts[bag] : starts[bag + 1]]
            generators = dict(rows.tolist())
            if last in generators:
                found.append({**shared, **generators})
            elif bag == bags[item]:
                shared = generators
        return found

    def _zone(self, generators: dict[int, int]) -> Zone:
        header = self._tables["shdr"][generators[_SAMPLE]]
        loops = generators.get(_SAMPLE_MODES, 0) in (1, 3)
        start = int(header["start"])
        loop_start = int(header["loop_start"]) + generators.get(_LOOP_START, 0) - start
        loop_end = int(header["loop_end"]) + generators.get(_LOOP_END, 0) - start
        if not loops:
            loop_start = loop_end = int(header["end"]) - start
        keys = generators.get(_KEY_RANGE, 127 << 8)
        root = generators.get(_ROOT_KEY, -1)
        cents = int(header["correction"]) + generators.get(_FINE_TUNE, 0)

        def seconds(generator: int) -> float:
            return 2.0 ** (max(generators.get(generator, _INSTANT), _INSTANT) / 1200.0)

        return Zone(
            keys=range(keys & 0x7F, (keys >> 8) + 1),
            samples=self._oversampled(start, loop_start, loop_end, int(header["rate"])),
            rate=float(header["rate"]) * _OVERSAMPLING,
            root=(root if root >= 0 else int(header["root"]))
            - generators.get(_COARSE_TUNE, 0)
            - cents / 100.0,
            scale=generators.get(_SCALE_TUNING, 100) / 100.0,
            loop=(loop_end - loop_start) * _OVERSAMPLING,
            gain=10.0 ** (-generators.get(_ATTENUATION, 0) / 200.0),
            attack=seconds(_ATTACK),
            hold=seconds(_HOLD),
            decay=seconds(_DECAY),
            release=min(seconds(_RELEASE), _LONGEST_RELEASE),
            sustain=generators.get(_SUSTAIN, 0) / 10.0,
        )

    def _oversampled(
        self, start: int, loop_start: int, loop_end: int, rate: int
    ) -> np.ndarray:
        """A sample up to the end of its loop, and one more to interpolate towards."""
        key = (start, loop_start, loop_end)
        if key not in self._samples:
            pcm = self._tables["smpl"][start : start + loop_end]
            # After the loop comes its beginning again, not what the file has there.
            loop = pcm[loop_start:] if loop_end > loop_start else np.zeros(1)
            audio = np.append(pcm, np.resize(loop, 64)) / 32768.0
            cutoff = min(_CUTOFF, 0.45 * rate)
            taps = firwin(32 * _OVERSAMPLING + 1, cutoff, fs=rate * _OVERSAMPLING)
            audio = resample_poly(audio, _OVERSAMPLING, 1, window=taps)
            end = loop_end * _OVERSAMPLING + 1
            self._samples[key] = audio[:end].astype(np.float32)
        return self._samples[key]


@dataclass(frozen=True)
class Zone:
    """One recorded note of an instrument, and the keys that it is played for."""

    keys: range  # MIDI pitches
    # (samples,) float32, oversampled; up to the end of the loop if there is one
    samples: np.ndarray = field(repr=False)
    rate: float  # sampling rate of `samples` in Hz
    root: float  # MIDI pitch, with fractions, at which it sounds as recorded
    scale: float  # semitones from one key to the next
    loop: int  # length of the loop at the end of `samples`; 0 for none
    gain: float  # amplitude factor
    # times of the envelope in seconds; decay and release are those of 100 dB
    attack: float
    hold: float
    decay: float
    release: float
    sustain: float  # attenuation that the decay ends at, in dB

    def play(self, pitch: float, duration: float) -> np.ndarray:
        """Play a note."""
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


@lru_cache(maxsize=1)
def load_soundfont() -> SoundFont:
    """Load the soundfont of pretty_midi, once a process."""
    return SoundFont(soundfont_path())


def soundfont_path() -> Path:
    """Find the soundfont inside the pretty_midi package, without importing it."""
    path = Path(find_spec("pretty_midi").origin).parent / "TimGM6mb.sf2"
    if not path.is_file():
        raise UserError(
            f"The soundfont {path} is missing. Reinstall the package it ships in: "
            "pip install --force-reinstall pretty_midi"
        )
    return path
