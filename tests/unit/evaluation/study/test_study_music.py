"""A study of music and text: from `mulan.json` to answers over seeds and pieces."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from muq_plugins.errors import UserError
from muq_plugins.evaluation.intervals import draws, plain
from muq_plugins.evaluation.retrieval import retrieval_scores
from muq_plugins.evaluation.run_files import MetricsLog
from muq_plugins.evaluation.scores import tagging_scores
from muq_plugins.evaluation.study import collect_study, run_record, study_report
from muq_plugins.evaluation.study.numbers import contrast, read_study
from muq_plugins.evaluation.study.page import answer
from muq_plugins.evaluation.zero_shot.scores import save_scores

CLIPS, PIECES = 60, 20
GROUPS = [f"piece {clip % PIECES}" for clip in range(CLIPS)]
ASKED = {"question": "Is good better?", "better": "good", "than": "bad"}
ABOUT = {
    "study": "x",
    "title": "X",
    "command": "python recipes/MuQ/ablate.py x.yaml",
    "base": "bad",
    "seeds": [1, 2, 3],
    "budget": {},
    "experiments": {
        name: {"label": name, "file": "muq_mulan.yaml", "overrides": {}}
        for name in ("bad", "good")
    },
    "groups": [{"title": "Towers", "experiments": ["bad", "good"]}],
    "questions": [{**ASKED, "measure": name} for name in ("map_at_10", "roc_auc")],
}


def make_run(folder, noise, seed, groups=GROUPS, kept=True):
    """A run of train_mulan.py, with what its evaluation keeps."""
    log = MetricsLog(folder / "metrics.jsonl")
    (folder / "inference").mkdir()
    save_file({"x": np.zeros(3)}, folder / "inference" / "model.safetensors")
    row = {"stage": "mulan", "kind": "test", "step": 4, "time": 2.0}
    log.write({**row, "audio_seconds": 64.0})
    rng = np.random.default_rng(seed)
    near = np.eye(CLIPS) + noise * rng.normal(size=(CLIPS, CLIPS))
    found = retrieval_scores(near, np.eye(CLIPS, dtype=bool), groups)
    truth = np.arange(CLIPS)[:, None] % 3 == np.arange(3)
    heard = truth + noise * rng.normal(size=truth.shape)
    tagged = tagging_scores(heard, truth, ["oboe", "tuba", "viola"], groups)
    without = [] if kept else ["per_query", "draws"]
    way, tags = plain(found, *without), plain(tagged, *without)
    ways = {"text to music": way, "music to text": way}
    content = {"clips": CLIPS, "pieces": PIECES, "retrieval": {"en": ways}}
    save_scores(folder, {**content, "tagging": {"instrument": {"en": tags}}})
    return folder


def record_of(run):
    """Its record, as the study keeps it."""
    path = run.with_suffix(".json")
    path.write_text(json.dumps(run_record(run, [], ["cpu"])))
    return path


@pytest.fixture
def collected(tmp_path):
    """From what the runs keep to the folder of the study."""

    def collect(**options):
        runs = []
        for name, noise in (("bad", 0.9), ("good", 0.4)):
            for seed in ABOUT["seeds"]:
                run = make_run(tmp_path / f"{name}-{seed}", noise, seed, **options)
                runs.append((name, seed, record_of(run)))
        # A run that is only there as an input of others has nothing of the kind.
        runs.append(("encoder", 1, tmp_path / "encoder"))
        collect_study(tmp_path, ABOUT, runs, [], [("encoder", 2)])
        return tmp_path

    return collect


def test_towers_are_compared_over_seeds_and_pieces(collected):
    folder = collected()
    study = read_study(folder)
    found = contrast(study, "map_at_10", {"good": 1.0, "bad": -1.0})
    per_query = [
        [
            study.runs[name, seed]["scores"]["map_at_10"]["per_query"]
            for seed in study.seeds
        ]
        for name in ("good", "bad")
    ]
    gain = np.mean(np.subtract(*per_query), axis=0)  # of each query
    weights = draws(GROUPS, 1000)
    expected = (weights @ gain / weights.sum(axis=1)).std(ddof=1)
    assert found.from_groups == pytest.approx(1.96 * expected, rel=1e-4)
    assert found.value == pytest.approx(gain.mean(), abs=1e-5)
    assert study.values["parameters"][0].tolist() == [3, 3, 3]
    for question in ABOUT["questions"]:
        said = answer(study, question)
        assert said.answer == "supported" and "over 3 seeds" in said.numbers
        assert said.found.from_groups > 0
    study_report(folder)
    text = (folder / "report.md").read_text("utf-8")
    assert "## Towers" in text and "Seeds only" not in text
    assert "| chance | 0." in text and "codes" not in text.split("## Towers")[1][:2000]


def test_without_queries_nothing_is_decided(collected):
    folder = collected(kept=False)
    for question in ABOUT["questions"]:
        said = answer(read_study(folder), question)
        assert said.answer == "undecided" and said.found.low > 0
        assert said.numbers.endswith("seeds only, without the choice of test pieces")
        assert np.isnan(said.p)
    study_report(folder)
    assert "Seeds only:" in (folder / "report.md").read_text("utf-8")


def test_other_clips_are_refused(collected, tmp_path):
    collected()
    other = make_run(tmp_path / "other", 0.9, 2, groups=list(range(CLIPS)))
    runs = [("bad", 1, tmp_path / "bad-1.json"), ("bad", 2, record_of(other))]
    with pytest.raises(UserError, match="other.json was tested for .* on other clips"):
        collect_study(tmp_path, ABOUT, runs, [], [])
