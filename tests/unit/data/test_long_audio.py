"""Long audio: every frame once, in order, in constant memory."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins import MuQ, MuQEncoder
from muq_plugins.data.audio import AudioError, read_audio
from muq_plugins.data.windows import EDGE_SECONDS, embed_windows, read_blocks
from muq_plugins.inference.muq import save_muq


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    return MuQ.from_pretrained(save_muq(tmp_path_factory.mktemp("m"), encoder))


def identity(wav):
    """Frames of two samples, each described by its first sample."""
    return wav[: len(wav) // 2 * 2].view(-1, 2)[:, :1]


def join(chunks):
    chunks = list(chunks)
    times = torch.cat([chunk.times for chunk in chunks])
    return times, torch.cat([chunk.hidden for chunk in chunks])


@pytest.mark.parametrize("samples", [2, 8, 9, 10, 20, 40, 41, 42, 98, 100, 202])
@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize(("window", "overlap"), [(4, 0), (4, 1), (10, 3), (10, 9)])
@pytest.mark.parametrize("edge", [0, 2, 13])
def test_every_frame_once_and_in_order(samples, block, window, overlap, edge):
    wav = torch.arange(samples, dtype=torch.float32)
    heard = []

    def embed(wav):
        """Frames near an end are wrong, as those of a spectrogram are."""
        found = identity(wav).clone()
        first, last = len(heard) == 0, wav[-1] == samples - 1
        heard.append(len(found))
        found[: 0 if first and wav[0] == 0 else edge * (wav[0] != 0)] = -1
        found[len(found) - (0 if last else edge) :] = -1
        return found

    chunks = embed_windows(embed, wav.split(block), 2, 25.0, window, overlap, edge)
    times, hidden = join(chunks)
    torch.testing.assert_close(hidden, identity(wav))
    assert max(heard) <= window + 2 * edge + (edge > 0)
    torch.testing.assert_close(times, torch.arange(len(hidden)).double() / 25)


def test_windows_fade_linearly():
    answers = iter([torch.zeros(6, 1), torch.ones(6, 1), torch.full((6, 1), 2.0)])
    blocks = torch.zeros(24).split(24)
    _, hidden = join(embed_windows(lambda wav: next(answers), blocks, 2, 25.0, 6, 3))
    expected = [0, 0, 0, 0.25, 0.5, 0.75, 1.25, 1.5, 1.75, 2, 2, 2]
    assert hidden[:, 0].tolist() == expected


def test_short_audio_is_encoded_at_once(model):
    wav = torch.randn(5 * 24000 + 700)
    times, hidden = join(model.embed_long([wav]))
    expected = model(wav[None]).hidden_states[-1][0]
    assert torch.equal(hidden, expected)
    assert times[-1] == (len(expected) - 1) / 25


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_a_window_equals_its_own_encoding(model, layer):
    wav = torch.randn(25 * 24000)
    _, hidden = join(model.embed_long(wav.split(5000), 10.0, 2.0, layer))
    assert hidden.shape == (625, 32)
    edge = round(EDGE_SECONDS * 24000)
    second = wav[None, 8 * 24000 - edge : 18 * 24000 + edge]
    second = model(second).hidden_states[layer][0]
    # Beyond the overlap with the first window, before that with the third.
    torch.testing.assert_close(hidden[250:375], second[60:185])


@pytest.mark.parametrize("overlap", [0.0, 2.0])
def test_the_front_end_is_that_of_one_pass(model, overlap):
    """Also where windows meet: without edges, 0.66 of 2.5 differ there."""
    wav = torch.randn(25 * 24000 + 700)
    expected = model(wav[None]).hidden_states[0][0]
    _, hidden = join(model.embed_long(wav.split(5000), 10.0, overlap, layer=0))
    torch.testing.assert_close(hidden, expected, atol=1e-4, rtol=1e-4)


def test_a_file_is_read_like_the_whole(model, tmp_path):
    path = tmp_path / "a.flac"
    wav = np.random.default_rng(0).normal(0, 0.1, (44100 * 65, 2))
    soundfile.write(path, wav, 44100)

    whole = read_audio(path)
    torch.testing.assert_close(torch.cat(list(read_blocks(path, 24000))), whole)
    of_file = join(model.embed_long(path))[1]
    torch.testing.assert_close(of_file, join(model.embed_long([whole]))[1])


@pytest.mark.parametrize("seconds", [30, 60])
def test_a_file_may_end_with_a_block(tmp_path, seconds):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(8000 * seconds), 8000)
    assert sum(map(len, read_blocks(path, 24000))) == seconds * 24000


def test_bad_requests_and_bad_files(model, tmp_path):
    with pytest.raises(ValueError, match="There is no layer 3: .* 0 .front end. to 2"):
        next(model.embed_long([torch.zeros(24000)], layer=3))
    with pytest.raises(ValueError, match="cannot overlap by 250 frames"):
        next(model.embed_long([torch.zeros(24000)], window=10.0, overlap=10.0))
    with pytest.raises(ValueError, match="blocks .samples,., got one of the shape"):
        next(model.embed_long([torch.zeros(2, 24000)]))
    with pytest.raises(AudioError, match="missing"):
        next(model.embed_long(tmp_path / "nowhere.wav"))


MEMORY = """
import resource, sys, torch
from muq_plugins import MuQ
torch.set_num_threads(1)
model = MuQ.from_pretrained(sys.argv[1])
def minutes(count):
    for second in range(60 * count):
        yield torch.randn(24000)
def peak(count):
    frames = sum(len(chunk.times) for chunk in model.embed_long(minutes(count)))
    assert frames == 1500 * count
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak(2), peak(20))
"""


@pytest.mark.slow
def test_twenty_minutes_need_no_more_memory_than_two(tmp_path):
    encoder = MuQEncoder(8, num_layers=1, num_heads=2, ffn_width=8, conv_channels=1)
    folder = save_muq(tmp_path / "m", encoder)
    command = [sys.executable, "-c", MEMORY, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    short, long = map(int, done.stdout.split())
    # The waveform alone is 115,000.
    assert long - short < 30_000, "kilobytes"
