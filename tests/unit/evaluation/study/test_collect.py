"""From run folders to records, and from records to study.json."""

import json
import shutil

import numpy as np
import pytest

from muq_plugins.evaluation.probing.results import Row, TaskResult, save_results
from muq_plugins.evaluation.run_files import MetricsLog, save_diagnostics
from muq_plugins.evaluation.study import collect_study, run_record, study_report
from muq_plugins.evaluation.study.collect import run_numbers
from muq_plugins.evaluation.study.numbers import layer_scores, read_study
from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes import MuQEncoder

PRETRAIN = {
    "stage": "pretrain",
    "cross_entropy": 1.25,
    "accuracy": 0.5,
    "code_entropy": 1.38,
    "cross_entropy_per_codebook": [1.0, 1.5],
    "accuracy_per_codebook": [0.25, 0.75],
    "audio_seconds": 64.0,
}
TOKENIZER = {
    "stage": "tokenizer",
    "reconstruction_error_per_level": [0.8, 0.5, 0.1234567],
    "audio_seconds": 16.0,
}
TARGETS = np.array([0, 1, 1, 0])


def make_run(folder, predicted=(0, 1, 0, 0), targets=TARGETS, tokenizer=True):
    """A run folder with everything that a study reads."""
    log = MetricsLog(folder / "metrics.jsonl")
    log.write({**PRETRAIN, "kind": "valid", "step": 2, "time": 1.0})
    log.write({**PRETRAIN, "kind": "test", "step": 4, "time": 2.04})
    save_diagnostics(folder, code_counts=np.array([[2, 2], [4, 0]]))
    save_muq(folder / "inference", MuQEncoder(8, 1, 2, 8, 2))
    if tokenizer:
        MetricsLog(folder / "tokenizer" / "metrics.jsonl").write(
            {**TOKENIZER, "kind": "test", "step": 3, "time": 0.5}
        )
    hits = np.array(predicted) == targets
    value = np.mean([hits[targets == label].mean() for label in (0, 1)])
    rows = []
    for name, layers in (
        ("log-mel statistics", [None]),
        ("untrained encoder", [0, 1]),
        ("trained encoder", [0, 1, "mixture"]),
    ):
        for layer in layers:
            row = Row(name, "linear", layer, value, 0.0, 1.0, {}, validation=0.5)
            chosen = layer in (None, 1)
            rows.append(Row(**{**vars(row), "chosen": chosen}))
    clips = {"train": 4, "test": 4}
    predictions = {"targets": targets, "groups": np.array(["y", "y", "x", "x"])}
    for row in rows:
        every = [predicted, targets][: 1 + row.features.startswith("untrained")]
        predictions[f"{row.features}/linear/{row.layer}"] = np.array(every)
    result = TaskResult(
        *("key", "single", "piece", "semantic", "balanced_accuracy", 0.5),
        *(["C", "D"], clips, 2, rows),
        predictions=predictions,
    )
    probe = folder / "probes" / "corpus"
    save_results(probe, [result])
    return folder


def test_a_run_as_it_was(tmp_path):
    record = run_numbers(make_run(tmp_path))
    assert record["updates"] == 4 and record["audio_seconds"] == 64.0
    assert record["training_seconds"] == 2.0
    assert record["learning"] == {"updates": [2], "cross_entropy": [1.25]}
    assert (record["num_codebooks"], record["codebook_size"]) == (2, 2)
    assert record["usage"] == [1.0, 0.5] and record["perplexity"] == [2.0, 1.0]
    # Of 4 vectors: two codes occur in one codebook, one in the other.
    assert record["entropy_bias"] == (1 / 8 + 0) / 2
    assert record["tokenizer_audio_seconds"] == 16.0
    assert record["tokenizer_updates"] == 3
    assert record["reconstruction_error_per_level"] == [0.8, 0.5, 0.123457]
    encoder = MuQEncoder(8, 1, 2, 8, 2)
    values = sum(value.numel() for value in encoder.state_dict().values())
    assert record["parameters"] == values


def test_without_a_tokenizer_there_are_no_costs_of_one(tmp_path):
    record = run_numbers(make_run(tmp_path, tokenizer=False))
    assert record["tokenizer_seconds"] is None
    assert record["reconstruction_error_per_level"] is None


ABOUT = {
    "study": "x",
    "title": "X",
    "command": "python recipes/MuQ/ablate.py x.yaml",
    "base": "a",
    "seeds": [1],
    "budget": {"lr": 0.1},
    "experiments": {
        name: {"label": name, "file": "muq.yaml", "overrides": {}} for name in "ab"
    },
    "groups": [{"title": "All", "experiments": ["a", "b"]}],
    "questions": [],
}


def record_of(run, **changes):
    """A record as the study keeps it, of one probe."""
    path = run.with_suffix(".json")
    path.write_text(json.dumps({**run_record(run, ["corpus"], ["cpu"]), **changes}))
    return path


def test_a_study_can_be_read_again(tmp_path):
    runs = [(name, 1, record_of(make_run(tmp_path / name))) for name in "ab"]
    for name in "ab":
        shutil.rmtree(tmp_path / name)  # a record needs no folder
    path = collect_study(tmp_path, ABOUT, runs, ["corpus"], [])
    task = json.loads(path.read_text())["tasks"]["corpus/key"]
    assert task["targets"] == [0, 1, 1, 0] and task["pieces"] == [1, 1, 0, 0]
    scores = json.loads(path.read_text())["runs"][0]["probe"]["corpus/key"]
    assert set(scores) == {
        "log-mel statistics",
        "untrained encoder",
        "trained encoder",
    }
    trained = scores["trained encoder"]
    assert trained["hits"] == ["1101"] and trained["chosen"] == 1
    # What the base is compared with too is the same for all.
    other = json.loads(path.read_text())["runs"][1]["probe"]["corpus/key"]
    assert other == {"trained encoder": trained}
    assert scores["untrained encoder"]["hits"] == ["1101", "1111"]
    assert trained["value"] == 0.75  # the mean of 2 of 2 and 1 of 2
    assert trained["layers"] == [0.75, 0.75]  # without the mixture
    study = read_study(tmp_path)
    drawn = {
        name: study.draws["probe:corpus/key"][study.rows([name])[0], 0]
        for name in ("a", "untrained encoder")
    }
    # The mean of the first initialisation, which is like "a", and of one without error.
    np.testing.assert_allclose(drawn["untrained encoder"], (drawn["a"] + 1) / 2)
    assert len(study.runs_of("b")) == 1


def test_what_names_no_codes_is_compared_by_its_probes(tmp_path):
    silent = make_run(tmp_path / "b", predicted=(0, 1, 1, 0), tokenizer=False)
    (silent / "metrics.jsonl").unlink()
    row = {"stage": "pretrain", "loss": 0.4, "accuracy": 0.9, "audio_seconds": 64.0}
    row |= {"kind": "test", "step": 4, "time": 2.0}
    MetricsLog(silent / "metrics.jsonl").write(row)
    save_diagnostics(silent, frames=np.array(4))
    assert set(run_numbers(silent)) == {
        *("updates", "audio_seconds", "training_seconds", "parameters")
    }
    runs = [("a", 1, record_of(make_run(tmp_path / "a"))), ("b", 1, record_of(silent))]
    asked = [
        {"question": f"{name}?", "measure": name, "better": "b", "than": "a"}
        for name in ("probe", "gain", "accuracy")
    ]
    for base in "ab":
        about = {**ABOUT, "base": base, "questions": asked}
        collect_study(tmp_path, about, runs, ["corpus"], [])
        text = (study_report(tmp_path).parent / "report.md").read_text()
        probed, coded = text.split("## All: codes and how they are learned")
        assert "| a | " in coded and "| b | " not in coded.split("## ")[0]
        assert "| b | " in probed
        assert text.count("not comparable, as no codes are named by b") >= 2
        assert "probe? Undecided at this budget: one seed, +" in text


def test_notes_are_a_measure(tmp_path):
    """Frame by frame there are no hits, but a score of every clip."""
    clips = {"trained encoder": [[0.9, 0.7, 0.8]], "untrained encoder": [[0.5] * 3] * 2}
    rows = [
        Row(name, "linear", layer, float(np.mean(values)), 0, 1, {}, 0.5, layer == 1)
        for name, values in clips.items()
        for layer in (0, 1)
    ]
    result = TaskResult(
        *("notes", "frames", "piece", None, "clip_precision", 0.2, ["C4", "D4"]),
        *({"train": 4, "test": 3}, 2, rows),
        predictions={
            "groups": np.array(["y", "y", "x"]),
            **{row.key: np.array(clips[row.features]) for row in rows},
        },
    )
    run = make_run(tmp_path / "a")
    save_results(run / "probes" / "corpus", [result])
    run = record_of(run)
    question = {"question": "?", "measure": "notes", "better": "a", "than": "b"}
    about = {**ABOUT, "questions": [question]}
    runs = [("a", 1, run), ("b", 1, run)]
    content = json.loads(
        collect_study(tmp_path, about, runs, ["corpus"], []).read_text()
    )
    assert "targets" not in content["tasks"]["corpus/notes"]
    probe = content["runs"][0]["probe"]["corpus/notes"]
    assert probe["trained encoder"]["per_clip"] == [0.9, 0.7, 0.8]
    study = read_study(tmp_path)
    assert study.of("notes", "a")[0] == pytest.approx(0.8)
    assert study.of("notes", "untrained encoder")[0] == 0.5
    # From chance to no error, as all that the probe score is a mean of.
    assert study.of("probe", "a")[0] == pytest.approx((0.8 - 0.2) / 0.8)
    drawn = study.draws["notes"][0, 0]
    assert set(drawn.round(6)) == {0.8}  # both pieces have the same mean
    text = study_report(tmp_path).with_suffix(".md").read_text("utf-8")
    assert "notes in average precision within clips" in text
    # What is asked is shown first: beside chance, whatever that is, and layer by layer.
    assert study.headline == "notes" and study.levels["chance"] == 0.2
    assert "The notes AP of every layer." in text and "being chance" not in text
    head = "| Experiment | Notes AP (%) | Minus a | Probe score (%) | Minus a |"
    assert f"{head}\n" in text and "| chance | 20.0 | - | 0.0 | - |" in text
    layers = layer_scores(study, "a")[0].tolist()
    assert layers == pytest.approx([0.8, 0.8])
    assert "| corpus/notes | - | 2 | 3 | 2 | 20.0 |" in text


def test_other_test_clips_are_an_error(tmp_path):
    other = make_run(tmp_path / "b", targets=np.array([1, 0, 1, 0]))
    runs = [("a", 1, make_run(tmp_path / "a")), ("b", 1, other)]
    records = [(name, seed, record_of(run)) for name, seed, run in runs]
    with pytest.raises(ValueError, match="b.json was tested for corpus/key on other"):
        collect_study(tmp_path, ABOUT, records, ["corpus"], [])
    # A study that does not ask for this probe may have both.
    collect_study(tmp_path, ABOUT, records, [], [])


def test_the_machines_are_those_of_the_runs(tmp_path):
    machines = [{"processor": "p", "cores": 2}, {"processor": "p", "cores": 16}]
    records = []
    for name, machine in zip("ab", machines, strict=True):
        record = record_of(make_run(tmp_path / name), machine=machine)
        records.append((name, 1, record))
    path = collect_study(tmp_path, ABOUT, records, [], [])
    found = json.loads(path.read_text())["machine"]
    assert found == {"processor": "p", "cores": "16 or 2"}


def test_a_run_without_a_test_has_not_finished(tmp_path):
    run = make_run(tmp_path)
    path = run / "metrics.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="has no test row: not finished"):
        run_numbers(run)
