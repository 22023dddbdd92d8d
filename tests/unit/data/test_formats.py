"""Files of all formats are heard from their first sample to their last, or refused."""

import os
import struct

import av
import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.data import audio, decoders
from muq_plugins.data.audio import AudioError, audio_info, check_audio, read_audio
from tests.unit.data import recordings

RATE = 44100
LOSSLESS = (".m4b", ".wv", ".tta")
# Frames that a raw stream or its decoder puts before the music; no header tells.
BEFORE = {".aac": 1024, ".mp2": 481, ".ac3": 256, ".wma": -2048}
if int(av.__version__.split(".")[0]) < 17:  # that of FFmpeg 8.0 tells it to nobody
    BEFORE[".mka"] = 1024


def music(seconds, rate=RATE, channels=1):
    """A rising tone under noise: no two places of it are alike."""
    time = np.arange(round(seconds * rate)) / rate
    wav = 0.3 * np.sin(2 * np.pi * (200 + 40 * time) * time)
    noise = np.random.default_rng(0).standard_normal((len(time), channels))
    return wav[:, None] + 0.02 * noise


def mp3(path, parts):
    """An mp3 of variable bit rate, without the header that tells its length."""
    contents = []
    for wav in parts:
        rate = 160000 if wav.any() else 32000
        recordings.encode(path, wav, RATE, "mp3", "libmp3lame", bit_rate=rate)
        content = path.read_bytes()
        start = content.index(b"\xff\xfb")  # the first frame is that header
        contents.append(content[content.index(b"\xff\xfb", start + 100) :])
    path.write_bytes(b"".join(contents))
    return path


def reason(path, **window):
    """Why all readers refuse a file alike; None if they read it."""
    found = []
    for read in (audio_info, lambda path: read_audio(path, **window)):
        try:
            read(path)
            found.append(None)
        except AudioError as error:
            found.append(error.reason)
    check = check_audio(path)
    assert found[0] == found[1] == check.reason
    return check.reason


@pytest.mark.parametrize("extension", recordings.FORMATS)
def test_a_window_is_the_same_samples_however_it_is_reached(
    tmp_path, extension, monkeypatch
):
    monkeypatch.setattr(decoders, "_SEGMENT_SECONDS", 1.0)
    container, codec = recordings.FORMATS[extension]
    rate = 48000 if codec == "libopus" else RATE
    wav = music(3.6, rate, 2)
    path = recordings.encode(tmp_path / f"a{extension}", wav, rate, container, codec)
    whole = read_audio(path, sample_rate=rate)
    assert check_audio(path).num_samples == len(whole)
    if extension != ".mp2":  # whose length libsndfile guesses, to a frame
        assert audio_info(path).num_samples == len(whole)
    for start in (0.0, 0.9, 1.0, 2.05, 3.1):
        window = read_audio(path, start, 0.4, rate)
        first = round(start * rate)
        assert torch.equal(window, whole[first : first + len(window)])
    # As decoded from beginning to end, and where the music is: no decoder's delay.
    with av.open(str(path)) as file:
        frames = [
            decoders._samples(f, decoders.Ffmpeg(path).index)
            for f in file.decode(audio=0)
        ]
    plain = torch.from_numpy(np.concatenate(frames).mean(1))
    assert len(plain) == len(whole)
    assert (plain - whole).abs().max() < (1e-6 if extension in LOSSLESS else 0.06)
    assert (plain - whole).abs().mean() < (2e-3 if codec == "ac3" else 1e-4)
    before = BEFORE.get(extension, 0)
    expected = torch.from_numpy(wav.mean(1)).float()
    part = slice(rate, 3 * rate)
    found = whole[rate + before : 3 * rate + before]
    error = (found - expected[part]).abs().mean()
    assert error < (2e-3 if extension in LOSSLESS else 0.02)
    if extension in LOSSLESS:
        assert len(whole) == len(wav)


@pytest.mark.parametrize("fast_start", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_an_m4a_that_was_cut_off(tmp_path, fast_start, share):
    path = tmp_path / "a.m4a"
    recordings.encode(path, music(4), RATE, "ipod", "aac", fast_start=fast_start)
    assert reason(path) is None
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    os.utime(path, (share, share))
    assert reason(path) == ("truncated" if fast_start else "undecodable")


def test_a_playlist_is_not_followed(tmp_path):
    """FFmpeg would open what a playlist names, here or in the net."""
    soundfile.write(tmp_path / "secret.wav", music(2), RATE)
    (tmp_path / "a.m4a").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{tmp_path}/secret.wav\n"
    )
    assert reason(tmp_path / "a.m4a") == "undecodable"
    (tmp_path / "b.m4a").write_text(f"ffconcat version 1.0\nfile {tmp_path}/secret.wav")
    assert reason(tmp_path / "b.m4a") == "undecodable"


def test_without_pyav_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = recordings.encode(tmp_path / "a.m4a", music(1), RATE, "ipod", "aac")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(AudioError, match="a.m4a: needs FFmpeg .*pip install av"):
        audio_info(path)


@pytest.mark.parametrize(
    "parts",
    [
        [np.zeros((8 * RATE, 1)), music(4)],  # starts quietly: was "truncated"
        [music(4), np.zeros((8 * RATE, 1))],  # starts loudly: was cut off
    ],
)
def test_an_mp3_of_unknown_length_is_heard_to_its_end(tmp_path, parts):
    path = mp3(tmp_path / "a.mp3", parts)
    with soundfile.SoundFile(path) as file:
        assert abs(file.frames / RATE - 12) > 0.5  # what it is guessed from the start
    assert reason(path) is None
    assert len(read_audio(path)) / 24000 == pytest.approx(12, abs=0.15)
    # the boundary between music and silence is where it was
    before, after = read_audio(path, 3.5, 0.4), read_audio(path, 8.1, 0.4)
    silent_first = not parts[0].any()
    assert (before.abs().max() < 0.01) == silent_first
    assert (after.abs().max() < 0.01) == (not silent_first)


def test_joined_mp3_files_are_heard_to_the_end(tmp_path):
    """The first one's header knows nothing of the others."""
    path = tmp_path / "a.mp3"
    recordings.encode(path, music(8), RATE, "mp3", "libmp3lame")
    content = path.read_bytes()
    (tmp_path / "b.mp3").write_bytes(content * 3)
    assert reason(tmp_path / "b.mp3") is None
    seconds = len(read_audio(tmp_path / "b.mp3")) / 24000
    assert seconds == pytest.approx(24, abs=0.3)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_a_wav_with_a_size_of_0_and_all_its_music(tmp_path, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, music(1, channels=2), RATE, subtype=subtype)
    expected = read_audio(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[4:8] = content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    assert reason(path) is None
    assert torch.equal(read_audio(path), expected)
    assert torch.equal(read_audio(path, 0.5, 0.25), expected[12000:18000])


def test_an_empty_wav_with_tags_is_empty(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((0, 1)), RATE)
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert reason(path) == "empty"


def test_a_wav_whose_size_has_wrapped(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, music(1), 24000)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    size = (1 << 32) + 48000 * 100
    content[at : at + 4] = struct.pack("<I", size % (1 << 32))
    path.write_bytes(content)
    os.truncate(path, at + 4 + size)  # a hole: it takes no space
    assert audio_info(path).num_samples == size // 2
    end = size / 48000
    assert read_audio(path, end - 1).shape == (24000,)
    assert read_audio(path, 0, 1).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS"])
def test_an_ogg_with_a_hole(tmp_path, kind):
    path = tmp_path / "a.ogg"
    soundfile.write(path, music(12, 48000), 48000, format="OGG", subtype=kind)
    assert reason(path) is None
    content = path.read_bytes()
    pages = [at for at in range(len(content)) if content[at : at + 4] == b"OggS"]
    assert len(pages) > 5
    inside = pages[3] + 200
    for number, damaged in enumerate(
        (
            content[: pages[3]] + content[pages[4] :],  # a page is missing
            content[:inside] + bytes(64) + content[inside + 64 :],
            content[:inside] + content[inside + 999 :],
        )
    ):
        path.write_bytes(damaged)
        os.utime(path, (number, number))
        assert reason(path, duration=0.5) == "damaged"
    path.write_bytes(content + b"TAG" + bytes(125))
    assert reason(path) is None


def test_a_chain_of_ogg_streams_is_not_half_heard(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, music(1), RATE)
    first = path.read_bytes()
    soundfile.write(path, music(2), RATE)
    path.write_bytes(first + path.read_bytes())
    heard = audio_info(path).duration if reason(path) is None else 3
    assert heard == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("subtype", ["GSM610", "IMA_ADPCM", "MS_ADPCM", "G721_32"])
def test_a_wav_that_cannot_seek_is_read(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", music(3, 8000), 8000, subtype=subtype)
    assert reason(tmp_path / "a.wav") is None
    whole = read_audio(tmp_path / "a.wav", sample_rate=8000)
    window = read_audio(tmp_path / "a.wav", 1.0, 0.5, 8000)
    assert (window - whole[8000:12000]).abs().max() < 1e-6


@pytest.mark.parametrize("rate", [1, 11, 24, 1000, 3999, 768001, 9999991])
def test_rates_that_no_music_has(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.full(4000, 0.5), rate)
    assert reason(tmp_path / "a.wav") == "implausible"


@pytest.mark.parametrize("rate", [4000, 767957])
def test_the_least_and_the_most_of_rates(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.full(rate // 4, 0.5), rate)
    assert reason(tmp_path / "a.wav") is None
    assert abs(len(read_audio(tmp_path / "a.wav")) - 6000) <= 1


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44101, 48000, 96000, 99991])
def test_the_ratio_of_usual_rates_is_exact_to_a_millionth(rate):
    numerator, denominator = audio._reduced_rates(rate, 24000)
    assert abs(numerator / denominator / (rate / 24000) - 1) < 1e-6


def test_a_header_that_claims_more_than_there_can_be(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, music(1), RATE)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the 36 bits of STREAMINFO that count the samples
    content[22:26] = b"\xff\xff\xff\xf0"
    path.write_bytes(content)
    assert reason(path) == "implausible"


@pytest.mark.parametrize(
    "content, words",
    [
        (b"<!DOCTYPE html><html>404</html>" * 99, "it is a web page"),
        (b'{"error": "not found"}', r"it is a text .JSON"),
        (b"%PDF-1.7" + bytes(99), "it is a PDF"),
        (bytes(4096), "it is zeros only"),
        (b"no music " * 99, "unknown format|Format not recognised"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "it is a pointer of Git LFS: run `git lfs pull`",
        ),
    ],
)
@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.m4a"])
def test_what_is_no_audio_is_called_what_it_is(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=f"{name}: undecodable .({words})"):
        read_audio(tmp_path / name)
