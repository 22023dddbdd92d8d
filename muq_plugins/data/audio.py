"""The one audio reader: seek, downmix, resample to 24 kHz, float32.

Everything of the toolkit that opens an audio file goes through this module, so
that a damaged file always shows up as one typed error, `AudioError`, and a
window of a file is always the same samples, however it was reached.
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np
import soundfile
import torch
import torchaudio

from muq_plugins.errors import UserError

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")

# Every reason for which a file or a window is refused, and what to do about it.
REMEDIES = {
    "missing": "Check the path and data_root, or scan the folder again.",
    "unreadable": "Check the permissions and the disk.",
    "undecodable": "Re-encode it as wav or flac, or remove it.",
    "empty": "Replace it or remove it.",
    "truncated": "Copy or download it again.",
    "non-finite": "Export it again: it holds NaN or infinite samples.",
    "out of range": "Scale it to -1..1: what was 16-bit integers, divide by 32768.",
    "too short": "Remove it, lower min_duration, or scan the folder again.",
    "silent": "Remove it or lower silence_dbfs.",
}

# 30 dB above full scale, as in `lobes.finite`: mixes in floating point go beyond 1, but
# not that far. Samples of 16-bit integers do, unless the music is below -60 dBFS, which
# would be silent in the right scale too.
MAX_AMPLITUDE = 32.0

# libsndfile reports this many frames when the header states no length.
_UNKNOWN_LENGTH = 1 << 62
# Writers that cannot seek back (pipes) put a placeholder of about this size.
_STREAMED_WAV = 0x7FFF0000
# Without a Xing header the length of an mp3 is an estimate from the file size,
# which tags at the end of the file can push up by a few per cent.
_MP3_LENGTH_TOLERANCE = 0.05
_LIBSNDFILE_SYSTEM_ERROR = 2
_BLOCK = 1 << 16


class AudioError(UserError):
    """A file, or a window of it, that cannot be used."""

    def __init__(self, path: str | os.PathLike, reason: str, detail: str = ""):
        # All three are passed up so that the error survives pickling.
        super().__init__(str(path), reason, detail)
        self.path = str(path)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.path}: {self.reason}{detail}. {REMEDIES[self.reason]}"


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says."""

    sample_rate: int  # in Hz
    num_samples: int  # samples per channel
    channels: int  # number of channels
    format: str  # container, in libsndfile's words ("WAV", "FLAC", "OGG", "MP3")
    subtype: str  # encoding, in libsndfile's words ("PCM_16", "VORBIS")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


@dataclasses.dataclass(frozen=True)
class AudioCheck:
    """What decoding a whole file found."""

    # None when every sample could be decoded, else a key of `REMEDIES`
    reason: str | None
    detail: str  # the reason in words
    sample_rate: int = 0  # in Hz; 0 when the file could not be opened
    num_samples: int = 0  # decoded samples per channel
    channels: int = 0  # number of channels
    format: str = ""  # container
    subtype: str = ""  # encoding
    # largest magnitude of the downmix, which is what a model would hear
    peak: float = 0.0

    @property
    def duration(self) -> float:
        """Decoded length in seconds."""
        return self.num_samples / self.sample_rate if self.sample_rate else 0.0


def audio_info(path: str | os.PathLike) -> AudioInfo:
    """Reads the header of an audio file."""
    with _opened(path) as file:
        return AudioInfo(
            file.samplerate, file.frames, file.channels, file.format, file.subtype
        )


def read_audio(
    path: str | os.PathLike,
    start: float = 0.0,
    duration: float | None = None,
    sample_rate: int = 24000,
) -> torch.Tensor:
    """Reads a window of a file as mono float32 at one sample rate.

    Only the window is decoded. Channels are averaged. When the file has another
    rate, a little context on both sides is read, resampled and cut off, on a grid
    of whole resampling periods; hence a window equals the same slice of the whole
    resampled file, without edge effects.

    Resampling is torchaudio's windowed sinc. The ratio of the two rates is
    reduced to a fraction with a denominator of at most 1000, which is exact for
    every rate in common use and off by less than one millionth otherwise (the
    exact kernel of, say, 44101 Hz would take 4 GB).
    """
    if start < 0 or (duration is not None and duration <= 0):
        raise UserError(
            f"A window needs start >= 0 and duration > 0 (seconds), got "
            f"start={start} and duration={duration} for {path}."
        )
    with _opened(path) as file:
        rate_in, rate_out = _reduced_rates(file.samplerate, sample_rate)
        total = _ceil_div(file.frames * rate_out, rate_in)
        first = round(start * sample_rate)
        last = total
        if duration is not None:
            last = min(total, first + round(duration * sample_rate))
        if first >= last:
            raise AudioError(
                path,
                "too short",
                f"the window begins at {start:g} s, the file ends at "
                f"{file.frames / file.samplerate:g} s",
            )
        # One period is rate_in samples of the file and rate_out of the result.
        context = 0
        if rate_in != rate_out:
            context = _ceil_div(_resampler(rate_in, rate_out).width, rate_in)
        period = max(0, first // rate_out - context)
        end = (_ceil_div(last, rate_out) + context) * rate_in
        wav = _read_mono(
            file,
            path,
            begin=period * rate_in,
            end=min(end, file.frames),
            needed=min(_ceil_div(last * rate_in, rate_out), file.frames),
        )
    if rate_in != rate_out:
        wav = _resampler(rate_in, rate_out)(wav)
    return wav[first - period * rate_out : last - period * rate_out]


def check_audio(path: str | os.PathLike) -> AudioCheck:
    """Decodes a whole file once, in blocks, and says what is wrong with it.

    Beyond decoding errors, this finds what a header gives away: a wav whose data
    chunk ends early and an Ogg stream that was never closed.
    """
    try:
        with _opened(path) as file:
            return _check_opened(file)
    except AudioError as error:
        return AudioCheck(error.reason, error.detail)


def _check_opened(file: soundfile.SoundFile) -> AudioCheck:
    """Decodes an open file to its end and returns an `AudioCheck`."""
    # One buffer for the whole file: threads that allocate large blocks over and
    # over spend their time in page faults instead of decoding.
    buffer = np.empty((_BLOCK, file.channels), dtype=np.float32)
    decoded, peak, failure, wrong = 0, 0.0, None, None
    while failure is None:
        try:
            block = file.read(out=buffer)
        except soundfile.LibsndfileError as error:
            failure = error
            continue
        if len(block) == 0:
            break
        mono = _downmix(block)
        wrong = wrong or _wrong_sample(mono, decoded, file.samplerate)
        decoded += len(block)
        # np.maximum keeps NaN, the built-in max may lose it.
        peak = np.maximum(peak, np.abs(mono).max())

    reason, detail = None, ""
    if failure is not None or decoded < _promised_samples(file):
        reason = "truncated"
        detail = _stopped_early(file, decoded, failure)
    elif wrong is not None:
        reason, detail = wrong
    elif _declared_incomplete(file.extra_info):
        reason = "truncated"
        detail = _declared_incomplete(file.extra_info)
    return AudioCheck(
        reason,
        detail,
        file.samplerate,
        decoded,
        file.channels,
        file.format,
        file.subtype,
        float(peak) if np.isfinite(peak) else 0.0,
    )


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[soundfile.SoundFile]:
    """Opens a file; every way to fail becomes an `AudioError`."""
    # Bytes on POSIX: soundfile cannot encode file names that are not UTF-8.
    name = os.fsencode(path) if os.name == "posix" else str(path)
    try:
        file = soundfile.SoundFile(name)
    except soundfile.LibsndfileError as error:
        raise _opening_error(path, error) from error
    with file:
        if file.frames == 0:
            raise AudioError(path, "empty", "no samples")
        if file.frames >= _UNKNOWN_LENGTH:
            raise AudioError(path, "undecodable", "the header states no length")
        yield file


def _opening_error(
    path: str | os.PathLike, error: soundfile.LibsndfileError
) -> AudioError:
    """The `AudioError` for a file that libsndfile could not open."""
    if not os.path.exists(path):
        return AudioError(path, "missing", "no such file")
    if error.code == _LIBSNDFILE_SYSTEM_ERROR:
        return AudioError(path, "unreadable", error.error_string)
    if os.path.getsize(path) == 0:
        return AudioError(path, "empty", "0 bytes")
    return AudioError(path, "undecodable", error.error_string)


def _read_mono(
    file: soundfile.SoundFile,
    path: str | os.PathLike,
    begin: int,
    end: int,
    needed: int,
) -> torch.Tensor:
    """Reads the samples begin..end of an open file as (samples,) float32.

    Samples after `needed` are context only: they may be missing at the end of a
    file whose header gives an estimate.
    """
    try:
        file.seek(begin)
        block = file.read(end - begin, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            path, "truncated", _stopped_early(file, None, error)
        ) from error
    reached = begin + len(block)
    if len(block) == 0 or reached < min(needed, _promised_samples(file)):
        raise AudioError(path, "truncated", _stopped_early(file, reached, None))
    mono = _downmix(block)
    if wrong := _wrong_sample(mono, begin, file.samplerate):
        raise AudioError(path, *wrong)
    return torch.from_numpy(mono)


def _wrong_sample(
    mono: np.ndarray, begin: int, sample_rate: int
) -> tuple[str, str] | None:
    """Reason and words for the first sample that is no audio, else None."""
    # Not abs() first, which would store a copy; both keep NaN.
    if max(-mono.min(), mono.max()) <= MAX_AMPLITUDE and not np.isnan(mono.max()):
        return None
    place = int(np.argmax(~(np.abs(mono) <= MAX_AMPLITUDE)))
    at = f"at {(begin + place) / sample_rate:.4f} s"
    if not np.isfinite(mono[place]):
        return "non-finite", f"NaN or infinite {at}"
    return "out of range", f"a sample of {mono[place]:g} {at}, beyond {MAX_AMPLITUDE:g}"


def _downmix(block: np.ndarray) -> np.ndarray:
    """Averages channels: (samples, channels) to (samples,)."""
    if block.shape[1] == 1:
        return block[:, 0]
    return block.mean(axis=1, dtype=np.float32)


def _promised_samples(file: soundfile.SoundFile) -> int:
    """The samples that a file with this header has at the very least."""
    if file.format == "MP3":
        return int(file.frames * (1 - _MP3_LENGTH_TOLERANCE))
    return file.frames


def _stopped_early(
    file: soundfile.SoundFile,
    decoded: int | None,
    failure: soundfile.LibsndfileError | None,
) -> str:
    """Words for a file that has fewer samples than its header says."""
    promised = f"{file.frames / file.samplerate:.2f} s"
    if decoded is None:
        return f"decoding stopped before {promised}: {failure.error_string}"
    cause = f": {failure.error_string}" if failure is not None else ""
    return f"decoding stopped at {decoded / file.samplerate:.2f} of {promised}{cause}"


def _declared_incomplete(log: str) -> str | None:
    """Words for a file that gives away its own truncation, else None.

    libsndfile silently shortens such files; only its header log tells.
    """
    sizes = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if sizes and int(sizes[2]) < int(sizes[1]) < _STREAMED_WAV:
        return f"the header says {sizes[1]} bytes of audio, the file has {sizes[2]}"
    if "Last page lacks an end-of-stream bit" in log:
        return "the Ogg stream was never closed"
    return None


@lru_cache(maxsize=64)
def _resampler(rate_in: int, rate_out: int) -> torchaudio.transforms.Resample:
    """The resampler of a pair of rates; its kernel is computed once."""
    return torchaudio.transforms.Resample(rate_in, rate_out)


def _reduced_rates(rate_in: int, rate_out: int) -> tuple[int, int]:
    """The two rates as a small integer ratio."""
    ratio = Fraction(rate_in, rate_out).limit_denominator(1000)
    return ratio.numerator, ratio.denominator


def _ceil_div(numerator: int, denominator: int) -> int:
    """Integer division rounded up."""
    return -(-numerator // denominator)
