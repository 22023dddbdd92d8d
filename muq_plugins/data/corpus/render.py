"""Turn an arrangement into audio: play its parts, balance them, set the level.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import os
from pathlib import Path

import numpy as np
import soundfile

from muq_plugins.data.corpus.arrangement import Part
from muq_plugins.data.corpus.sampler import SAMPLE_RATE
from muq_plugins.data.corpus.soundfont import load_soundfont

_SILENCE = 1e-3  # of the peak: -60 dB
_RMS = 0.1  # -20 dBFS
_PEAK = 0.95


def render(parts: list[Part]) -> np.ndarray:
    """Play the parts of an arrangement together, without any effect.

    Arguments
    ---------
    parts : list of Part
        What each part plays, on what, and how loud.

    Returns
    -------
    numpy.ndarray
        (samples,) float32 at `SAMPLE_RATE`, levelled, without silence at its end.

    Example
    -------
    >>> from muq_plugins.data.corpus.arrangement import PlayedNote
    >>> audio = render([Part(73, 0.0, [PlayedNote(0.0, 1.0, 72, 80)])])
    >>> len(audio) > 24000, float(abs(audio).max()) <= 0.95
    (True, True)
    """
    tracks = [_play_part(part) for part in parts]
    audio = np.zeros(max(len(track) for track in tracks), dtype=np.float32)
    for track in tracks:
        audio[: len(track)] += track
    return level(_trim_end(audio))


def level(audio: np.ndarray) -> np.ndarray:
    """Bring audio to -20 dBFS RMS, or less where the peak would pass 0.95.

    The soundfont's instruments differ by 20 dB. A common RMS does not give them away
    by their loudness, and leaves headroom for all but the most percussive music, which
    the limit of the peak then keeps from clipping.

    Arguments
    ---------
    audio : numpy.ndarray
        (samples,)

    Returns
    -------
    numpy.ndarray
        (samples,) float32

    Raises
    ------
    ValueError
        If it is silent or not finite.

    Example
    -------
    >>> round(float(level(np.array([0.5, -0.5])).max()), 3)
    0.1
    """
    rms = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
    peak = float(np.abs(audio).max())
    if not (np.isfinite(peak) and peak > 0.0):
        raise ValueError(f"The audio is silent or not finite: its peak is {peak}.")
    return (audio * min(_RMS / rms, _PEAK / peak)).astype(np.float32)


def write_flac(path: Path, audio: np.ndarray) -> None:
    """Write audio as 16-bit FLAC, completely or not at all.

    Arguments
    ---------
    path : pathlib.Path
        Where.
    audio : numpy.ndarray
        (samples,) -1..1 at `SAMPLE_RATE`.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_flac(Path(folder) / "a.flac", np.zeros(24000))
    ...     [file.name for file in Path(folder).iterdir()]
    ['a.flac']
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    # Rounded here, so that the file does not depend on how libsndfile rounds.
    samples = np.round(audio * 32767.0).astype(np.int16)
    soundfile.write(unfinished, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    os.replace(unfinished, path)


def _play_part(part: Part) -> np.ndarray:
    """One part at an RMS of its gain over the time that it sounds.

    Without that, a glockenspiel that the labels name would not be heard beside brass.
    """
    font = load_soundfont()
    sounds: dict[tuple[int, float], np.ndarray] = {}
    notes = []
    for note in part.notes:
        key = (note.pitch, note.duration)
        if key not in sounds:
            sounds[key] = font.play(part.program, note.pitch, note.duration)
        # The amplitude that SoundFont 2.01, 8.4.1, gives to a velocity.
        gain = np.float32((note.velocity / 127.0) ** 2)
        notes.append((round(note.start * SAMPLE_RATE), sounds[key], gain))
    track = np.zeros(max(start + len(s) for start, s, _ in notes), dtype=np.float32)
    for start, sound, gain in notes:
        track[start : start + len(sound)] += sound * gain
    sounding = track[track != 0.0]
    rms = np.sqrt(np.mean(np.square(sounding, dtype=np.float64)))
    return track * np.float32(10.0 ** (part.gain / 20.0) / rms)


def _trim_end(audio: np.ndarray) -> np.ndarray:
    """Cut what is under -60 dB of the peak at the end."""
    loud = np.flatnonzero(np.abs(audio) > _SILENCE * np.abs(audio).max())
    return audio[: loud[-1] + 1] if len(loud) else audio
