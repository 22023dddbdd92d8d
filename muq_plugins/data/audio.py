"""The one audio reader: seek, downmix, resample to 24 kHz, float32.

Everything of the toolkit that opens an audio file goes through this module, so
that a damaged file always shows up as one typed error, `AudioError`, and a
window of a file is always the same samples, however it was reached.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
import torchaudio

from muq_plugins.data.decoders import DecodingError, Ffmpeg, Sndfile
from muq_plugins.data.opening import open_audio
from muq_plugins.errors import UserError

# libsndfile decodes the first two lines, FFmpeg (through PyAV) the others.
AUDIO_EXTENSIONS = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"),
    *(".aifc", ".au", ".caf", ".w64", ".rf64", ".wave"),
    *(".m4a", ".m4b", ".aac", ".wma", ".webm", ".mka", ".mp2", ".ac3", ".wv", ".tta"),
)
# Sound that is in no folder's music, but read if its file is named.
OTHER_EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".avi", ".3gp", ".ape", ".mpc", ".dsf", ".dff"),
    *(".eac3", ".dts", ".amr", ".ra", ".rm", ".m4p", ".aa", ".aax", ".spx", ".tak"),
    *(".voc", ".snd", ".mp1", ".mid", ".midi"),
)

# Every reason for which a file or a window is refused, and what to do about it.
REMEDIES = {
    "missing": "Check the path; if a manifest names it, also data_root.",
    "a folder": "Give files in it, or a command that takes folders.",
    "unreadable": "Check the permissions and the disk.",
    "too large": "Free memory, or leave it out: its header may be wrong, too.",
    "needs FFmpeg": "Run `pip install av`, or re-encode it as wav or flac.",
    "undecodable": "Re-encode it as wav or flac, or remove it.",
    "other format": "Convert it to flac, or give this file by its name.",
    "empty": "Replace it or remove it.",
    "truncated": "Copy or download it again.",
    "damaged": "Copy or download it again.",
    "implausible": "Its header is wrong: export it again, or remove it.",
    "non-finite": "Export it again: it holds NaN or infinite samples.",
    "out of range": "Scale it to -1..1: what was 16-bit integers, divide by 32768.",
    "too short": "Remove it.",
    "silent": "Remove it.",
    "cancelling": "Invert one channel, or keep only one.",
}


def may_pass(reason: str | None) -> bool:
    """Whether a file that is refused may be good without being changed.

    Nobody remembers such a reason, nor goes on for good without the file.
    """
    return reason in ("missing", "unreadable", "too large", "needs FFmpeg")


# 30 dB above full scale, as in `lobes.finite`: mixes in floating point go beyond 1, but
# not that far. Samples of 16-bit integers do, unless the music is below -60 dBFS, which
# would be silent in the right scale too.
MAX_AMPLITUDE = 32.0

# Without a Xing header the length of an mp3 is an estimate from the file size,
# which tags at the end of the file can push up by a few per cent.
_MP3_LENGTH_TOLERANCE = 0.05
AUDIBLE = 1e-3  # -60 dB
CANCELLED = MAX_AMPLITUDE * AUDIBLE  # the most that channels that cancel may leave
# Values of the kernel of a resampler; all rates up to 100 kHz stay below it.
_LARGEST_KERNEL = 5_000_000


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

    sample_rate: int = 0  # in Hz
    num_samples: int = 0  # samples per channel
    channels: int = 0  # number of channels
    format: str = ""  # container, in the decoder's words ("WAV", "FLAC", "OGG", "MP3")
    subtype: str = ""  # encoding, in the decoder's words ("PCM_16", "VORBIS", "AAC")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate if self.sample_rate else 0.0


@dataclasses.dataclass(frozen=True)
class AudioCheck(AudioInfo):
    """What decoding a whole file found; the samples are those that were decoded."""

    # None when every sample could be decoded, else a key of `REMEDIES`
    reason: str | None = None
    detail: str = ""  # the reason in words
    # largest magnitude of the downmix, which is what a model would hear
    peak: float = 0.0


def audio_info(path: str | os.PathLike) -> AudioInfo:
    """Reads the header of an audio file."""
    with _opened(path) as decoder:
        return _info(decoder)


def _info(decoder: Sndfile | Ffmpeg) -> AudioInfo:
    return AudioInfo(
        decoder.sample_rate,
        decoder.frames,
        decoder.channels,
        decoder.format,
        decoder.subtype,
    )


def duration_for(path: str | os.PathLike, least: float) -> float:
    """The duration of a file; refused if it is too short for a frame of a model."""
    seconds = audio_info(path).duration
    if seconds < least:
        words = f"{seconds:.3f} s, a frame needs {least:.3f} s"
        raise AudioError(path, "too short", words)
    return seconds


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
        rate_in, rate_out = _reduced_rates(file.sample_rate, sample_rate)
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
                f"{file.frames / file.sample_rate:g} s",
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
        if (peak := _peak(wav.numpy())) > MAX_AMPLITUDE:  # it overshoots
            words = f"a sample of {peak:g} once resampled, beyond {MAX_AMPLITUDE:g}"
            raise AudioError(path, "out of range", words)
    return wav[first - period * rate_out : last - period * rate_out]


def check_audio(path: str | os.PathLike) -> AudioCheck:
    """Decodes a whole file once, in blocks, and says what is wrong with it."""
    try:
        with _opened(path) as decoder:
            heard, failure = _Heard(decoder), None
            try:
                for block in decoder.blocks(0, decoder.frames):
                    heard.downmix(block)
                if decoder.format == "FLAC":  # training enters a file anywhere
                    middle = decoder.frames // 2
                    for _ in decoder.blocks(middle, middle + 1):
                        pass
            except DecodingError as error:
                if error.reason != "truncated":
                    raise
                failure = error
            found = {**vars(_info(decoder)), "num_samples": heard.end}
    except AudioError as error:
        return AudioCheck(reason=error.reason, detail=error.detail)
    fault = heard.lacks(decoder.frames, failure) or heard.wrong or heard.cancels()
    reason, detail = fault or (None, "")
    peak = heard.peak if math.isfinite(heard.peak) else 0.0
    return AudioCheck(**found, reason=reason, detail=detail, peak=peak)


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Sndfile | Ffmpeg]:
    """Opens a file; every way to fail is an `AudioError`."""
    rate = None
    try:
        with contextlib.closing(open_audio(path)) as decoder:
            rate = decoder.sample_rate
            yield decoder
    except DecodingError as error:
        words = error.words
        if error.at is not None and rate is not None:
            words = f"decoding stopped at {error.at / rate:.2f} s: {words}"
        raise AudioError(path, error.reason, words) from error
    except FileNotFoundError as error:
        raise AudioError(path, "missing", "no such file") from error
    except OSError as error:
        words = error.strerror or str(error)
        raise AudioError(path, "unreadable", words) from error
    except MemoryError as error:
        raise AudioError(path, "too large", "more than fits into the memory") from error


def _read_mono(
    decoder: Sndfile | Ffmpeg,
    path: str | os.PathLike,
    begin: int,
    end: int,
    needed: int,
) -> torch.Tensor:
    """Reads the samples begin..end of an open file as (samples,) float32.

    Samples after `needed` are context only: they may be missing at the end of a
    file whose header gives an estimate.
    """
    heard, blocks = _Heard(decoder, begin), []
    for block in decoder.blocks(begin, end, size=end - begin):
        mono = heard.downmix(block)
        if heard.wrong:
            raise AudioError(path, *heard.wrong)
        # A block is used again, and its mean over one channel is itself.
        blocks.append(mono.copy() if block.shape[1] == 1 else mono)
    if fault := heard.lacks(needed):
        raise AudioError(path, *fault)
    if begin == 0 and end >= decoder.frames and (fault := heard.cancels()):
        raise AudioError(path, *fault)
    return torch.from_numpy(blocks[0] if len(blocks) == 1 else np.concatenate(blocks))


class _Heard:
    """What is found on the way through a file; each fault is a reason and words."""

    def __init__(self, decoder: Sndfile | Ffmpeg, begin: int = 0):
        self.decoder = decoder
        self.begin = self.end = begin  # samples from the first heard to the last
        self.peak = self.channel_peak = 0.0  # of the downmix, and of any channel
        self.wrong: tuple[str, str] | None = None  # the first sample that is no audio

    def downmix(self, block: np.ndarray) -> np.ndarray:
        """Averages the channels of the next block (samples, channels)."""
        if block.shape[1] == 1:
            mono = block[:, 0]
        else:
            mono = block.mean(axis=1, dtype=np.float32)
        self.wrong = self.wrong or self._wrong_sample(mono)
        self.peak = max(self.peak, _peak(mono))
        if block.shape[1] > 1 and self.peak < CANCELLED:
            self.channel_peak = max(self.channel_peak, _peak(block))
        self.end += len(block)
        return mono

    def lacks(
        self, needed: int, failure: DecodingError | None = None
    ) -> tuple[str, str] | None:
        """Whether there are fewer samples than needed, or than the header says."""
        frames, rate = self.decoder.frames, self.decoder.sample_rate
        promised = frames
        if self.decoder.format == "MP3":
            promised = int(frames * (1 - _MP3_LENGTH_TOLERANCE))
        there = self.end >= min(needed, promised) and self.end > self.begin
        if there and failure is None:
            return None
        cause = f": {failure.words}" if failure is not None else ""
        seconds = f"{self.end / rate:.2f} of {frames / rate:.2f} s"
        return "truncated", f"decoding stopped at {seconds}{cause}"

    def cancels(self) -> tuple[str, str] | None:
        """Whether channels are music that is silent in their average."""
        loudest = self.channel_peak
        if loudest < AUDIBLE or self.peak >= loudest * AUDIBLE:
            return None
        return "cancelling", (
            f"the channels cancel: each peaks at {20 * math.log10(loudest):.1f} dBFS, "
            "their average is silent"
        )

    def _wrong_sample(self, mono: np.ndarray) -> tuple[str, str] | None:
        # Not abs() first, which would store a copy; both keep NaN.
        if _peak(mono) <= MAX_AMPLITUDE and not np.isnan(mono.max()):
            return None
        place = int(np.argmax(~(np.abs(mono) <= MAX_AMPLITUDE)))
        at = f"at {(self.end + place) / self.decoder.sample_rate:.4f} s"
        if not np.isfinite(mono[place]):
            return "non-finite", f"NaN or infinite {at}"
        words = f"a sample of {mono[place]:g} {at}, beyond {MAX_AMPLITUDE:g}"
        return "out of range", words


def _peak(values: np.ndarray) -> float:
    return float(max(-values.min(), values.max()))


@lru_cache(maxsize=64)
def _resampler(rate_in: int, rate_out: int) -> torchaudio.transforms.Resample:
    """The resampler of a pair of rates; its kernel is computed once."""
    return torchaudio.transforms.Resample(rate_in, rate_out)


def _reduced_rates(rate_in: int, rate_out: int) -> tuple[int, int]:
    """The two rates as a small integer ratio."""
    limit = 1000
    while True:
        ratio = Fraction(rate_in, rate_out).limit_denominator(limit)
        if ratio.numerator * ratio.denominator <= _LARGEST_KERNEL or limit == 1:
            return ratio.numerator, ratio.denominator
        limit //= 2


def may_lack(samples: int) -> int:
    """How many samples may lack where so many follow from seconds, which are rounded.

    Where the ratio of two rates is rounded as well, more do the longer a file is.
    """
    return 1 + samples // 20_000


def _ceil_div(numerator: int, denominator: int) -> int:
    """Integer division rounded up."""
    return -(-numerator // denominator)
