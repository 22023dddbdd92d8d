"""Zero-shot evaluation from the command line, with a tiny model on made recordings."""

import json

import numpy as np
import pytest
import soundfile
import torch
from transformers import ByT5Tokenizer, RobertaConfig, RobertaModel

from muq_plugins.data.manifest import load_manifest
from muq_plugins.errors import UserError
from muq_plugins.evaluation.zero_shot.scores import evaluate_mulan
from muq_plugins.files import write_json
from muq_plugins.inference.mulan import MuQMuLan, save_mulan
from muq_plugins.lobes import AudioTower, MuQEncoder, TextTower
from tests.integration.commands import ROOT, recipe_here

HPARAMS = ROOT / "hparams" / "zero_shot"
GENRES = ["blues", "jazz"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model with random weights."""
    torch.manual_seed(0)
    tokenizer = ByT5Tokenizer(extra_ids=0)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        pad_token_id=0,
    )
    text = TextTower(RobertaModel(config), tokenizer, latent_width=16)
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    audio = AudioTower(encoder, latent_width=16)
    return save_mulan(tmp_path_factory.mktemp("model") / "x", audio, text, 1.0)


@pytest.fixture(scope="module")
def gtzan(tmp_path_factory):
    """Recordings and lists in the layout of GTZAN."""
    root = tmp_path_factory.mktemp("gtzan")
    names = {part: [] for part in ("train", "valid", "test")}
    for number in range(12):
        genre = GENRES[number % 2]
        name = f"{genre}/{genre}.{number:05}.wav"
        names[("train", "valid", "test")[number // 4]].append(name)
        path = root / "genres" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        wav = np.random.default_rng(number).normal(size=22050 * 2) * 0.1
        soundfile.write(path, wav, 22050)
    for part, some in names.items():
        (root / f"{part}_filtered.txt").write_text("\n".join(some) + "\n")
    return root


def test_the_genres_of_gtzan(model, gtzan, tmp_path, capsys):
    out, kept = tmp_path / "out", tmp_path / "latents"
    recipe_here(
        "zero_shot.py",
        HPARAMS / "zero_shot_gtzan.yaml",
        *("--model", model, "--output_folder", out, "--latents_folder", kept),
        *("--clips.prepare.data_folder", gtzan),
    )
    scores = json.loads((out / "zero_shot.json").read_text())
    assert scores["data"] == "GTZAN, fault-filtered split, test"
    assert scores["clips"] == 4 and scores["left_out"] == []
    assert scores["accuracy"]["chance"] == 0.1
    assert scores["tagging"]["without_positive"][0] == "classical"
    assert len(scores["tagging"]["without_positive"]) == 8
    assert "retrieval" not in scores
    printed = capsys.readouterr().out
    assert f"Report: {out / 'report.html'}" in printed
    assert "accuracy" in printed
    # The numbers are those of the model in Python.
    heard = MuQMuLan.from_pretrained(model)
    assert scores["fingerprint"] == heard.fingerprint
    files = sorted((gtzan / "genres").glob("*/*.0000[89].wav"))
    files += sorted((gtzan / "genres").glob("*/*.0001[01].wav"))
    audio = torch.stack([heard.embed_file(path) for path in files])
    texts = []
    for genre in ("blues", "classical", "country", "disco", "hiphop"):
        prompts = (HPARAMS / "prompts" / "genres.txt").read_text().split("\n")[:-1]
        latents = heard.embed_text([p.replace("{tag}", genre) for p in prompts])
        texts.append(latents.mean(dim=0) / latents.mean(dim=0).norm())
    near = audio @ torch.stack(texts)[0]
    blues = torch.tensor(["blues" in str(path) for path in files])
    wins = (near[blues][:, None] > near[~blues]).float().mean()
    assert scores["tagging"]["tags"][0]["roc_auc"] == pytest.approx(wins.item())


def test_own_manifests_with_captions_and_kept_latents(model, gtzan, tmp_path):
    files = sorted((gtzan / "genres").glob("*/*.wav"))
    write_json(
        tmp_path / "test.json",
        {
            path.stem: {
                "wav": "{data_root}/" + f"{path.parent.name}/{path.name}",
                "duration": 2.0,
                "tags": [path.parent.name],
                "caption": f"song {number // 2}",
            }
            for number, path in enumerate(files)
        },
    )
    options = [HPARAMS / "zero_shot.yaml", "--model", model]
    options += ["--annotation_folder", tmp_path, "--audio_folder", gtzan / "genres"]
    options += ["--latents_folder", tmp_path / "latents"]
    recipe_here("zero_shot.py", *options, "--output_folder", tmp_path / "one")
    scores = json.loads((tmp_path / "one" / "zero_shot.json").read_text())
    to_audio = scores["retrieval"]["text to music"]
    assert (to_audio["queries"], to_audio["items"]) == (6, 12)
    assert (scores["retrieval"]["music to text"]["queries"]) == 12
    assert to_audio["chance"]["recall_at_1"] == pytest.approx(1 / 6)
    # The evaluation at the end of a training finds the same.
    entries = load_manifest(tmp_path / "test.json", gtzan / "genres")
    found = evaluate_mulan(
        MuQMuLan.from_pretrained(model), entries, tmp_path / "latents"
    )
    for direction, row in scores["retrieval"].items():
        own = found["retrieval"]["own"][direction]  # which keeps every query, too
        assert {key: own[key] for key in row} == row
    (kept,) = (tmp_path / "latents").iterdir()
    before = kept.stat()
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("nothing but {tag}\n")
    recipe_here(
        *("zero_shot.py", *options, "--output_folder", tmp_path / "two"),
        *("--prompts", prompts),
    )
    assert [path.stat() for path in (tmp_path / "latents").iterdir()] == [before]
    other = json.loads((tmp_path / "two" / "zero_shot.json").read_text())
    assert other["prompts"] == ["nothing but {tag}"]
    assert other["retrieval"] == scores["retrieval"]
    assert other["tagging"]["roc_auc"] != scores["tagging"]["roc_auc"]


def test_several_kinds_of_text_one_by_one_and_together(model, gtzan, tmp_path):
    lines = []
    for number, path in enumerate(sorted((gtzan / "genres").glob("*/*.wav"))[:3]):
        (tmp_path / f"a1B2c3D4e5{number}.wav").symlink_to(path)
        song = {"audio": f"https://youtu.be/a1B2c3D4e5{number}"}
        lines.append(
            json.dumps({**song, "scene": f"{number}", "analysis": "x" * number})
        )
    (tmp_path / "wikimt-x-public.jsonl").write_text("\n".join(lines))
    options = [HPARAMS / "zero_shot_wikimt_x.yaml", "--model", model]
    options += ["--clips.prepare.data_folder", tmp_path]
    options += ["--latents_folder", tmp_path / "latents"]
    kinds = "--clips.caption_key", "[scene, analysis]"
    with pytest.raises(UserError, match="'a1B2c3D4e50.mp3' has None under 'analysis'"):
        recipe_here("zero_shot.py", *options, *kinds, "--output_folder", tmp_path / "x")
    path = tmp_path / "wikimt-x-public.jsonl"
    path.write_text(path.read_text().replace('"analysis": ""', '"analysis": "y"'))
    recipe_here("zero_shot.py", *options, *kinds, "--output_folder", tmp_path / "both")
    scores = json.loads((tmp_path / "both" / "zero_shot.json").read_text())
    by_text, both = scores["retrieval_by_text"], scores["retrieval"]
    assert list(by_text) == ["scene", "analysis"]
    for way, found in both.items():
        ranks = [by_text[kind][way]["mean_average_precision"] for kind in by_text]
        mean = (ranks[0]["value"] + ranks[1]["value"]) / 2
        assert found["queries"] == 6
        assert found["mean_average_precision"]["value"] == pytest.approx(mean, abs=1e-5)
    text = (tmp_path / "both" / "report.md").read_text()
    assert "| scene, text to music |" in text and "R@100 |" in text
    alone = "--clips.caption_key", "scene", "--output_folder", tmp_path / "one"
    recipe_here("zero_shot.py", *options, *alone)
    one = json.loads((tmp_path / "one" / "zero_shot.json").read_text())
    assert one["retrieval"] == by_text["scene"] and "retrieval_by_text" not in one
    # A link that is dead is told of, since it is easier to find one of two.
    (tmp_path / "a1B2c3D4e50.wav").unlink()
    options += ["--clips.leave_out_missing", "True"]
    recipe_here("zero_shot.py", *options, *alone[:3], tmp_path / "two")
    two = json.loads((tmp_path / "two" / "zero_shot.json").read_text())
    assert [one["path"] for one in two["left_out"]] == ["a1B2c3D4e50.mp3"]
    text = (tmp_path / "two" / "report.md").read_text()
    assert "1 of 3 recordings, without a file or broken, are left out" in text


def test_prompts_are_found_from_any_folder(model, gtzan, tmp_path, monkeypatch):
    def run(experiment, *options):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        recipe_here(
            *("zero_shot.py", experiment, "--output_folder", out, *options),
            *("--latents_folder", tmp_path / "latents", "--clips.caption_key", "null"),
        )
        return json.loads((out / "zero_shot.json").read_text()), out

    clip = {"wav": "{data_root}/jazz/jazz.00001.wav", "duration": 2.0}
    clips = {"a": {**clip, "tags": ["x"]}, "b": {**clip, "tags": []}}
    write_json(tmp_path / "test.json", clips)
    monkeypatch.chdir(tmp_path)
    data = ["--annotation_folder", tmp_path, "--audio_folder", gtzan / "genres"]
    data += ["--model", model]
    scores, out = run(HPARAMS / "zero_shot.yaml", *data)
    ours = (HPARAMS / "prompts" / "tags.txt").read_text().splitlines()
    assert scores["prompts"] == ours
    # What was saved is an experiment of its own, wherever it lies.
    assert run(out / "hyperparams.yaml")[0]["prompts"] == ours
    # A file of the command line is looked for here first, then beside the experiment.
    (tmp_path / "mine.txt").write_text("just {tag}\n")
    mine, _ = run(HPARAMS / "zero_shot.yaml", *data, "--prompts", "mine.txt")
    assert mine["prompts"] == ["just {tag}"]
    data += ["--prompts", "prompts/genres.txt"]
    genres, _ = run(HPARAMS / "zero_shot.yaml", *data)
    given = (HPARAMS / "prompts" / "genres.txt").read_text().splitlines()
    assert genres["prompts"] == given != ours
    data[-1] = "gone.txt"
    with pytest.raises(UserError, match="no file of prompts gone.txt in .* or "):
        run(HPARAMS / "zero_shot.yaml", *data)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model", "gone"),
        ("--prompts", "gone"),
        ("--annotation_folder", "gone holds none of train.json"),
    ],
)
def test_what_is_missing_is_named(model, tmp_path, option, message):
    given = {
        "--model": model,
        "--annotation_folder": tmp_path,
        "--audio_folder": tmp_path,
        "--output_folder": tmp_path / "out",
    }
    clip = {"wav": "a.wav", "duration": 1.0, "tags": ["x"], "caption": "y"}
    write_json(tmp_path / "test.json", {"a": clip})
    given[option] = tmp_path / "gone"
    flat = [part for pair in given.items() for part in pair]
    with pytest.raises(UserError, match=message):
        recipe_here("zero_shot.py", HPARAMS / "zero_shot.yaml", *flat)


def test_a_recording_that_is_gone(model, tmp_path):
    clip = {"wav": "{data_root}/a.wav", "duration": 1.0, "tags": ["x"], "caption": "y"}
    write_json(tmp_path / "test.json", {"a": clip})
    with pytest.raises(UserError, match="a.wav is not there"):
        recipe_here(
            *("zero_shot.py", HPARAMS / "zero_shot.yaml", "--model", model),
            *("--annotation_folder", tmp_path, "--audio_folder", tmp_path),
            *("--output_folder", tmp_path / "out"),
            *("--latents_folder", tmp_path / "latents"),
        )
