"""The Encoder contract, for every encoder: shapes, padding, modes, gradients."""

import copy

import pytest
import torch
import torch.nn.functional as F

from muq_plugins.lobes.lengths import absolute_lengths
from muq_plugins.lobes.parts import build, describe
from tests.unit.tiny_encoders import TINY, tiny_encoder

RATES = dict.fromkeys(TINY, 25.0) | {
    "HuBERT": 50.0,
    "wav2vec2": 50.0,
    "WavLM": 50.0,
    "interpolated": 40.0,
}


@pytest.fixture(scope="module", params=TINY)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def encoder(name):
    encoder = tiny_encoder(name).train()
    torch.manual_seed(1)
    encoder(torch.randn(4, 12000))  # statistics that are not 0 and 1, where there are
    return encoder.eval()


def test_the_attributes_tell_what_comes_out(encoder, name):
    out = encoder(torch.randn(2, 24000))
    assert encoder.sample_rate == 24000
    assert encoder.frame_rate == RATES[name]
    shape = (2, int(encoder.frame_rate), encoder.width)
    assert [state.shape for state in out.hidden_states] == [shape] * 3
    assert encoder.num_layers == 2
    assert torch.equal(out.hidden_states[-1], out.last_hidden_state)
    assert torch.equal(out.lens, torch.ones(2))
    assert out.last_hidden_state.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("samples", [24000, 30000, 31337])
def test_a_clip_alone_equals_the_clip_in_a_padded_batch(encoder, samples):
    clip = torch.randn(samples)
    batch = torch.randn(3, 48000)
    batch[1, :samples] = clip
    alone = encoder(clip[None])
    padded = encoder(batch, torch.tensor([1.0, samples / 48000, 0.9]))
    frames = alone.last_hidden_state.shape[1]
    size = padded.last_hidden_state.shape[1]
    assert absolute_lengths(padded.lens, size, 3)[1] == frames
    for expected, found in zip(alone.hidden_states, padded.hidden_states, strict=True):
        torch.testing.assert_close(found[1, :frames], expected[0], rtol=0, atol=1e-4)
        assert found[1, frames:].abs().max() == 0
    first = encoder(batch[:1]).last_hidden_state
    torch.testing.assert_close(padded.last_hidden_state[:1], first, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_frame_hears_its_own_time(encoder):
    """Something that happens at one moment changes the front end there most."""
    wavs = torch.randn(1, 48000)
    other = wavs.clone()
    other[:, 28560:29520] = torch.randn(960)  # around 1.21 s
    first, second = (encoder(clip).hidden_states[0] for clip in (wavs, other))
    where = (first - second).abs().sum(-1).argmax()
    assert abs((float(where) + 0.5) / encoder.frame_rate - 1.21) < 0.1


@torch.no_grad()
def test_the_shortest_clip(encoder):
    out = encoder(torch.randn(1, encoder.min_samples))
    assert out.last_hidden_state.shape[1] >= 1
    assert torch.isfinite(out.last_hidden_state).all()


def test_an_encoder_of_nothing_is_refused(encoder):
    description = describe(encoder)
    arguments = description["arguments"]
    if "width" not in arguments:
        pytest.skip("its sizes are those of another model")
    for size in ("width", "num_layers", "num_heads"):
        with pytest.raises(ValueError, match=f"^{size} must be at least 1, got 0"):
            build({**description, "arguments": {**arguments, size: 0}})


def test_silence_is_no_problem(encoder):
    out = encoder(torch.zeros(2, 24000), torch.tensor([1.0, 0.5]))
    assert all(torch.isfinite(state).all() for state in out.hidden_states)


def test_a_parameter_that_is_trained_gets_a_gradient(name):
    encoder = tiny_encoder(name).train()
    lens = torch.tensor([1.0, 0.7])
    encoder(torch.randn(2, 24000), lens).last_hidden_state.square().sum().backward()
    trained = [(n, p) for n, p in encoder.named_parameters() if p.requires_grad]
    assert trained
    assert [n for n, p in trained if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for _, p in trained)


def test_padding_does_not_matter_in_training_either(name):
    """What is learned of clips is the same, however far the batch is padded."""
    encoder, wavs, learned = tiny_encoder(name).train(), torch.randn(2, 24000), []
    for part in encoder.modules():
        if hasattr(part, "p"):
            part.p = 0.0
        if hasattr(part, "dropout") and not callable(part.dropout):
            part.dropout = 0.0
    for samples in (24000, 40000):
        again = copy.deepcopy(encoder)
        batch = F.pad(wavs, (0, samples - 24000))
        out = again(batch, torch.tensor([24000, 12000]) / samples)
        states = [state[:, :24] for state in out.hidden_states]
        sum(state.square().sum() for state in states).backward()
        grads = [p.grad for p in again.parameters() if p.grad is not None]
        learned.append([*states, *grads, *again.buffers()])
    for found, expected in zip(*learned, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_training_and_evaluation(name):
    """Evaluation is deterministic and leaves the random state alone; dropout trains."""
    encoder = tiny_encoder(name)
    wavs = torch.randn(2, 12000)
    encoder.eval()
    state = torch.get_rng_state()
    first, second = (encoder(wavs).last_hidden_state for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    encoder.train()
    first, second = (encoder(wavs).last_hidden_state for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(2)
    first = encoder(wavs).hidden_states
    torch.manual_seed(2)
    second = encoder(wavs).hidden_states
    assert len(first) == encoder.num_layers + 1
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_description_builds_the_same_encoder(encoder):
    again = build(describe(encoder)).eval()
    assert again.config == encoder.config
    wavs = torch.randn(1, 24000)
    with torch.no_grad():
        assert not torch.equal(
            again(wavs).last_hidden_state, encoder(wavs).last_hidden_state
        )
        again.load_state_dict(encoder.state_dict())
        assert torch.equal(
            again(wavs).last_hidden_state, encoder(wavs).last_hidden_state
        )


def test_the_seed_decides_the_weights(name):
    first, second = tiny_encoder(name), tiny_encoder(name)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_half_precision_around_it(encoder):
    wavs, lens = torch.randn(2, 24000), torch.tensor([1.0, 0.6])
    with torch.no_grad():
        expected = encoder(wavs, lens)
        with torch.autocast("cpu", torch.bfloat16):
            found = encoder(wavs, lens)
    difference = (expected.last_hidden_state - found.last_hidden_state.float()).abs()
    assert difference.mean() < 0.1 * expected.last_hidden_state.abs().mean()
