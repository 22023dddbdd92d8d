"""MuQ in the place of SpeechBrain's wrappers: interface, freezing, rates, LoRA."""

import inspect
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torchaudio.functional import resample
from transformers import Wav2Vec2Config, Wav2Vec2Model

from muq_plugins import MuQ, MuQEncoder
from muq_plugins.inference.muq import save_muq
from muq_plugins.inference.pretrained_muq import PretrainedMuQ, merge_lora
from muq_plugins.lobes.lengths import wav2vec2_frames

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a model whose batch statistics are not those of a new one."""
    torch.manual_seed(0)
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    encoder.train()(torch.randn(4, 12000))
    return save_muq(tmp_path_factory.mktemp("muq") / "inference", encoder)


def train_one_step(lobe, device):
    """One optimizer step, in training mode; returns names of what has changed."""
    before = {name: value.clone() for name, value in lobe.state_dict().items()}
    optimizer = torch.optim.SGD(lobe.parameters(), lr=1.0)
    out = lobe.train()(torch.randn(2, 12000, device=device))
    if out.requires_grad:
        (out * torch.randn_like(out)).mean().backward()
        optimizer.step()
    after = lobe.state_dict()
    return {
        name for name, value in before.items() if not torch.equal(value, after[name])
    }


def test_the_page_explains_every_option():
    page = (ROOT / "docs" / "muq_in_your_recipe.md").read_text(encoding="utf-8")
    options = set(inspect.signature(PretrainedMuQ).parameters)
    options = options - {"wrapper_arguments"} | {"device_map", "dtype"}
    assert not [option for option in options if f"{option}:" not in page]
    shown = re.findall(r"^\| `(\w+):", page, flags=re.MULTILINE)
    assert shown and set(shown) <= options


def test_the_output_is_that_of_the_model(make, source, device):
    wavs, lens = torch.randn(2, 24000, device=device), torch.tensor([1.0, 0.5])
    lens = lens.to(device)
    expected = MuQ.from_pretrained(source, device=device)(wavs, lens)
    last, every = make(freeze=True), make(freeze=True, output_all_hiddens=True)
    assert torch.equal(last(wavs, lens), expected.last_hidden_state)
    assert torch.equal(every(wavs, lens), torch.stack(expected.hidden_states))
    assert every(wavs).shape == (3, 2, 25, 32)
    assert (last.sample_rate, last.frame_rate, last.width) == (24000, 25.0, 32)


def test_a_checkpoint_in_the_official_layout_will_do(make, source, tmp_path, device):
    folder = MuQ.from_pretrained(source).save_pretrained(tmp_path / "official")
    official = PretrainedMuQ(str(folder), str(tmp_path), freeze=True).to(device)
    wavs = torch.randn(1, 12000, device=device)
    assert torch.equal(official(wavs), make(freeze=True)(wavs))


def test_output_norm_is_that_of_speechbrain(make, device):
    wavs = torch.randn(2, 24000, device=device)
    for options in ({}, {"output_all_hiddens": True}):
        plain = make(**options).eval()(wavs)
        normed = make(output_norm=True, **options).eval()(wavs)
        assert torch.equal(normed, F.layer_norm(plain, plain.shape[-2:]))


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("output", ["output_all_hiddens", "output_weighted_sum"])
def test_padding_has_no_influence(make, device, rate, output):
    lobe = make(input_sample_rate=rate, output_norm=True, **{output: True}).eval()
    samples = torch.tensor([2 * rate, 4 * rate // 3 + 1])
    wavs = torch.randn(2, 2 * rate, device=device)  # noise beyond the end as well
    out = lobe(wavs, (samples / (2 * rate)).to(device))
    alone = lobe(wavs[1:, : samples[1]])
    frames = alone.shape[-2]
    torch.testing.assert_close(out[..., 1:, :frames, :], alone, atol=1e-4, rtol=1e-4)
    assert not out[..., 1, frames:, :].any()


def test_input_of_another_rate_is_resampled(make, device):
    wavs = torch.randn(2, 16001, device=device)
    expected = make().eval()(resample(wavs, 16000, 24000))
    out = make(input_sample_rate=16000).eval()(wavs)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_everything_is_trained_by_default(make, device):
    lobe = make(batch_statistics="moving")
    assert all(p.requires_grad for p in lobe.parameters())
    assert all(module.training for module in lobe.modules())
    changed = train_one_step(lobe, device)
    for name in ("conv.linear.weight", "conv.conv.0.bn1.running_mean"):
        assert f"encoder.{name}" in changed
    assert "encoder.conformer.layers.0.conv_module.batch_norm.running_var" in changed


def test_batch_statistics_stay_those_of_the_pretraining(make, device):
    lobe = make()
    assert all(p.requires_grad for p in lobe.parameters())
    wavs = torch.randn(2, 12000, device=device)
    expected = lobe.eval()(wavs)
    before = {name: value.clone() for name, value in lobe.named_buffers()}
    assert any("running_mean" in name for name in before)
    lobe.train()
    lobe.encoder.train()  # no way around it
    for _ in range(20):
        lobe(torch.randn(2, 12000, device=device))
    assert all(torch.equal(value, before[n]) for n, value in lobe.named_buffers())
    assert torch.equal(lobe.eval()(wavs), expected)
    # Everything else is trained, scales and shifts of the batch norms too.
    changed = train_one_step(lobe, device)
    assert changed >= {n for n, _ in lobe.named_parameters() if "batch_norm" in n}
    assert lobe.encoder.conformer.dropout.training
    moving = make(batch_statistics="moving").train()
    for _ in range(20):
        moving(torch.randn(2, 12000, device=device))
    assert not torch.equal(moving.eval()(wavs), expected)


def test_frozen_is_frozen(make, device):
    lobe = make(freeze=True)
    assert not train_one_step(lobe, device)
    assert not any(module.training for module in lobe.encoder.modules())
    wavs = torch.randn(1, 12000, device=device)
    assert torch.equal(lobe.train()(wavs), lobe.eval()(wavs))  # no dropout either
    lobe.encoder.train()
    assert torch.equal(lobe(wavs), lobe.eval()(wavs))
    assert not lobe(wavs.requires_grad_()).requires_grad


def front_end_frozen_by_a_recipe(make):
    lobe = make(batch_statistics="moving")
    lobe.model.feature_extractor._freeze_parameters()
    return lobe


@pytest.mark.parametrize(
    "build",
    [
        lambda make: make(freeze_feature_extractor=True, batch_statistics="moving"),
        front_end_frozen_by_a_recipe,
    ],
)
def test_a_frozen_front_end_is_frozen(make, device, build):
    lobe = build(make)
    changed = train_one_step(lobe, device)
    assert not [name for name in changed if name.startswith("encoder.conv.")]
    batch_norm = "encoder.conformer.layers.0.conv_module.batch_norm."
    assert {batch_norm + "running_mean", batch_norm + "weight"} <= changed
    assert not lobe.encoder.conv.training and lobe.encoder.conformer.training


def test_the_lowest_layers_are_frozen(make, device):
    lobe = make(frozen_layers=1, batch_statistics="moving")
    changed = train_one_step(lobe, device)
    frozen = ("encoder.conv.", "encoder.conformer.layers.0.")
    assert not [name for name in changed if name.startswith(frozen)]
    upper = "encoder.conformer.layers.1.conv_module.batch_norm."
    assert {upper + "running_mean", upper + "bias"} <= changed
    # Nothing random happens below the first layer that is trained.
    lobe.train().output_all_hiddens = True
    wavs = torch.randn(1, 12000, device=device)
    assert torch.equal(lobe(wavs)[:2], lobe(wavs)[:2])
    assert not torch.equal(lobe(wavs)[2], lobe(wavs)[2])
    # All layers may be frozen, which leaves the last normalisation.
    names = [n for n, p in make(frozen_layers=2).named_parameters() if p.requires_grad]
    assert names == [f"encoder.conformer.layer_norm.{n}" for n in ("weight", "bias")]


def test_the_weights_of_the_layers_are_learned_although_the_encoder_is_frozen(
    make, device
):
    lobe = make(freeze=True, output_weighted_sum=True)
    wavs = torch.randn(2, 12000, device=device)
    states = make(output_all_hiddens=True, freeze=True)(wavs)
    torch.testing.assert_close(lobe(wavs), states.mean(0))
    optimizer = torch.optim.Adam(lobe.parameters(), lr=0.3)
    for _ in range(60):
        loss = F.mse_loss(lobe(wavs), states[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert lobe.layer_weights.softmax(0)[1] > 0.9
    assert train_one_step(lobe, device) == {"layer_weights"}


def test_lora_trains_adapters_and_nothing_else(make, device):
    lobe = make(lora={"r": 4, "lora_dropout": 0.5})
    trained = {n: p for n, p in lobe.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == 2 * 2 * (32 * 4 + 4 * 32)
    for _ in range(2):  # the first step reaches B only, because B begins at zero
        changed = train_one_step(lobe, device)
        assert changed and changed <= set(trained)
    assert changed == set(trained)
    # The adapters' own dropout is the only thing that train() switches on.
    wavs = torch.randn(1, 12000, device=device)
    assert not torch.equal(lobe.train()(wavs), lobe(wavs))
    assert torch.equal(lobe.eval()(wavs), lobe(wavs))


def test_an_adapted_encoder_can_be_saved_and_used_elsewhere(make, tmp_path, device):
    lobe = make(lora={"r": 4})
    for _ in range(2):
        train_one_step(lobe, device)
    wavs = torch.randn(1, 12000, device=device)
    expected = lobe.eval()(wavs)
    merge_lora(lobe.encoder)
    model = MuQ.from_pretrained(save_muq(tmp_path / "x", lobe.encoder), device=device)
    out = model(wavs).last_hidden_state
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"apply_spec_augment": True}, "MuQ has no embedding for masked frames"),
        (
            {"output_all_hiddens": True, "output_weighted_sum": True},
            "exclude each other",
        ),
        ({"lora": {"r": 2}, "freeze": True}, "which freeze: True and frozen_layers: 0"),
        ({"lora": {"r": 2}, "frozen_layers": 1}, "layers_to_transform"),
        ({"frozen_layers": 3}, "between 0 and 2, .* got 3"),
        ({"frozen_layers": -1}, "between 0 and 2, .* got -1"),
        ({"input_sample_rate": 0}, "whole number of Hz, 4000 to 768000, got 0"),
        ({"input_sample_rate": 16}, "got 16"),
        ({"input_sample_rate": "16000"}, "got '16000'"),
        ({"input_sample_rate": 22050.5}, "got 22050.5"),
        ({"batch_statistics": "Fixed"}, "fixed .* or moving .*, got 'Fixed'"),
        ({"output_frame_rate": 40}, "25 Hz, .* or 50, 75, 100, .* got 40"),
        ({"output_frame_rate": 12.5}, "got 12.5"),
    ],
)
def test_options_that_make_no_sense_are_errors(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_downloads_go_to_the_save_path(tmp_path, source, monkeypatch):
    asked = {}

    def from_pretrained(source, **options):
        asked.update(source=source, **options)
        return found

    found = MuQ.from_pretrained(source)
    monkeypatch.setattr(MuQ, "from_pretrained", from_pretrained)
    PretrainedMuQ("OpenMuQ/MuQ-large-msd-iter", str(tmp_path))
    assert asked == {
        "source": "OpenMuQ/MuQ-large-msd-iter",
        "device": "cpu",  # it goes where the recipe moves it
        "cache_dir": str(tmp_path),
    }


def test_clips_shorter_than_a_window_are_errors(make, device):
    message = "clip of 1000 samples is too short .* pad_short_clips: True"
    with pytest.raises(ValueError, match=message):
        make()(torch.randn(1, 1000, device=device))
    message = "clip of 999 samples is too short .*clips: True .* resampling from 16000 "
    with pytest.raises(ValueError, match=message):
        make(input_sample_rate=16000)(torch.randn(1, 666, device=device))


@pytest.mark.parametrize(("rate", "samples"), [(24000, 1025), (16000, 684)])
def test_short_clips_are_padded_with_silence(make, device, rate, samples):
    lobe = make(input_sample_rate=rate, pad_short_clips=True).eval()
    wavs = torch.randn(2, rate, device=device)
    short = wavs[1:, :600]
    expected = lobe(F.pad(short, (0, samples - 600)))
    assert expected.shape == (1, 1, 32)
    assert torch.equal(lobe(short), expected)
    # One row of a padded batch, with noise beyond its end.
    out = lobe(wavs, torch.tensor([1.0, 600 / rate], device=device))
    torch.testing.assert_close(out[1:, :1], expected, atol=1e-4, rtol=1e-4)
    assert not out[1:, 1:].any()
    torch.testing.assert_close(out[:1], lobe(wavs[:1]), atol=1e-4, rtol=1e-4)
    # What is long enough is as it was.
    lens = torch.tensor([1.0, 0.5], device=device)
    assert torch.equal(
        lobe(wavs, lens), make(input_sample_rate=rate).eval()(wavs, lens)
    )


def test_frames_are_counted_as_wav2vec2_counts_them():
    config = Wav2Vec2Config(
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_size=16,
        intermediate_size=16,
    )
    theirs = Wav2Vec2Model(config)._get_feat_extract_output_lengths
    for samples in (*range(400, 4000), 16000, 159999, 160000, 999999):
        assert wav2vec2_frames(samples, 16000, 50.0) == int(theirs(samples))
    # The same seconds at other rates, and windows of 1.25 frames at others.
    assert wav2vec2_frames(24000, 24000, 50) == wav2vec2_frames(44100, 44100, 50) == 49
    assert wav2vec2_frames(10 * 24000, 24000, 100) == 999
    # Also where the number of samples is a symbol.
    cut = torch.compile(
        lambda wavs: wavs[:, : wav2vec2_frames(wavs.shape[1], 16000, 50.0)],
        backend="eager",
        dynamic=True,
        fullgraph=True,
    )
    assert cut(torch.zeros(1, 16000)).shape == (1, 49)


@pytest.mark.parametrize("rate", [16000, 24000, 44100])
@pytest.mark.parametrize("output", [{}, {"output_all_hiddens": True}])
def test_frames_are_repeated(make, device, rate, output):
    plain = make(freeze=True, input_sample_rate=rate, output_norm=True, **output)
    for times in (2, 3, 4):
        lobe = make(
            freeze=True,
            input_sample_rate=rate,
            output_norm=True,
            output_frame_rate=25 * times,
            pad_short_clips=True,
            **output,
        )
        assert (lobe.frame_rate, plain.frame_rate) == (25 * times, 25)
        for length in (rate // 20, rate // 2 + 7, rate // 3):
            wavs = torch.randn(2, rate, device=device)
            lens = torch.tensor([1.0, length / rate], device=device)
            want, got = plain(wavs, lens), lobe(wavs, lens)
            frames = wav2vec2_frames(rate, rate, 25 * times)
            own = wav2vec2_frames(length, rate, 25 * times)
            assert got.shape[-2] == frames
            index = torch.arange(frames, device=device) // times
            assert torch.equal(got[..., 0, :, :], want[..., 0, index, :])
            assert torch.equal(got[..., 1, :own, :], want[..., 1, index[:own], :])
            assert not got[..., 1, own:, :].any()
            assert got[..., 1, own - 1, :].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"freeze": True}, {"lora": {"r": 2}}])
def test_the_lobe_runs_in_half_precision(make, device, dtype, options):
    options = {"output_weighted_sum": True, "input_sample_rate": 16000, **options}
    wavs = 0.1 * torch.randn(2, 16000, device=device)
    lens = torch.tensor([1.0, 0.6], device=device)
    expected = make(**options).eval()(wavs, lens)
    halved = make(**options).to(dtype).eval()
    for given in (wavs, wavs.to(dtype)):
        out = halved(given, lens)
        assert out.dtype is dtype
        error = (out.float() - expected).square().mean().sqrt()
        assert error < 0.03 * expected.square().mean().sqrt()
    halved.train()(wavs, lens).float().square().mean().backward()
    assert halved.layer_weights.grad.isfinite().all()
