"""Scores of a model of audio and text, and their report."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from muq_plugins.data.captions import full_caption
from muq_plugins.evaluation.pages import headline, read_run, report
from muq_plugins.evaluation.pages.music_text import MUSIC_TEXT
from muq_plugins.evaluation.run_files import MetricsLog
from muq_plugins.evaluation.zero_shot import clips as latents
from muq_plugins.evaluation.zero_shot.scores import (
    evaluate_mulan,
    load_scores,
    save_scores,
)

NAMES = ["flute", "oboe", "tuba", "viola"]
FAMILIES = ["pipe", "reed", "brass", "strings"]


@pytest.fixture
def entries(tmp_path):
    """Twenty clips of ten pieces."""
    for i in range(20):
        (tmp_path / f"{i}.wav").write_bytes(b"")
    return {
        str(i): {
            "wav": str(tmp_path / f"{i}.wav"),
            "piece": str(i // 2),
            "instruments": [NAMES[i % 4]],
            "families": [FAMILIES[i % 4]],
            "family": FAMILIES[i % 4],
            "tempo_bpm": 60.0 + 20 * (i % 5),
        }
        for i in range(20)
    }


@pytest.fixture
def evaluate(tmp_path):
    """Evaluates, with latents in a folder of the test."""
    return partial(evaluate_mulan, latents_folder=tmp_path / "latents")


class Oracle:
    """Knows which texts belong to which file."""

    fingerprint = "oracle"
    vectors = {}  # of all oracles: latents are kept

    def __init__(self, entries):
        self.entries = {entry["wav"]: entry for entry in entries.values()}
        self.heard = []

    def embed_text(self, texts):
        return torch.stack([self.vector(text) for text in texts])

    def vector(self, text):
        """A direction of its own for each text that was asked for."""
        return torch.eye(60)[self.vectors.setdefault(text, len(self.vectors))]

    def embed_file(self, path):
        self.heard.append(path)
        entry, i = self.entries[path], NAMES.index(self.entries[path]["instruments"][0])
        families = ["flutes and pipes", "reed instruments", "brass", "strings"]
        chinese = ["长笛", "双簧管", "大号", "中提琴"]
        families_zh = ["笛类乐器", "簧片乐器", "铜管乐器", "弦乐器"]
        fitting = [full_caption(entry, "en"), full_caption(entry, "zh")]
        fitting += [NAMES[i], families[i], chinese[i], families_zh[i]]
        return sum(self.vector(text) for text in fitting)


class Deaf(Oracle):
    """Hears the same in every file."""

    fingerprint = "deaf"

    def embed_file(self, path):
        return torch.ones(60)


def values(scores):
    for directions in scores["retrieval"].values():
        for found in directions.values():
            yield found["recall_at_1"]["value"], found["chance"]["recall_at_1"]


def test_a_model_that_knows_everything_is_perfect(entries, evaluate):
    scores = evaluate(Oracle(entries), entries)
    assert (scores["clips"], scores["pieces"]) == (20, 10)
    assert list(scores["retrieval"]) == ["en", "zh"]
    assert all(value == 1.0 for value, _ in values(scores))
    for kind in ("instrument", "family"):
        for language in ("en", "zh"):
            assert scores["tagging"][kind][language]["roc_auc"]["value"] == 1.0


def test_a_model_that_knows_nothing_is_at_chance(entries, evaluate):
    scores = evaluate(Deaf(entries), entries)
    for value, chance in values(scores):
        assert value == pytest.approx(chance)
        assert chance == pytest.approx(1 / 20)
    assert scores["tagging"]["family"]["en"]["roc_auc"]["value"] == 0.5


def test_clips_with_the_same_caption_answer_it_alike(entries, evaluate, tmp_path):
    (tmp_path / "copy.wav").write_bytes(b"")
    twice = {**entries, "copy": {**entries["3"], "wav": str(tmp_path / "copy.wav")}}
    scores = evaluate(Oracle(twice), twice)
    assert all(value == 1.0 for value, _ in values(scores))
    # Their caption is asked once, and is one text to find.
    to_music, to_text = scores["retrieval"]["en"].values()
    assert (to_music["queries"], to_music["items"]) == (20, 21)
    assert (to_text["queries"], to_text["items"]) == (21, 20)
    first, second, third = table_of(write_run(tmp_path / "run", scores))[2:5]
    assert first.startswith("| text to music, English |")
    assert second.startswith("| by chance | 5.0% |")
    assert third.startswith("| music to text, English |")


def test_an_interrupted_evaluation_goes_on(entries, evaluate, monkeypatch):
    monkeypatch.setattr(latents, "CHUNK", 8)

    class Breaks(Oracle):
        def embed_file(self, path):
            if path == entries["17"]["wav"]:
                raise KeyboardInterrupt
            return super().embed_file(path)

    with pytest.raises(KeyboardInterrupt):
        evaluate(Breaks(entries), entries)
    model = Oracle(entries)
    scores = evaluate(model, entries)
    assert all(value == 1.0 for value, _ in values(scores))
    assert model.heard == [entries[str(i)]["wav"] for i in range(16, 20)]


def test_progress_is_shown_only_if_asked_for(entries, evaluate, capsys):
    evaluate(Oracle(entries), entries)
    assert capsys.readouterr().err == ""
    evaluate(Oracle(entries), entries, progress=True)
    assert "1/1" in capsys.readouterr().err


def test_clips_without_labels_are_not_tagged(evaluate, tmp_path):
    class Own:
        fingerprint = "own"

        def embed_file(self, path):
            return torch.eye(2)[int(Path(path).name)]

        def embed_text(self, texts):
            return torch.eye(2)[[int(text) for text in texts]]

    own = {name: {"wav": str(tmp_path / name), "caption": name} for name in "01"}
    for entry in own.values():
        Path(entry["wav"]).write_bytes(b"")
    scores = evaluate(Own(), own)
    assert scores["tagging"] == {} and list(scores["retrieval"]) == ["own"]


def rows_of_a_run(loss=2.0):
    for step in range(1, 21):
        row = {"kind": "train", "stage": "mulan", "step": step, "time": step / 2}
        row |= {"loss": 3.4 - step / 20, "chance": 3.4, "accuracy": step / 40}
        row |= {"lr": 5e-4, "grad_norm": 1.0, "audio_seconds_per_second": 50.0}
        yield row
    yield {"kind": "valid", "stage": "mulan", "step": 20, "time": 10.0, "loss": loss,
           "chance": 3.4, "accuracy": 0.4}  # fmt: skip


def write_run(folder, scores, loss=2.0, steps=None):
    """A run folder."""
    log = MetricsLog(folder / "metrics.jsonl")
    for row in list(rows_of_a_run(loss))[:steps]:
        log.write(row)
    if scores:
        save_scores(folder, scores)
    return folder


def table_of(folder):
    """The lines of the table of retrieval."""
    text = report(folder).with_name("report.md").read_text(encoding="utf-8")
    part = text.split("## Does it find unseen pieces?")[1]
    return [line for line in part.splitlines() if line.startswith("|")]


@pytest.fixture
def run(entries, evaluate, tmp_path):
    """A run folder."""
    return write_run(tmp_path, evaluate(Oracle(entries), entries))


def test_the_report_has_everything(run):
    page = report(run).read_text(encoding="utf-8")
    text = (run / "report.md").read_text(encoding="utf-8")
    assert page.count("<img") == 2
    assert "| text to music, English | 100.0% (100.0% to 100.0%) |" in text
    assert text.count("| by chance | 5.0% |") == 4
    assert "| instrument, Chinese | 4 | 1.00 (1.00 to 1.00) |" in text
    assert "| family | brass | 5 | 1.00 | 1.00 |" in text
    assert "unseen clips are found, recall at 10 100.0%" in text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.6, 0.9, "good: text to music, en: unseen clips are found, recall"),
        (0.4, 0.9, "undecided: text to music, en: whether unseen clips are found is"),
        (0.1, 0.4, "warning: text to music, en: unseen clips are found less often th"),
    ],
)
def test_what_an_interval_around_chance_says(run, low, high, said):
    scores = load_scores(run)
    recall = {"value": 0.5, "low": low, "high": high}
    scores["retrieval"]["en"]["text to music"]["recall_at_10"] = recall
    save_scores(run, scores)
    verdicts = map(str, MUSIC_TEXT.verdicts_of(read_run(run)[1]))
    assert any(verdict.startswith(said) for verdict in verdicts)


def test_the_headline_is_what_matters(run):
    first, second, third = headline(run)
    assert first == (
        "text to music, recall at 10 100.0% / 100.0% (captions en / zh; 20 unseen "
        "clips, chance: 50.0%)"
    )
    assert second.startswith("music to text, recall at 10 100.0% / 100.0%")
    assert third.startswith("zero-shot tagging by instrument, ROC-AUC 1.00 / 1.00")


def test_a_report_without_scores_has_the_training(run):
    (run / "mulan.json").unlink()
    assert load_scores(run) == {}
    text = (report(run).parent / "report.md").read_text(encoding="utf-8")
    assert "Do music and text find each other?" in text and "Tag by tag" not in text


@pytest.mark.parametrize(
    ("model", "loss", "steps", "levels"),
    [
        (Oracle, 2.0, None, ["good"] * 4),
        (Deaf, 2.0, None, ["undecided"] * 4),
        (None, 3.38, None, ["problem"]),
        (None, 2.0, 20, ["warning"]),
    ],
)
def test_verdicts(entries, evaluate, tmp_path, model, loss, steps, levels):
    scores = evaluate(model(entries), entries) if model else {}
    page = report(write_run(tmp_path / "run", scores, loss, steps))
    text = page.with_name("report.md").read_text(encoding="utf-8")
    assert re.findall(r"^- \*\*(\w+)\*\*: ", text, re.M) == levels


def test_scores_are_plain_numbers(entries, evaluate, tmp_path):
    scores = evaluate(Oracle(entries), entries)
    save_scores(tmp_path, scores)
    assert load_scores(tmp_path)["retrieval"] == scores["retrieval"]
    assert not isinstance(scores["clips"], np.generic)


def test_what_two_models_are_paired_by_is_kept(entries, evaluate):
    """Of each query what was found and its piece, of each draw the means of tags."""
    scores = evaluate(Deaf(entries), entries)
    for directions in scores["retrieval"].values():
        for found in directions.values():
            kept = found["per_query"]
            assert len(kept["group"]) == found["queries"]
            assert set(kept["group"]) == {str(piece) for piece in range(10)}
            for name in ("recall_at_5", "map_at_10"):
                value = pytest.approx(found[name]["value"], abs=1e-5)
                assert np.mean(kept[name]) == value
    for by_language in scores["tagging"].values():
        for found in by_language.values():
            low, high = np.percentile(found["draws"]["roc_auc"], [2.5, 97.5])
            assert low == pytest.approx(found["roc_auc"]["low"], abs=1e-5)
            assert high == pytest.approx(found["roc_auc"]["high"], abs=1e-5)
