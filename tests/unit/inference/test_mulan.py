"""MuQ-MuLan for users: any audio and text, and folders that are whole or refused."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from muq_plugins import MuQ
from muq_plugins.data import windows
from muq_plugins.data.audio import AudioError, read_audio
from muq_plugins.inference import folders
from muq_plugins.inference.mulan import CLIPS_AT_ONCE, TEXTS_AT_ONCE, MuQMuLan
from muq_plugins.inference.mulan_parts import save_mulan
from muq_plugins.lobes import AudioTower, InfoNCE, SigmoidContrastive, part
from muq_plugins.lobes.parts import PARTS
from tests.unit.inference.edits import edit_config
from tests.unit.inference.tiny_mulan import (
    roberta_with_pooler,
    tiny_encoder,
    tiny_mulan,
    tiny_text,
)
from tests.unit.tiny_encoders import TINY

RATE = 24000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with clips of one second; not to be changed."""
    torch.manual_seed(1)
    return tiny_mulan(tmp_path_factory.mktemp("mulan"))


@pytest.fixture(scope="module")
def model(folder):
    return MuQMuLan.from_pretrained(folder)


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copied")


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0.01, 0.5, shape[-1])
    return ramp * torch.randn(*shape, generator=generator).clamp(-2, 2)


def test_what_is_loaded(model):
    assert (model.sample_rate, model.clip_seconds, model.latent_width) == (RATE, 1, 16)
    assert not model.mods.training
    assert not any(part.training for part in model.mods.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert abs(model.loss.temperature().item() - 14) < 1e-4


def test_the_latent_is_the_average_over_clips_with_a_wrapped_tail(model):
    wav = noise(1, int(2.5 * RATE))
    tail = torch.cat([wav[:, 2 * RATE :], wav[:, : RATE // 2]], dim=1)
    clips = torch.cat([wav[:, :RATE], wav[:, RATE : 2 * RATE], tail])
    expected = model.mods.audio(clips).mean(dim=0)
    assert torch.allclose(model.embed_audio(wav)[0], expected, atol=1e-6)
    assert torch.equal(model(wav), model.embed_audio(wav))
    # Not normalised again.
    assert expected.norm() < 1 - 1e-4
    one = model.embed_audio(wav[:, :RATE])
    assert torch.allclose(one.norm(), torch.tensor(1.0))


def test_short_audio_is_repeated_until_the_clip_is_full(model):
    wav = noise(1, int(0.3 * RATE))
    expected = model.mods.audio(wav.repeat(1, 4)[:, :RATE])
    assert torch.allclose(model.embed_audio(wav), expected, atol=1e-6)
    assert torch.isfinite(model.embed_audio(torch.ones(1, 1))).all()


def test_a_latent_depends_on_its_recording_alone(model):
    seconds = [0.2, 1.0, 3.7, CLIPS_AT_ONCE + 2.3, 0.9]
    wavs = [noise(int(s * RATE), seed=i) for i, s in enumerate(seconds)]
    alone = torch.cat([model.embed_audio(wav[None]) for wav in wavs])
    longest = max(map(len, wavs))
    # What lies beyond the end is not heard, whatever it is.
    batch = torch.full((len(wavs), longest), float("nan"))
    for row, wav in zip(batch, wavs, strict=True):
        row[: len(wav)] = wav
    lens = torch.tensor([len(wav) / longest for wav in wavs])
    assert torch.allclose(model.embed_audio(batch, lens), alone, atol=1e-6)
    arrays = model.embed_audio(batch.numpy(), lens.tolist())
    assert torch.allclose(arrays, alone, atol=1e-6)
    assert torch.cdist(alone, alone).add(torch.eye(5)).min() > 1e-3


@pytest.mark.parametrize("rate, channels", [(24000, 1), (44100, 2), (8000, 1)])
def test_a_file_gives_what_its_audio_gives(
    model, tmp_path, monkeypatch, rate, channels
):
    wav = noise(channels, int(7.3 * rate)).T.numpy()
    path = tmp_path / "a.wav"
    soundfile.write(path, wav, rate, subtype="FLOAT")
    expected = model.embed_audio(read_audio(path)[None])[0]
    read = []

    def spy(path, start, duration, sample_rate):
        read.append(duration)
        return read_audio(path, start, duration, sample_rate)

    monkeypatch.setattr(windows, "READ_SECONDS", 2.0)
    monkeypatch.setattr(windows, "read_audio", spy)
    found = model.embed_file(path)
    assert found.shape == (16,)
    assert torch.allclose(found, expected, atol=1e-6)
    assert read == [2.0] * 4  # never the whole file


def test_files_without_audio(model, tmp_path):
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0), RATE)
    with pytest.raises(AudioError, match=r"empty.wav: empty \(no samples\)"):
        model.embed_file(path)
    soundfile.write(path, np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="non-finite"):
        model.embed_file(path)
    with pytest.raises(AudioError, match="missing"):
        model.embed_file(tmp_path / "nowhere.wav")


@pytest.mark.parametrize(
    "wavs, lens, message",
    [
        (torch.zeros(RATE), None, r"got \(24000,\).*add a batch axis"),
        (torch.zeros(1, 2, RATE), None, r"got \(1, 2, 24000\): mix down"),
        (torch.zeros(1, RATE, dtype=torch.int16), None, "torch.int16"),
        (torch.zeros(2, 0), None, "Recording 0 of 2 has no samples"),
        (torch.zeros(0, RATE), None, "batch of 0"),
        (torch.zeros(2, RATE), torch.tensor([1.0, 0.0]), "Recording 1 of 2 has no"),
        (torch.zeros(2, RATE), torch.ones(3), "one length per clip"),
        (torch.tensor([[0.0, float("nan")]]), None, "Sample 1 of clip 0 .* is nan"),
        (torch.tensor([[0.0], [float("inf")]]), None, "Sample 0 of clip 1 .* is inf"),
    ],
)
def test_bad_audio(model, wavs, lens, message):
    with pytest.raises(ValueError, match=message):
        model.embed_audio(wavs, lens)


def test_a_text_latent_depends_on_its_text_alone(model):
    texts = [f"piece number {i} " + "very " * (i % 7) + "slow" for i in range(20)]
    texts += ["缓慢的独奏", "🎻🎹", "a slow 大提琴 🎻"]
    texts *= 1 + TEXTS_AT_ONCE // len(texts)
    assert len(texts) > TEXTS_AT_ONCE
    together = model.embed_text(texts)
    alone = torch.cat([model.embed_text([text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(len(texts)))
    assert torch.equal(model.embed_text(tuple(texts)), together)


def test_a_long_text_is_cut_with_a_warning(model, caplog):
    long = "a slow cello and " * 600
    assert len(long) > 10000
    found = model.embed_text(["drums", long])
    assert "1 of 2 texts are longer than 60 tokens" in caplog.text
    tokens, _ = model.mods.text.tokenize([long[:2000]])
    assert tokens.shape == (1, 60)
    assert torch.allclose(found[1], model.embed_text([long[:2000]])[0], atol=1e-6)
    assert torch.allclose(found[0], model.embed_text(["drums"])[0], atol=1e-6)


@pytest.mark.parametrize(
    "texts, message",
    [
        ([], "no text"),
        ("drums", "single text 'drums'"),
        (["drums", ""], "Text 1 of 2 is ''"),
        (["drums"] * 80 + [" \n"], "Text 80 of 81"),
        (["drums", None], "Text 1 of 2 is None"),
        ([3], "Text 0 of 1 is 3"),
    ],
)
def test_bad_texts(model, texts, message):
    with pytest.raises(ValueError, match=message):
        model.embed_text(texts)


def test_similarities_are_dot_products(model):
    audio, text = model.embed_audio(noise(3, RATE)), model.embed_text(["a", "b"])
    found = model.similarity(audio, text)
    assert torch.allclose(found, (audio[:, None] * text).sum(dim=2))
    with pytest.raises(ValueError, match=r"audio must have the shape \(n, 16\)"):
        model.similarity(audio[0], text)
    with pytest.raises(ValueError, match=r"text must .* got \(2, 8\)"):
        model.similarity(audio, text[:, :8])


@pytest.mark.parametrize("kind", TINY)
def test_every_encoder_can_be_saved(tmp_path, kind):
    encoder = TINY[kind]()
    folder = tiny_mulan(tmp_path, encoder)
    encoder.eval()
    model = MuQMuLan.from_pretrained(tmp_path)  # a run folder
    wavs = noise(2, RATE)
    states = model.mods.audio.encoder(wavs).hidden_states
    assert torch.allclose(states[-1], encoder(wavs).hidden_states[-1], atol=1e-6)
    if kind != "MuQEncoder":
        with pytest.raises(ValueError, match="The official layout cannot hold a "):
            model.save_pretrained(tmp_path / "official")
    # Files of other names would be a way to be executed.
    assert {path.suffix for path in folder.rglob("*.*")} == {".json", ".safetensors"}


@pytest.mark.parametrize("loss", [None, InfoNCE(5.0, 20.0), SigmoidContrastive()])
def test_towers_settings_and_loss_come_back(tmp_path, loss):
    text = tiny_text(tmp_path / "texts", num_heads=2, head_width=8, max_tokens=20)
    text.model = roberta_with_pooler(text)
    audio = AudioTower(tiny_encoder(), 16, width=24, num_layers=1, layer=1)
    folder = save_mulan(tmp_path / "x", audio, text, 1.5, loss)
    tensors = load_file(folder / "model.safetensors")
    assert not any("pooler" in name for name in tensors)
    model = MuQMuLan.from_pretrained(folder)
    audio.eval(), text.eval()
    wavs, texts = noise(2, int(1.5 * RATE)), ["slow cello", "drums"]
    assert torch.allclose(model.embed_audio(wavs), audio(wavs), atol=1e-6)
    assert torch.allclose(model.embed_text(texts), text(texts), atol=1e-6)
    assert model.mods.audio.config == audio.config
    assert model.mods.text.config == text.config
    if loss is None:
        assert model.loss is None
    else:
        assert type(model.loss) is type(loss)
        audio_latents, text_latents = torch.eye(16)[:4], torch.eye(16)[1:5]
        found = model.loss(audio_latents, text_latents)
        assert torch.allclose(found, loss(audio_latents, text_latents))
        limit = model.loss.max_log_temperature
        assert abs(limit - loss.max_log_temperature) < 1e-6


def test_a_loss_of_ones_own_comes_back(tmp_path):
    @part
    class Margin(InfoNCE):
        def __init__(self, margin):
            super().__init__(max_temperature=20.0)
            self.margin = margin

    try:
        towers = AudioTower(tiny_encoder(), 16), tiny_text(tmp_path / "texts")
        folder = save_mulan(tmp_path / "x", *towers, 1.5, Margin(0.3))
        assert MuQMuLan.from_pretrained(folder).loss.margin == 0.3
    finally:
        del PARTS["Margin"]
    edit_config(folder, {"loss": {"class": "InfoNCE", "max_temperature": 20.0}})
    loss = MuQMuLan.from_pretrained(folder).loss  # of folders of before
    assert loss.max_log_temperature == pytest.approx(np.log(20.0))


class Tower(AudioTower):
    """Computes something else than the class that a folder names."""


def test_the_fingerprint_tells_models_apart(model, copied):
    assert MuQMuLan.from_pretrained(copied).fingerprint == model.fingerprint
    edit_config(copied, {"audio.encoder.arguments.dropout": 0.3})  # of training alone
    assert MuQMuLan.from_pretrained(copied).fingerprint == model.fingerprint

    found = {model.fingerprint}
    tensors = load_file(copied / "model.safetensors")
    for name in ("audio.to_latents.linear.bias", "text.to_latents.linear.bias"):
        changed = {**tensors, name: tensors[name] + 1e-3}
        save_file(changed, copied / "model.safetensors")
        found.add(MuQMuLan.from_pretrained(copied).fingerprint)
    save_file(tensors, copied / "model.safetensors")
    for changes in (
        {"clip_seconds": 2},
        {"audio.tower.layer": 1, "clip_seconds": 1},
        {"text.max_tokens": 20},
    ):
        edit_config(copied, changes)
        found.add(MuQMuLan.from_pretrained(copied).fingerprint)
    path = copied / "text_model" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"]
    words[-1][0], words[-2][0] = words[-2][0], words[-1][0]
    path.write_text(json.dumps(tokenizer))
    found.add(MuQMuLan.from_pretrained(copied).fingerprint)
    assert len(found) == 7


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kind": "muq_encoder"}, "holds a muq_encoder, not a muq_mulan"),
        ({"kind": None}, "holds a model of unknown kind"),
        ({"audio": {}}, "config.json is damaged or of another version"),
        ({"clip_seconds": 0}, "clip_seconds is 0: the encoder needs at least"),
        ({"clip_seconds": "x"}, "is damaged or of another version"),
        ({"loss": {"class": "Evil", "max_temperature": 1}}, "There is no part 'Evil'"),
    ],
)
def test_folders_that_are_something_else(copied, changes, message):
    edit_config(copied, changes)
    with pytest.raises(ValueError, match=message):
        MuQMuLan.from_pretrained(copied)


def test_parts_that_are_not_there(model, copied, tmp_path):
    texts = (copied / "text_model").rename(tmp_path / "texts")
    with pytest.raises(FileNotFoundError, match="with text_model in it"):
        MuQMuLan.from_pretrained(copied)
    again = MuQMuLan.from_pretrained(copied, text_model=texts)
    assert torch.equal(again.embed_text(["a"]), model.embed_text(["a"]))
    with pytest.raises(ValueError, match="leave audio_model='x' out"):
        MuQMuLan.from_pretrained(copied, text_model=texts, audio_model="x")
    (copied / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="No trained MuQ model"):
        MuQMuLan.from_pretrained(copied)
    with pytest.raises(FileNotFoundError, match="No trained MuQ model in nowhere"):
        MuQMuLan.from_pretrained("nowhere")


def test_a_model_is_no_encoder(folder):
    with pytest.raises(ValueError, match="holds a muq_mulan, not a muq_encoder"):
        MuQ.from_pretrained(folder)


def test_nothing_in_a_folder_is_executed(copied, tmp_path):
    executed = tmp_path / "executed"
    code = f"open({str(executed)!r}, 'w')\n"
    (copied / "hyperparams.yaml").write_text(f"x: !apply:open [{executed}, w]\n")
    for place in (copied, copied / "text_model"):
        (place / "evil.py").write_text(code + "class Evil: pass\n")
    auto_map = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    edit_config(copied / "text_model", {"auto_map": auto_map})
    MuQMuLan.from_pretrained(copied)
    assert not executed.exists()


@pytest.mark.parametrize(
    "swapped, latent_width, seconds, loss, message",
    [
        (False, 8, 1, None, "latents of 8, the text tower of 16"),
        (True, 16, 1, None, "an AudioTower and a TextTower, got TextTower"),
        (False, 16, 0.01, None, "clip_seconds is 0.01: .* 0.043 seconds"),
        (False, 16, 1, torch.nn.Linear(1, 1), "A Linear cannot be saved"),
    ],
)
def test_parts_that_do_not_fit_are_not_saved(
    tmp_path, swapped, latent_width, seconds, loss, message
):
    towers = AudioTower(tiny_encoder(), latent_width), tiny_text(tmp_path / "texts")
    with pytest.raises((ValueError, TypeError), match=message):
        save_mulan(tmp_path / "x", *towers[:: -1 if swapped else 1], seconds, loss)
    with pytest.raises(ValueError, match="a TextTower, got Tower and TextTower"):
        save_mulan(tmp_path / "x", Tower(tiny_encoder(), 16), towers[1], 1)
    assert not (tmp_path / "x").exists()


def test_a_model_of_the_hub_comes_with_its_parts_and_nothing_else(
    folder, model, monkeypatch
):
    asked = {}

    def download(repo_id, **arguments):
        asked[repo_id] = arguments
        return str(folder)

    monkeypatch.setattr(folders, "snapshot_download", download)
    loaded = MuQMuLan.from_pretrained("me/my-mulan", revision="v1", cache_dir="c")
    assert loaded.fingerprint == model.fingerprint
    assert asked["me/my-mulan"]["revision"] == "v1"
    patterns = asked["me/my-mulan"]["allow_patterns"]
    assert "text_model/tokenizer.json" in patterns and "muq/config.json" in patterns
    assert "model.safetensors" in patterns and "pytorch_model.bin" not in patterns
    texts = [name for name in patterns if "/" in name]
    assert all(name.endswith((".json", ".txt", ".model")) for name in texts)
