"""Models behave as people expect: where they are, their calls, what they run."""

import shutil

import pytest
import soundfile
import torch

from muq_plugins import MuQ, MuQMuLan
from muq_plugins.data.audio import read_audio
from muq_plugins.inference.mulan import save_mulan
from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes.parts import encoder_fingerprint
from tests.unit.inference.tiny_mulan import tiny_mulan
from tests.unit.tiny_encoders import TINY, tiny_encoder

WAVS = 0.1 * torch.randn(2, 24000, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_muq(tmp_path_factory.mktemp("muq") / "x", tiny_encoder("MuQEncoder"))


@pytest.fixture(scope="module")
def mulan(tmp_path_factory):
    return MuQMuLan.from_pretrained(tiny_mulan(tmp_path_factory.mktemp("mulan")))


def test_audio_goes_where_the_model_is(folder):
    model = MuQ.from_pretrained(folder, device=torch.device("cpu"))
    assert model.device == torch.device("cpu")
    assert model(WAVS.double()).last_hidden_state.device == model.device
    assert model.to("meta").device == torch.device("meta")


def test_nothing_puts_a_model_into_training_mode(folder, mulan):
    model = MuQ.from_pretrained(folder)
    expected = model(WAVS).last_hidden_state
    outer = torch.nn.ModuleDict({"features": model, "texts": mulan}).train()
    for part in (model, mulan):
        assert not any(module.training for module in part.modules())
    assert outer.training
    assert torch.equal(model(WAVS).last_hidden_state, expected)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name, dtype, tmp_path):
    model = MuQ.from_pretrained(save_muq(tmp_path / "x", tiny_encoder(name)))
    lens = torch.tensor([1.0, 0.5])
    expected = model(WAVS, lens).last_hidden_state
    low = model.to(dtype)
    for wavs in (WAVS, WAVS.to(dtype)):
        found = low(wavs, lens).last_hidden_state
        assert found.dtype == dtype
        assert (found.float() - expected).norm() < 0.04 * expected.norm()


def test_the_name_of_a_space_does_not_depend_on_what_was_asked_first(tmp_path):
    folder = save_muq(tmp_path / "x", tiny_encoder("MuQEncoder"))
    tiny_mulan(tmp_path)
    for load in (
        lambda: MuQ.from_pretrained(folder),
        lambda: MuQMuLan.from_pretrained(tmp_path / "inference"),
    ):
        name = load().space().name
        for convert in ("half", "bfloat16", "double"):
            assert getattr(load(), convert)().space().name == name
        assert load().to("meta", torch.bfloat16).space().name == name


def test_half_precision_of_mulan(tmp_path):
    model = MuQMuLan.from_pretrained(tiny_mulan(tmp_path))
    audio, text = model.embed_audio(WAVS), model.embed_text(["a slow piano", "drums"])
    for dtype in (torch.float16, torch.bfloat16):
        low = MuQMuLan.from_pretrained(tmp_path / "inference").to(dtype)
        assert (low.embed_audio(WAVS).float() - audio).norm() < 0.04 * audio.norm()
        found = low.embed_text(["a slow piano", "drums"]).float()
        assert (found - text).norm() < 0.04 * text.norm()


def test_the_official_snippets_run(folder, mulan):
    out = MuQ.from_pretrained(folder).to("cpu").eval()(WAVS, output_hidden_states=True)
    assert out[0] is out.last_hidden_state is out["last_hidden_state"]
    assert out[1] is out.hidden_states is out["hidden_states"]
    assert MuQ.from_pretrained(folder)(WAVS, output_hidden_states=False)[1] is None
    with pytest.raises(KeyError):
        out["logits"]

    texts = ["classical genres", "一首钢琴曲"]
    audio, text = mulan(wavs=WAVS), mulan(texts=texts)
    assert torch.equal(text, mulan.embed_text(texts))
    assert torch.equal(mulan.calc_similarity(audio, text), audio @ text.T)
    for arguments in ({}, {"wavs": WAVS, "texts": texts}):
        with pytest.raises(ValueError, match="either wavs or texts"):
            mulan(**arguments)


def test_a_model_says_what_it_is(folder, tmp_path):
    model = MuQ.from_pretrained(folder)
    assert (model.sample_rate, model.frame_rate) == (24000, 25.0)
    assert model.config["width"] == 32
    soundfile.write(tmp_path / "a.wav", WAVS[0].numpy(), 24000, subtype="FLOAT")
    expected = model(WAVS[:1])
    for layer in (-1, 0):
        found = model.embed_file(tmp_path / "a.wav", layer)
        torch.testing.assert_close(found, expected.hidden_states[layer][0])


@pytest.mark.parametrize("rate", [24000, 48000])
def test_audio_is_loaded_as_the_model_hears_it(rate, folder, mulan, tmp_path):
    """SpeechBrain's own loading; by default it brings everything to 16 kHz."""
    path = tmp_path / "a.wav"
    time = torch.arange(rate) / rate
    soundfile.write(path, 0.5 * torch.sin(880 * torch.pi * time).numpy(), rate)
    expected = read_audio(path, sample_rate=24000)
    for model in (MuQ.from_pretrained(folder), MuQ.from_hparams(folder), mulan):
        found = model.load_audio(str(path)).cpu()
        inner = slice(100, -100)  # each resampler has its own edges
        torch.testing.assert_close(found[inner], expected[inner], rtol=0, atol=1e-3)
        assert len(found) == len(expected) == 24000


def test_a_part_that_is_trained_elsewhere_computes_as_it_is(folder, mulan):
    """What trains it stays in training mode."""
    model = MuQ.from_pretrained(folder)
    for part, compute in (
        (model.mods.encoder, lambda: model(WAVS).last_hidden_state),
        (mulan.mods.audio, lambda: mulan.embed_audio(WAVS)),
        (mulan.mods.text, lambda: mulan.embed_text(["a slow piano"])),
    ):
        expected = compute()
        part.train()
        modes = [inner.training for inner in part.modules()]
        assert torch.equal(compute(), expected) and any(modes)
        assert [inner.training for inner in part.modules()] == modes
        part.eval()


HARMFUL = {
    "x: !apply:os.mkdir [MARKER]": "!apply:os.mkdir",
    "a: [1, {b: !new:os.mkdir {path: MARKER}}]": "!new:os.mkdir",
    "a: &x {b: !apply:os%2Emkdir [MARKER]}\nb: *x": "!apply:os.mkdir",
    "a: !!python/object/apply:os.mkdir [MARKER]": "python/object/apply:os.mkdir",
    "%TAG ! tag:yaml.org,2002:python/object/apply:\n---\na: !os.mkdir [MARKER]": (
        "python/object/apply:"  # which all tags of the file have become
    ),
    "a: !<!apply:os.mkdir> [MARKER]": "!apply:os.mkdir",
    "a: !name:os.mkdir": "!name:os.mkdir",
    "a: !module:custom": "!module:custom",
    "a: !include:other.yaml": "!include:other.yaml",
    "a: !new:muq_plugins.lobes.parts.build {}": "!new:muq_plugins.lobes.parts.build",
    "? !apply:os.mkdir [MARKER]\n: 1": "!apply:os.mkdir",
}


@pytest.fixture
def with_yaml(folder, tmp_path):
    """A copy of the folder with more in its YAML, as arguments of `from_hparams`."""

    def make(before, after):
        source = shutil.copytree(folder, tmp_path / "source")
        path = source / "hyperparams.yaml"
        path.write_text(before + path.read_text() + after + "\n")
        return {"source": str(source), "savedir": str(tmp_path / "cache")}

    return make


@pytest.mark.parametrize("text", HARMFUL)
def test_the_yaml_of_a_folder_runs_no_code(text, with_yaml, tmp_path):
    added = text.replace("MARKER", str(tmp_path / "executed"))
    start, dashes, rest = added.rpartition("---\n")
    where = with_yaml(start + dashes, rest)
    for model in (MuQ, MuQMuLan):
        with pytest.raises(ValueError, match="could run any code") as error:
            model.from_hparams(**where)
        assert HARMFUL[text] in str(error.value)
        assert "hyperparams.yaml, line" in str(error.value)
    assert not (tmp_path / "executed").exists()


def test_a_source_that_is_trusted_may_run_what_it_likes(with_yaml, tmp_path):
    marker = tmp_path / "executed"
    where = with_yaml("", f"x: !apply:os.mkdir [{marker}]")
    model = MuQ.from_hparams(**where, trust_source=True)
    assert marker.is_dir() and model(WAVS).last_hidden_state.shape == (2, 25, 32)


def test_a_model_knows_what_it_was_trained_on(folder, tmp_path):
    """Its fingerprint does not: the same weights are the same model."""
    old = MuQ.from_pretrained(folder)
    assert old.trained_on == "unknown"
    heard = "the embedded corpus (9 files, 2.0 hours)"
    save_muq(tmp_path / "new", old.mods.encoder, heard)
    for new in (
        MuQ.from_pretrained(tmp_path / "new"),
        MuQ.from_hparams(tmp_path / "new"),
    ):
        assert new.trained_on == heard and f"trained_on='{heard}'" in repr(new)
        assert new.config == old.config
    assert encoder_fingerprint(new.mods.encoder) == encoder_fingerprint(
        old.mods.encoder
    )


def test_a_mulan_knows_what_it_was_trained_on(mulan, tmp_path):
    assert mulan.trained_on == "unknown"
    parts = (mulan.mods.audio, mulan.mods.text, mulan.clip_seconds)
    save_mulan(tmp_path / "new", *parts, heard="a folder \x1b[31m")
    new = MuQMuLan.from_pretrained(tmp_path / "new")
    assert new.trained_on == "a folder \ufffd[31m"  # printed as it is
    assert new.fingerprint == mulan.fingerprint
