"""The audio tower: latents of clips alone, and what learns."""

import pytest
import torch

from muq_plugins.lobes import AudioTower
from tests.unit.lobes.mulan.parts import learned, tiny_audio_tower
from tests.unit.tiny_encoders import tiny_encoder


@pytest.fixture(autouse=True)
def same_numbers():
    """The same clips every time."""
    torch.manual_seed(7)


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("training", [False, True])
def test_a_latent_does_not_depend_on_batch_mates_or_padding(layers, training):
    tower = tiny_audio_tower(num_layers=layers).train(training)
    clip = torch.randn(14400)
    batch = torch.randn(3, 24000)
    batch[1, :14400] = clip
    alone = tower(clip[None])
    padded = tower(batch, torch.tensor([1.0, 0.6, 0.9]))
    torch.testing.assert_close(padded[1], alone[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(padded.norm(dim=1), torch.ones(3))
    assert (tower(batch)[1] - alone[0]).abs().max() > 1e-3


def test_latents_are_means_over_frames_of_the_chosen_layer():
    tower = tiny_audio_tower(layer=1, width=24).eval()
    wavs = torch.randn(2, 24000)
    hidden = tower.encoder(wavs).hidden_states[1]
    mean = tower.projection(hidden).mean(1)
    expected = tower.to_latents.linear(mean)
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(tower(wavs), expected, rtol=0, atol=1e-6)
    last = tiny_audio_tower(layer=-1, width=24).eval()
    last.load_state_dict(tower.state_dict())
    assert (last(wavs) - expected).abs().max() > 1e-3


def test_running_statistics_are_used_and_kept_in_training():
    tower = tiny_audio_tower()
    before = {n: b.clone() for n, b in tower.named_buffers() if "running" in n}
    assert len(before) > 4
    torch.nn.ModuleDict({"tower": tower}).train()
    wavs = torch.randn(4, 12000)
    trained = tower(wavs)
    trained.sum().backward()
    for name, buffer in tower.named_buffers():
        if name in before:
            assert torch.equal(buffer, before[name])
    torch.testing.assert_close(trained, tower.eval()(wavs), rtol=0, atol=1e-6)
    gains = [g for n, g in learned(tower).items() if "bn1.weight" in n]
    assert gains and any(g.abs().max() > 0 for g in gains)


def test_frozen_means_frozen():
    tower = tiny_audio_tower(dropout=0.5, trainable=False)
    tower.train()
    assert tower.training and tower.to_latents.training
    assert not any(part.training for part in tower.encoder.modules())
    wavs = torch.randn(2, 12000)
    assert torch.equal(tower(wavs), tower(wavs))
    tower(wavs)[:, 0].sum().backward()
    assert all(p.grad is None for p in tower.encoder.parameters())
    assert set(learned(tower)) == {
        "projection.weight",
        "projection.bias",
        "to_latents.linear.weight",
        "to_latents.linear.bias",
    }
    assert all(grad is not None for grad in learned(tower).values())


def test_everything_learns_by_default():
    tower = tiny_audio_tower(dropout=0.5).train()
    wavs = torch.randn(2, 12000)
    assert not torch.equal(tower(wavs), tower(wavs))  # dropout is on
    tower(wavs)[:, 0].sum().backward()
    assert all(grad is not None for grad in learned(tower).values())


def test_an_encoder_that_comes_frozen_learns_unless_it_should_not():
    """`MuQ.from_pretrained` gives encoders so."""
    for trainable in (True, False):
        encoder = tiny_audio_tower().encoder.requires_grad_(False)
        tower = AudioTower(encoder, latent_width=16, trainable=trainable)
        assert all(p.requires_grad == trainable for p in encoder.parameters())
    encoder.conformer.requires_grad_()
    AudioTower(encoder, latent_width=16)  # what is frozen in part stays so
    assert not any(p.requires_grad for p in encoder.conv.parameters())
    assert all(p.requires_grad for p in tower.projection.parameters())


@pytest.mark.parametrize("name", ["WaveformTransformer", "interpolated", "HuBERT"])
def test_other_encoders_fit(name):
    tower = AudioTower(tiny_encoder(name), latent_width=8).eval()
    assert tower.frame_rate == tower.encoder.frame_rate
    clip, batch = torch.randn(14400), torch.randn(2, 24000)
    batch[1, :14400] = clip
    padded = tower(batch, torch.tensor([1.0, 0.6]))
    torch.testing.assert_close(padded[1], tower(clip[None])[0], rtol=0, atol=1e-4)


def test_latents_stay_fine_under_autocast():
    tower = tiny_audio_tower().eval()
    wavs = torch.randn(2, 12000)
    with torch.autocast("cpu", torch.bfloat16):
        latents = tower(wavs)
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents.norm(dim=1), torch.ones(2))
    assert (latents * tower(wavs)).sum(1).min() > 0.99


def test_the_tower_says_what_it_is():
    tower = tiny_audio_tower(num_layers=1)
    assert tower.sample_rate == 24000 and tower.frame_rate == 25.0
    again = AudioTower(tower.encoder, **tower.config)
    again.load_state_dict(tower.state_dict())
    wavs = torch.randn(1, 12000)
    assert torch.equal(again.eval()(wavs), tower.eval()(wavs))


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_is_not_there_is_refused(layer):
    with pytest.raises(ValueError, match=f"layer is {layer}.*MuQEncoder has 2 layers"):
        tiny_audio_tower(layer=layer)
