"""What recipes use of SpeechBrain's wrappers beyond the call, used as they use it."""

import copy
import logging

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.parameter_transfer import Pretrainer

from muq_plugins import MuQ, MuQEncoder, PretrainedMuQ, WeightedMuQ
from muq_plugins.inference.lora import merge_lora
from muq_plugins.inference.muq import save_muq


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a small model."""
    torch.manual_seed(0)
    encoder = MuQEncoder(32, num_layers=3, num_heads=4, ffn_width=64, conv_channels=4)
    return save_muq(tmp_path_factory.mktemp("muq") / "inference", encoder)


# Arguments


def test_a_device_and_a_type_are_honoured(source):
    yaml = f"""
    dtype: !name:torch.bfloat16
    ssl: !new:muq_plugins.PretrainedMuQ
        source: {source}
        save_path: ""
        freeze: True
        device_map: meta
        torch_dtype: !ref <dtype>
        attn_implementation: sdpa
        quantization_config: null
        trust_remote_code: False
    """
    lobe = load_hyperpyyaml(yaml)["ssl"]
    assert {(str(p.device), p.dtype) for p in lobe.parameters()} == {
        ("meta", torch.bfloat16)
    }
    for options in ({"device": "meta"}, {"device_map": {"": "meta"}}):
        assert WeightedMuQ(source, **options).weights.is_meta
    assert PretrainedMuQ(source, dtype="float16").encoder.conv.linear.weight.dtype is (
        torch.float16
    )
    weight = PretrainedMuQ(source, torch_dtype="auto").encoder.conv.linear.weight
    assert weight.dtype is torch.float32


@pytest.mark.parametrize("kind", [PretrainedMuQ, WeightedMuQ])
def test_what_is_learned_beside_the_encoder_stays_in_single_precision(source, kind):
    """In half precision, the small updates of an optimizer are rounded away."""
    options = {} if kind is WeightedMuQ else {"output_weighted_sum": True}
    lobe = kind(source, dtype="bfloat16", lora={"r": 2}, **options)
    learned = {n: p for n, p in lobe.named_parameters() if p.requires_grad}
    assert {p.dtype for p in learned.values()} == {torch.float32} and len(learned) > 8
    others = {p.dtype for n, p in lobe.named_parameters() if n not in learned}
    assert others == {torch.bfloat16}
    lobe.layer_weights.data += 1
    before = lobe.layer_weights.detach().clone()
    optimizer = torch.optim.Adam(learned.values(), lr=1e-3)
    out = lobe(torch.randn(1, 12000))
    assert out.dtype is torch.bfloat16
    out.float()[..., 0].square().mean().backward()
    optimizer.step()
    assert (lobe.layer_weights != before).all()
    merge_lora(lobe.encoder)
    assert {p.dtype for p in lobe.encoder.parameters()} == {torch.bfloat16}


def test_a_revision_is_honoured(source, monkeypatch):
    asked = {}

    def from_pretrained(source, **options):
        asked.update(options)
        return found

    found = MuQ.from_pretrained(source)
    monkeypatch.setattr(MuQ, "from_pretrained", from_pretrained)
    PretrainedMuQ("OpenMuQ/MuQ-large-msd-iter", revision="v1")
    assert asked == {"cache_dir": None, "revision": "v1", "device": "cpu"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": "auto"}, "device_map must name one device, .* got 'auto'"),
        (
            {"device_map": {"conv": 0, "conformer": 1}},
            "device_map must name one device",
        ),
        ({"torch_dtype": torch.int8}, "torch_dtype must be float32, .* got torch.int8"),
        ({"dtype": "nn"}, "dtype must be float32, .* got 'nn'"),
        ({"attn_implementation": "eager"}, "attn_implementation: eager is not"),
        ({"quantization_config": 4}, "cannot honour quantization_config: 4.* dtype"),
        ({"output_hidden_states": True}, "output_all_hiddens: True"),
        (
            {"cache_dir": "here"},
            "MuQ cannot honour cache_dir: here.*save_path",
        ),
        (
            {"freeze_layers": 2},
            r"argument freeze_layers \(2\): did you mean frozen_l",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


# Names


def test_other_names_for_the_encoder_are_in_no_checkpoint(make):
    lobe = make()
    names = set(lobe.state_dict())
    model = lobe.model
    assert set(lobe.state_dict()) == set(copy.deepcopy(lobe).state_dict()) == names
    for lost in (model, model.encoder, model.config):
        with pytest.raises(AttributeError):
            lost.hidden_size = 3


def cut_as_iwslt22_does(lobe, keep):
    lobe.model.encoder.layers = lobe.model.encoder.layers[:keep]


def delete_in_place(lobe, keep):
    del lobe.model.encoder.layers[keep:]


@pytest.mark.parametrize("cut", [cut_as_iwslt22_does, delete_in_place])
def test_layers_can_be_cut(make, source, device, tmp_path, cut):
    wavs = torch.randn(2, 12000, device=device)
    whole = make(freeze=True, output_all_hiddens=True)
    expected = whole(wavs)
    last = whole.encoder.conformer.layer_norm(expected[2])
    lobe = make(freeze=True, output_all_hiddens=True)
    cut(lobe, 2)
    states = lobe(wavs)
    assert states.shape[0] == 3
    assert torch.equal(states[:2], expected[:2])
    torch.testing.assert_close(states[2], last)
    assert lobe.model.config.num_hidden_layers == lobe.encoder.num_layers == 2
    # It is an encoder like any other: it can be saved.
    model = MuQ.from_pretrained(save_muq(tmp_path / "cut", lobe.encoder), device=device)
    assert torch.equal(torch.stack(model(wavs).hidden_states), states)
    # Weights of a sum follow, in the parameter that an optimizer may hold.
    lobe = WeightedMuQ(source, freeze=True).to(device)
    weights = lobe.weights
    weights.data += torch.arange(4, device=device)
    cut(lobe, 2)
    out = lobe(wavs)
    shares = torch.arange(3.0, device=device).softmax(0)
    torch.testing.assert_close(out, torch.einsum("i,i...->...", shares, states))
    assert lobe.weights is weights and lobe.num_layers == 3
    out.sum().backward()
    assert weights.grad.shape == (3,)


@pytest.mark.parametrize("choose", [lambda x: x[1:], lambda x: x[:0], lambda x: [x[1]]])
def test_other_cuts_are_refused(make, choose):
    lobe = make()
    with pytest.raises(ValueError, match=r"cut off at the end.*layers\[:n\].* 1 to 3"):
        lobe.model.encoder.layers = choose(lobe.model.encoder.layers)
    assert len(lobe.model.encoder.layers) == lobe.encoder.num_layers == 3


# Checkpoints


def add_adapters(lobe):
    """Gives the adapters an effect, as training would."""
    for name, parameter in lobe.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return lobe


def cut(lobe):
    cut_as_iwslt22_does(lobe, 2)
    return lobe


ADAPTED = {"lora": {"r": 2}}


@pytest.mark.parametrize(
    ("saved", "loaded", "message"),
    [
        ({"output_weighted_sum": True}, {}, "holds layer_weights.*weighted_sum: True"),
        ({}, {"output_weighted_sum": True}, "no layer_weights.*False.*strict=False"),
        (ADAPTED, {}, "adapters of linear_q, linear_v,.*merge_lora.*as source"),
        ({}, ADAPTED, "saved without LoRA.*leave lora out.*source together with lora"),
        (ADAPTED, {"lora": {"target_modules": ["linear_k"]}}, "target_modules"),
        (ADAPTED, {"lora": {"r": 3}}, "of rank 2, .* of rank 3: give lora r: 2"),
        (cut, {}, r"has 2 layers, this lobe 3.*layers\[:2\] before loading"),
        ({}, cut, "has 3 layers, this lobe 2.*after loading"),
        (
            {"output_weighted_sum": True, **ADAPTED},
            {},
            "output_weighted_sum: True.*LoRA adapters",
        ),
    ],
)
def test_checkpoints_of_other_options_say_how_to_go_on(
    make, tmp_path, saved, loaded, message, caplog
):
    def build(options):
        return cut(make()) if options is cut else make(**options)

    theirs, lobe = build(saved), build(loaded)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(1)
    before = {name: value.clone() for name, value in lobe.state_dict().items()}
    Checkpointer(tmp_path, {"wav2vec2": theirs}).save_checkpoint()
    with pytest.raises(RuntimeError, match=message):
        Checkpointer(tmp_path, {"wav2vec2": lobe}).recover_if_possible()
    with pytest.raises(RuntimeError, match=message):
        lobe.load_state_dict(theirs.state_dict())
    after = lobe.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # In a container, where torch refuses with a list of names, it is logged.
    container = torch.nn.ModuleList([lobe])
    state = torch.nn.ModuleList([theirs]).state_dict()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(RuntimeError, match="0."),
    ):
        container.load_state_dict(state)
    assert "does not fit this lobe" in caplog.text


def test_the_ways_on_are_ways(make, device, tmp_path):
    wavs = torch.randn(1, 12000, device=device)
    # Equal weights at first.
    lobe = make(output_weighted_sum=True)
    checkpointer = Checkpointer(tmp_path / "ckpt", {"wav2vec2": make()})
    path = checkpointer.save_checkpoint().paramfiles["wav2vec2"]
    pretrainer = Pretrainer(
        collect_in=tmp_path / "in", loadables={"x": lobe}, paths={"x": str(path)}
    )
    pretrainer.collect_files()
    pretrainer.load_collected()
    assert not lobe.layer_weights.any()
    # Without the weights.
    state = make(output_weighted_sum=True).state_dict()
    del state["layer_weights"]
    make().load_state_dict(state)
    # Adapters become weights.
    adapted = add_adapters(make(**ADAPTED)).eval()
    expected = adapted(wavs)
    merge_lora(adapted.encoder)
    folder = save_muq(tmp_path / "merged", adapted.encoder)
    merged = PretrainedMuQ(folder, **ADAPTED).to(device).eval()
    torch.testing.assert_close(merged(wavs), expected, atol=1e-4, rtol=1e-4)
    # Layers are cut before loading.
    lobe = make()
    cut_as_iwslt22_does(lobe, 2)
    lobe.load_state_dict(cut(make()).state_dict())
