"""Tests of the audio reader."""

import math
import pickle
import re
import struct

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.data.audio import (
    AUDIO_EXTENSIONS,
    MAX_AMPLITUDE,
    AudioError,
    audio_info,
    check_audio,
    may_pass,
    read_audio,
)
from muq_plugins.data.windows import read_blocks
from muq_plugins.lobes import finite
from tests.unit.data import recordings


def tone(sample_rate, seconds, channels=1, seed=0):
    """Noise over a tone, (samples, channels) float64 below 0.5."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(sample_rate * seconds)) / sample_rate
    wav = 0.2 * np.sin(2 * np.pi * 440 * time)[:, None]
    return wav + 0.1 * rng.uniform(-1, 1, (len(time), channels))


def write(path, sample_rate, seconds, channels=1, **kwargs):
    soundfile.write(path, tone(sample_rate, seconds, channels), sample_rate, **kwargs)
    return path


def truncate(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.mark.parametrize(
    "subtype, tolerance",
    [("PCM_U8", 1e-2), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("FLOAT", 1e-7)],
)
def test_sample_formats(tmp_path, subtype, tolerance):
    path = write(tmp_path / "a.wav", 24000, 0.5, subtype=subtype)
    wav = read_audio(path)
    assert wav.dtype == torch.float32 and wav.shape == (12000,)
    expected = torch.from_numpy(tone(24000, 0.5)[:, 0]).float()
    assert (wav - expected).abs().max() < tolerance


@pytest.mark.parametrize("extension", AUDIO_EXTENSIONS)
def test_every_extension_is_read(tmp_path, extension):
    path = tmp_path / f"a{extension}"
    kinds = {
        **{".ogg": "OGG", ".oga": "OGG", ".opus": "OGG", ".wave": "WAV"},
        **{".aif": "AIFF", ".aifc": "AIFF"},
    }
    kind = kinds.get(extension, extension[1:].upper())
    subtype = {".opus": "OPUS", ".aifc": "FLOAT"}.get(extension)
    if extension in recordings.FORMATS:
        recordings.encode(
            path, tone(48000, 1.0, 2), 48000, *recordings.FORMATS[extension]
        )
    else:
        write(path, 48000, 1.0, channels=2, format=kind, subtype=subtype)
    wav = read_audio(path, start=0.25, duration=0.5)
    assert wav.shape == (12000,)
    assert 0.1 < wav.abs().max() < 0.6
    check = check_audio(path)
    assert check.reason is None
    assert check.num_samples == audio_info(path).num_samples


def test_info(tmp_path):
    path = write(tmp_path / "a.flac", 192000, 0.25, channels=8)
    info = audio_info(path)
    assert (info.sample_rate, info.channels, info.duration) == (192000, 8, 0.25)
    assert (info.format, info.subtype) == ("FLAC", "PCM_16")
    assert read_audio(path, start=0.1, duration=0.1).shape == (2400,)


def test_downmix_is_the_channel_mean(tmp_path):
    wav = np.stack([np.full(2400, value) for value in (0.5, -0.1)], axis=1)
    soundfile.write(tmp_path / "a.wav", wav, 24000, subtype="FLOAT")
    assert torch.allclose(read_audio(tmp_path / "a.wav"), torch.full((2400,), 0.2))


@pytest.mark.parametrize("sample_rate", [8000, 22050, 24000, 44100, 48000, 44101, 7919])
def test_window_equals_slice_of_the_whole(tmp_path, sample_rate):
    path = write(tmp_path / "a.wav", sample_rate, 2.0, channels=2, subtype="FLOAT")
    whole = read_audio(path)
    assert abs(len(whole) - 48000) <= 1
    for start in (0.0, 0.04, 0.5, 1.0001, 1.87):
        window = read_audio(path, start=start, duration=0.5)
        first = round(start * 24000)
        expected = whole[first : first + 12000]
        assert len(window) == len(expected)
        assert (window - expected).abs().max() < 1e-5


def test_resampling_keeps_a_tone(tmp_path):
    time = np.arange(44100) / 44100
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * time), 44100)
    wav = read_audio(tmp_path / "a.wav")
    expected = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(24000) / 24000)
    assert (wav - expected)[100:-100].abs().max() < 2e-3


def test_window_stops_at_the_end_of_the_file(tmp_path):
    path = write(tmp_path / "a.wav", 24000, 1.0)
    assert read_audio(path, start=0.75, duration=1.0).shape == (6000,)
    with pytest.raises(AudioError, match="begins at 1 s, the file ends at 1 s") as e:
        read_audio(path, start=1.0, duration=1.0)
    assert e.value.reason == "too short"
    assert read_audio(write(tmp_path / "b.wav", 44100, 0.01)).shape == (240,)


@pytest.mark.parametrize("start, duration", [(-0.1, None), (0.0, 0.0)])
def test_senseless_window(tmp_path, start, duration):
    with pytest.raises(ValueError, match="start >= 0 and duration > 0"):
        read_audio(tmp_path / "a.wav", start, duration)


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (None, "missing", "no such file.* data_root"),
        (b"this is no audio " * 99, "undecodable", "[Ff]ormat.* Re-encode"),
        (b"", "empty", "0 bytes.* Replace it"),
    ],
)
def test_what_is_no_audio(tmp_path, content, reason, message):
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=f"a.wav: {reason} .{message}") as error:
        read_audio(path)
    assert (error.value.reason, error.value.path) == (reason, str(path))
    assert check_audio(path).reason == reason


def test_no_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 1)), 24000)
    assert check_audio(tmp_path / "a.wav").reason == "empty"
    with pytest.raises(AudioError, match="empty .no samples"):
        read_audio(tmp_path / "a.wav")


def test_truncated_flac(tmp_path):
    path = truncate(write(tmp_path / "a.flac", 24000, 4.0))
    assert len(read_audio(path, start=0.0, duration=1.0)) == 24000
    with pytest.raises(AudioError, match="a.flac: truncated .* Copy or download"):
        read_audio(path, start=3.0, duration=0.5)
    with pytest.raises(AudioError) as error:
        read_audio(path)
    assert error.value.reason == "truncated"
    assert check_audio(path).reason == "truncated"


@pytest.mark.parametrize(
    "extension", ["wav", "ogg", "mp3", "aiff", "au", "w64", "rf64"]
)
def test_truncation_that_libsndfile_hides(tmp_path, extension):
    path = write(tmp_path / f"a.{extension}", 44100, 4.0)
    assert check_audio(path).reason is None
    check = check_audio(truncate(path))
    assert check.reason == "truncated" and check.detail
    for window in ({}, {"duration": 0.5}):
        with pytest.raises(AudioError) as error:
            read_audio(path, **window)
        assert (error.value.reason, error.value.detail) == (check.reason, check.detail)
    with pytest.raises(AudioError):
        audio_info(path)


@pytest.mark.parametrize(
    ("extension", "place", "skipped", "form", "stated", "reason"),
    [
        # A program that writes to a pipe cannot know the size: it writes the largest.
        ("wav", b"data", 4, "<I", 0xFFFFFFFF, None),
        ("wav", b"data", 4, "<I", 0xFFFFFFFF - 44, None),
        ("wav", b"data", 4, "<I", 0x7FFFF000 - 36, None),
        ("wav", b"data", 4, "<I", 0x80000000, None),
        ("aiff", b"SSND", 4, ">I", 0x7F000008, None),
        ("w64", b"riff", 16, "<q", -1, None),
        # Hours of which the rest was lost.
        ("wav", b"data", 4, "<I", 3_000_000_000, "truncated"),
        ("wav", b"data", 4, "<I", 4_200_000_000, "truncated"),
        ("aiff", b"SSND", 4, ">I", 3_000_000_000, "truncated"),
        ("w64", b"riff", 16, "<q", 3_000_000_000, "truncated"),
        ("w64", b"riff", 16, "<q", 20_000_000_000, "truncated"),
        ("rf64", b"ds64", 24, "<Q", 20_000_000_000, "truncated"),
    ],
)
def test_sizes_that_no_file_has(
    tmp_path, extension, place, skipped, form, stated, reason
):
    path = write(tmp_path / f"a.{extension}", 24000, 1.0)
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, content.index(place) + skipped, stated)
    path.write_bytes(content)
    assert check_audio(path).reason == reason
    if reason is None:
        assert read_audio(path).shape == (24000,)


def test_flac_without_length(tmp_path):
    path = write(tmp_path / "a.flac", 24000, 1.0)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # The 36 bits of STREAMINFO that count the samples.
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(AudioError, match="undecodable .the header states no length"):
        read_audio(path)


def test_non_finite(tmp_path):
    wav = tone(24000, 1.0, channels=2)
    wav[12000, 1] = np.nan
    soundfile.write(tmp_path / "a.wav", wav, 24000, subtype="FLOAT")
    assert check_audio(tmp_path / "a.wav").reason == "non-finite"
    assert len(read_audio(tmp_path / "a.wav", duration=0.5)) == 12000
    with pytest.raises(
        AudioError, match=r"non-finite .NaN or infinite at 0\.5000 s"
    ) as error:
        read_audio(tmp_path / "a.wav", start=0.25, duration=0.5)
    assert error.value.reason == "non-finite"


@pytest.mark.parametrize(
    "scale, seconds, reason, detail",
    [
        (1.0, 0.0, None, ""),
        (16.0, 0.0, None, ""),  # a hot mix in floating point
        (32768.0, 0.0, "out of range", r"a sample of 8.* at 0\..* s, beyond 32"),
        (1.0, 2.75, "out of range", r"a sample of 1e\+25 at 2\.7500 s, beyond 32"),
        (1.0, -2.75, "out of range", r"a sample of -1e\+25 at 2\.7500 s, beyond 32"),
    ],
)
@pytest.mark.parametrize("rate", [24000, 44100])
def test_amplitudes(tmp_path, rate, scale, seconds, reason, detail):
    assert MAX_AMPLITUDE == finite.MAX_AMPLITUDE
    wav = tone(rate, 4.0)[:, 0] * scale
    if seconds:
        wav[round(abs(seconds) * rate)] = math.copysign(1e25, seconds)
    path = tmp_path / "a.wav"
    soundfile.write(path, wav, rate, subtype="FLOAT")
    check = check_audio(path)
    assert check.reason == reason and re.search(detail, check.detail)
    if reason is None:
        assert read_audio(path).abs().max() == pytest.approx(check.peak, rel=0.1)
    else:
        with pytest.raises(AudioError, match=f"a.wav: out of range .{detail}.*32768"):
            read_audio(path, start=0.0, duration=3.0)
    if seconds:
        assert len(read_audio(path, start=3.0)) == 24000


def test_resampling_does_not_leave_the_range(tmp_path):
    """No model would take it, and none could say which file it was."""
    square = np.repeat([31.9, -31.9] * 200, 50)  # its edges overshoot
    soundfile.write(tmp_path / "a.wav", square, 44100, subtype="FLOAT")
    assert len(read_audio(tmp_path / "a.wav", sample_rate=44100)) == 20000
    with pytest.raises(AudioError, match=r"a.wav: out of range .* once resampled"):
        read_audio(tmp_path / "a.wav")


def test_peak_is_of_the_downmix(tmp_path):
    wav = tone(24000, 0.5)
    nearly = np.concatenate([wav, -0.9 * wav], axis=1)
    soundfile.write(tmp_path / "a.wav", nearly, 24000, subtype="FLOAT")
    check = check_audio(tmp_path / "a.wav")
    assert check.reason is None
    assert check.peak == pytest.approx(0.05 * np.abs(wav).max(), rel=1e-4)


def test_channels_that_cancel(tmp_path):
    wav = tone(24000, 0.5)
    opposite = np.concatenate([wav, -wav], axis=1)
    soundfile.write(tmp_path / "a.wav", opposite, 24000, subtype="FLOAT")
    assert check_audio(tmp_path / "a.wav").reason == "cancelling"
    words = "cancelling .the channels cancel: each peaks at -10.* Invert one channel"
    with pytest.raises(AudioError, match=words):
        read_audio(tmp_path / "a.wav")
    long = np.zeros((40 * 8000, 2))
    long[-20000:-10000] = [0.5, -0.5]
    soundfile.write(tmp_path / "long.wav", long, 8000)
    with pytest.raises(AudioError, match="long.wav: cancelling"):
        list(read_blocks(tmp_path / "long.wav", 24000))
    silence = np.zeros((12000, 2))
    soundfile.write(tmp_path / "b.wav", silence, 24000)
    assert check_audio(tmp_path / "b.wav").reason is None  # the scan judges it
    assert sum(map(len, read_blocks(tmp_path / "b.wav", 24000))) == 12000


def test_file_name_that_is_not_utf8(tmp_path):
    write(tmp_path / "a.wav", 24000, 0.5)
    path = str(tmp_path / "caf\udce9.wav")
    try:
        (tmp_path / "a.wav").rename(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert read_audio(path).shape == (12000,)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(soundfile.LibsndfileError(2), "unreadable"), (MemoryError(), "too large")],
)
def test_a_disk_or_memory_that_fails_is_no_fault_of_the_file(
    tmp_path, monkeypatch, error, reason
):
    path = write(tmp_path / "a.wav", 24000, 0.5)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    assert check_audio(path).reason == reason and may_pass(reason)
    with pytest.raises(AudioError, match=f"a.wav: {reason}"):
        read_audio(path)


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(AudioError("a.wav", "silent", "-90 dBFS")))
    assert (error.path, error.reason, error.detail) == ("a.wav", "silent", "-90 dBFS")
