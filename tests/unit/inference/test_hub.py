"""Both ways to and from transformers and the hub, offline: folders, and a stand-in."""

import json
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, pipeline

from muq_plugins import MuQ
from muq_plugins.data.audio import read_audio
from muq_plugins.errors import UserError
from muq_plugins.inference import hub
from muq_plugins.inference.encoders import load_encoder
from muq_plugins.inference.muq import save_muq
from tests.unit.tiny_encoders import TINY, tiny_encoder


@pytest.fixture
def song(tmp_path):
    torch.manual_seed(1)
    wav = 0.1 * torch.randn(30000)
    soundfile.write(tmp_path / "song.wav", wav.numpy(), 24000)
    return str(tmp_path / "song.wav")


def saved(tmp_path, name="MuQEncoder", **options):
    source = save_muq(tmp_path / "run" / "inference", tiny_encoder(name), "bells")
    model = MuQ.from_pretrained(source)
    return model, model.save_pretrained(tmp_path / "out", "transformers", **options)


@pytest.mark.parametrize("name", TINY)
def test_the_auto_classes_load_every_encoder(name, tmp_path, song):
    ours, folder = saved(tmp_path, name)
    config = AutoConfig.from_pretrained(folder)
    assert config.sampling_rate == ours.sample_rate and config.hidden_size == 32
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    theirs = AutoModel.from_pretrained(folder)
    # All learns that did when the encoder was made.
    learning = [p.requires_grad for p in tiny_encoder(name).parameters()]
    assert not theirs.training and any(learning)
    assert [p.requires_grad for p in theirs.parameters()] == learning
    wav = read_audio(song, sample_rate=ours.sample_rate)
    half = wav[: len(wav) // 2]
    inputs = extractor([song, half.numpy()], return_tensors="pt")
    assert inputs["attention_mask"].sum(1).tolist() == [len(wav), len(half)]
    with torch.no_grad():
        out = theirs(**inputs, output_hidden_states=True)
    lens = torch.tensor([1.0, len(half) / len(wav)], dtype=torch.float64)
    silence = torch.zeros(len(wav) - len(half))
    expected = ours(torch.stack([wav, torch.cat([half, silence])]), lens)
    for one, other in zip(out.hidden_states, expected.hidden_states, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    again = MuQ.from_pretrained(folder)
    assert again.space() == ours.space() and again.trained_on == "bells"
    assert type(load_encoder(folder)) is type(ours.mods.encoder)
    theirs.save_pretrained(tmp_path / "again")
    assert MuQ.from_pretrained(tmp_path / "again").space() == ours.space()


def test_a_pipeline_takes_files(tmp_path, song):
    ours, folder = saved(tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    pipe = pipeline("feature-extraction", model=str(folder), tokenizer=extractor)
    [found] = pipe(song)
    wav = read_audio(song, sample_rate=24000)
    expected = ours(wav[None]).last_hidden_state[0]
    assert torch.allclose(torch.tensor(found), expected, atol=1e-6)
    assert len(pipe([song, song])) == 2
    with pytest.raises(UserError, match="cannot batch music.* leave batch_size out"):
        pipe([song, song], batch_size=2)


def test_waveforms_of_another_rate_and_options_are_refused(tmp_path):
    _, folder = saved(tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    with pytest.raises(UserError, match="hears 24000 Hz, got waveforms at 16000 Hz"):
        extractor([0.0] * 16000, sampling_rate=16000)
    with pytest.raises(UserError, match="cannot honour quantization_config"):
        AutoModel.from_pretrained(folder, quantization_config={"load_in_8bit": True})
    with pytest.raises(UserError, match="no place for card"):
        MuQ.from_pretrained("small").save_pretrained(tmp_path / "x", remote_code=True)


def test_what_a_folder_says_and_can_is_saved_again(tmp_path):
    ours, folder = saved(
        tmp_path, card="# Bells\n\nOf Kyiv.", license="cc0-1.0", remote_code=True
    )
    model = AutoModel.from_pretrained(folder)
    again = tmp_path / "again"
    model.save_pretrained(again, is_main_process=False)
    assert not again.exists()
    with pytest.raises(UserError, match="push_to_hub=True.* its push_to_hub"):
        model.save_pretrained(again, push_to_hub=True)
    model.save_pretrained(again, safe_serialization=True)
    for name in ("README.md", "config.json", "modeling_muq_plugins.py"):
        assert (again / name).read_text() == (folder / name).read_text().replace(
            '"out"', '"again"'
        )
    other = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    model.save_pretrained(again, state_dict=other)
    found = MuQ.from_pretrained(again).mods.encoder.conv.linear.bias
    assert torch.equal(found, ours.mods.encoder.conv.linear.bias + 1)


def test_what_a_config_asks_for_is_done_or_refused(tmp_path):
    _, folder = saved(tmp_path)
    wavs = torch.randn(1, 24000)
    assert AutoModel.from_pretrained(folder)(wavs).hidden_states is None
    model = AutoModel.from_pretrained(folder, output_hidden_states=True)
    assert len(model(wavs).hidden_states) == 3
    assert model(wavs, output_hidden_states=False).hidden_states is None
    model = AutoModel.from_pretrained(folder, return_dict=False)
    assert isinstance(model(wavs), tuple) and not isinstance(
        model(wavs, return_dict=True), tuple
    )
    for name, value in {"num_hidden_layers": 1, "sampling_rate": 16000}.items():
        with pytest.raises(UserError, match=f"{name}={value}, but the encoder"):
            AutoModel.from_pretrained(folder, **{name: value})


def test_masks_are_ones_and_then_zeros(tmp_path):
    ours, folder = saved(tmp_path)
    model, wavs = AutoModel.from_pretrained(folder), torch.randn(2, 24000)
    mask = (torch.arange(24000) < torch.tensor([[24000], [12000]])).long()
    expected = ours(wavs, torch.tensor([1.0, 0.5])).last_hidden_state
    for dtype in (torch.long, torch.bool, torch.float32):
        found = model(wavs, mask.to(dtype)).last_hidden_state
        torch.testing.assert_close(found, expected)
    for wrong in (mask.flip(1), 2 * mask):
        with pytest.raises(UserError, match="pad at the right"):
            model(wavs, wrong)


def test_clips_in_all_forms(tmp_path, song, caplog):
    _, folder = saved(tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    wav = read_audio(song, sample_rate=24000).numpy()
    row = {"array": wav, "sampling_rate": 24000, "path": None}
    for clips in (song, row, [song, row], (wav, row), wav[None], wav.tolist()):
        found = extractor(clips, sampling_rate=24000)["input_values"]
        assert all(np.array_equal(each, wav) for each in found)
    extractor([song, row])
    assert not caplog.records
    extractor(wav)
    assert "taken to be at 24000 Hz" in caplog.text
    for clips, words in (
        ([], "no audio"),
        ([wav, wav[:0]], "not empty, got .0,."),
        ([np.stack([wav, wav])], "mono and not empty, got .2, 30000.*channels"),
        ((wav * 32767).astype(np.int16), "got int16: divide"),
        ({**row, "sampling_rate": 16000}, "hears 24000 Hz, got waveforms at 16000"),
        ({"path": song}, "keys path: it needs array"),
    ):
        with pytest.raises(UserError, match=words):
            extractor(clips, sampling_rate=24000)


REMOTE = """
import sys
from transformers import AutoFeatureExtractor, AutoModel
{block}
folder = sys.argv[1]
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
print(type(extractor).__name__, tuple(model(**extractor([0.0] * 24000,
    return_tensors="pt")).last_hidden_state.shape))
"""
BLOCK = "sys.modules['muq_plugins'] = None"


@pytest.mark.parametrize(
    ("block", "said"), [("", "(1, 25, 32)"), (BLOCK, "pip install")]
)
def test_remote_code_imports_us_or_says_how(block, said, tmp_path, monkeypatch):
    """In a process that has not imported us, with and without the package."""
    _, folder = saved(tmp_path, remote_code=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    code = REMOTE.format(block=block)
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True
    )
    assert said in done.stdout + done.stderr, done.stderr
    assert (done.returncode == 0) == (not block)


class Hub:
    """What `huggingface_hub.HfApi` is asked for."""

    calls: list = []

    def __init__(self, token=None):
        self.token = token

    def create_repo(self, repo_id, private, exist_ok):
        if "/" not in repo_id:
            raise huggingface_hub.errors.HFValidationError("no owner")
        self.calls.append(("create", repo_id, private, exist_ok, self.token))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, repo_id, folder_path):
        files = {path.name: path.read_bytes() for path in folder_path.iterdir()}
        self.calls.append(("upload", repo_id, files))


def test_a_model_is_pushed_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", Hub)
    ours, _ = saved(tmp_path)
    address = ours.push_to_hub("me/bells", license="cc0-1.0", private=True, token="t")
    assert address == "https://huggingface.co/me/bells"
    made, (_, _, files) = Hub.calls
    assert made == ("create", "me/bells", True, True, "t")
    assert json.loads(files["config.json"])["model_type"] == "muq_plugins"
    card = files["README.md"].decode()
    assert card.startswith('---\nlicense: "cc0-1.0"\n') and "# bells\n" in card
    assert 'AutoModel.from_pretrained("me/bells")' in card

    def downloaded(repo_id, revision, cache_dir, allow_patterns):
        folder = tmp_path / "downloaded"
        folder.mkdir(exist_ok=True)
        for name in set(files) & {*allow_patterns}:
            (folder / name).write_bytes(files[name])
        return folder

    monkeypatch.setattr("muq_plugins.inference.folders.snapshot_download", downloaded)
    assert MuQ.from_pretrained("me/bells").space() == ours.space()
    with pytest.raises(UserError, match="bells could not be pushed .*no owner"):
        ours.push_to_hub("bells")
