"""What is not finite, or not of the scale of audio, never looks like music."""

import pytest
import torch
from torch import nn
from transformers import EncodecConfig, EncodecModel

from muq_plugins.inference.folders import (
    load_strictly,
    load_weights,
    pretrainer_hook,
    read_tensors,
    save_folder,
)
from muq_plugins.inference.muq import MuQ, save_muq
from muq_plugins.inference.pretrained_muq import PretrainedMuQ
from muq_plugins.lobes import (
    LogMel,
    Mfcc,
    MuQEncoder,
    ResidualVQ,
    SpeechBrainConformer,
    StackedFrames,
    Target,
    WaveformTransformer,
)
from muq_plugins.lobes.encodec import EncodecFeatures
from muq_plugins.lobes.finite import check_wavs, is_finite, not_finite
from muq_plugins.lobes.stages import TokenizerTraining

SIZES = {"num_layers": 1, "num_heads": 4, "ffn_width": 64}
NAN, INF = float("nan"), float("inf")


def make_encoder():
    torch.manual_seed(0)
    return MuQEncoder(32, conv_channels=4, **SIZES).eval()


def make_target():
    return Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 16, 8))


HEARERS = {
    "MuQEncoder": make_encoder,
    "SpeechBrainConformer": lambda: SpeechBrainConformer(
        32, conv_channels=4, **SIZES
    ).eval(),
    "WaveformTransformer": lambda: WaveformTransformer(32, **SIZES).eval(),
    "EncodecFeatures": lambda: EncodecFeatures(None),
    "Mfcc": Mfcc,
    "Target": make_target,
    "TokenizerTraining": lambda: (
        TokenizerTraining(StackedFrames(LogMel()), ResidualVQ(512, 2, 16, 8)).own_frames
    ),
}


@pytest.mark.parametrize("name", HEARERS)
def test_every_part_that_hears_refuses_one_bad_sample(name):
    wavs = torch.randn(2, 24000) * 0.1
    hear = HEARERS[name]()
    for value in (NAN, INF, -INF, 1e25, -14477.0):
        wavs[1, 12000] = value
        with pytest.raises(ValueError, match=r"Sample 12000 of clip 1 .* by 32768"):
            hear(wavs, torch.ones(2))
    wavs[1, 12000] = 0
    hear(wavs, torch.ones(2))


@pytest.mark.parametrize(
    "dtype, remedy",
    [
        (torch.int16, r"wavs.float\(\) / 32768"),
        (torch.int32, r"wavs.double\(\) / 2\*\*31"),
        (torch.uint8, r"\(wavs.float\(\) - 128\) / 128"),
        (torch.int64, "real floating point"),
        (torch.complex64, "real floating point"),
        (torch.bool, "real floating point"),
    ],
)
def test_other_kinds_of_numbers_are_refused_with_the_remedy(tmp_path, dtype, remedy):
    wavs = torch.zeros(1, 24000).to(dtype)
    model = MuQ.from_pretrained(save_muq(tmp_path, make_encoder()))
    for hear in (model, make_target(), PretrainedMuQ(tmp_path)):
        with pytest.raises(ValueError, match=f"{dtype}: give {remedy}"):
            hear(wavs)


def test_what_is_loud_or_beyond_the_end_passes():
    wavs = torch.randn(2, 24000)
    wavs[0, 5] = -32.0  # louder than any music, not as loud as integers
    wavs[1, 12000:] = NAN
    encoder, lens = make_encoder(), torch.tensor([1.0, 0.5])
    out = encoder(wavs, lens).last_hidden_state
    clean = torch.where(wavs.isnan(), 0, wavs)
    assert torch.equal(out, encoder(clean, lens).last_hidden_state)
    with pytest.raises(ValueError, match="Sample 12000 of clip 1"):
        encoder(wavs)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        check_wavs(wavs.to(dtype), lens)


def test_resampled_audio_is_refused_at_its_own_place(tmp_path):
    lobe = PretrainedMuQ(save_muq(tmp_path, make_encoder()), input_sample_rate=16000)
    wavs = torch.zeros(1, 16000)
    wavs[0, 777] = NAN
    with pytest.raises(ValueError, match="Sample 777 of clip 0"):
        lobe(wavs)


@pytest.mark.parametrize("name", ["conv1.weight", "bn1.bias", "bn2.running_var"])
def test_the_fused_front_end_hides_no_nan(name):
    encoder = make_encoder()
    encoder.conv.conv[1].state_dict()[name][0] = NAN
    with torch.no_grad():
        out = encoder(torch.randn(1, 24000)).last_hidden_state
        assert out.isnan().any()
        # Of several clips, the good ones stay as they are.
        feats = torch.randn(2, 100, 128)
        feats[0, 50, 3] = NAN
        hidden, _ = make_encoder().conv(feats)
        alone, _ = make_encoder().conv(feats[1:])
    assert hidden[0].isnan().any()
    assert torch.equal(hidden[1:], alone)


def test_models_give_no_hidden_states_that_are_not_finite(tmp_path):
    model = MuQ.from_pretrained(save_muq(tmp_path, make_encoder()))
    model.mods.encoder.conformer.layers[0].ffn1.output_dense.weight.data[0, 0] = NAN
    with pytest.raises(ValueError, match="MuQEncoder computes NaN or infinite values"):
        model(torch.randn(1, 24000))
    target = make_target()
    target.features.features.mean.fill_(NAN)
    with pytest.raises(ValueError, match="StackedFrames computes NaN"):
        target(torch.randn(1, 24000))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path, value):
    module = nn.Linear(3, 2)
    save_folder(tmp_path / "good", module.state_dict(), {})
    before = (tmp_path / "good" / "model.safetensors").read_bytes()
    module.weight.data[1, 2] = value
    with pytest.raises(ValueError, match="good: values of weight are NaN or infinite"):
        save_folder(tmp_path / "good", module.state_dict(), {})
    assert (tmp_path / "good" / "model.safetensors").read_bytes() == before

    from safetensors.torch import save_file

    path = tmp_path / "good" / "model.safetensors"
    save_file(module.state_dict(), path)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    for load in (
        lambda: load_weights(module, tmp_path / "good"),
        lambda: pretrainer_hook(module, path),
        lambda: load_strictly(module, read_tensors(tmp_path / "weights.pt"), "x"),
    ):
        with pytest.raises(ValueError, match="values of weight are NaN or infinite"):
            load()


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool])
def test_weights_of_another_kind_are_refused(dtype):
    state = {"weight": torch.ones(1, 2, dtype=dtype)}
    with pytest.raises(ValueError, match=f"weight: {dtype}, expected torch.float32"):
        load_strictly(nn.Linear(2, 1, bias=False), state, "x")
    norm = nn.BatchNorm1d(2)
    load_strictly(norm, {name: t.half() for name, t in norm.state_dict().items()}, "x")


def test_finite():
    fine = {
        "empty": torch.zeros(0),
        "largest": torch.tensor([-3.4e38, 3.4e38]),
        "whole": torch.tensor([2**62]),
        "eight": torch.ones(3).to(torch.float8_e4m3fn),
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    assert not_finite(fine) == []
    assert not is_finite(torch.tensor([1.0, NAN]).to(torch.float8_e4m3fn))
    assert not is_finite(torch.tensor([1.0, complex(0, INF)]))
    assert not_finite(fine | {"a.weight": torch.tensor([INF])}) == ["a.weight"]


def test_a_counter_may_outgrow_half_precision(tmp_path):
    norm = nn.BatchNorm1d(2)
    norm.num_batches_tracked += 400_000
    torch.save({k: t.half() for k, t in norm.state_dict().items()}, tmp_path / "a.pt")
    load_strictly(norm, read_tensors(tmp_path / "a.pt"), "a.pt")


def test_models_of_transformers_with_nan_are_refused(tmp_path):
    config = EncodecConfig(num_filters=2, num_lstm_layers=1, upsampling_ratios=[8, 5])
    model = EncodecModel(config)
    name, weights = next(iter(model.encoder.named_parameters()))
    weights.data.view(-1)[0] = NAN
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}: values of encoder.* are NaN"):
        EncodecFeatures(str(tmp_path))
