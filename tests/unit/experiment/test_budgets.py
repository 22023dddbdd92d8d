"""One word that shortens all stages of an experiment."""

import json
from pathlib import Path

import pytest

from muq_plugins.errors import UserError
from muq_plugins.evaluation.marble.own import Labels, own_task
from muq_plugins.evaluation.probing.clips import Clip
from muq_plugins.evaluation.probing.tasks import make_tasks, task_data
from muq_plugins.experiment import load_hparams
from muq_plugins.experiment.budgets import BUDGETS, LABELLED_MINUTES, spend
from muq_plugins.experiment.extends import parse_yaml, resolve_experiment
from muq_plugins.shipped import HPARAMS

DATA = Path(__file__).parents[2] / "data"
TOKENIZER = "tokenizer.optimizer_step_limit"


def spent(name, **given):
    return spend(str(HPARAMS / name), {"budget": "tiny", **given})


def test_every_stage_is_shortened():
    found = spent("muq.yaml")
    assert found["optimizer_step_limit"] == 50 and found[TOKENIZER] == 100
    assert found["corpus_minutes"] == 20 and found["warmup_steps"] == 10
    assert TOKENIZER not in spent("targets/baseline_bestrq.yaml")
    iterations = spent("muq_iter.yaml")
    for stage in ("first", "iteration"):
        assert iterations[f"{stage}.overrides.{TOKENIZER}"] == 100
    assert spent("muq_mulan.yaml")["pretraining.overrides.optimizer_step_limit"] == 50


@pytest.mark.parametrize("name", ["muq.yaml", "muq_iter.yaml", "muq_mulan.yaml"])
@pytest.mark.parametrize("budget", ["tiny", "small"])
def test_what_it_sets_exists_and_is_less(name, budget):
    text = resolve_experiment(HPARAMS / name)
    found = spend(str(HPARAMS / name), {"budget": budget})
    after = parse_yaml(resolve_experiment(HPARAMS / name, found), name)
    assert after != parse_yaml(text, name)
    values = BUDGETS[budget]
    assert values["warmup_steps"] < values["optimizer_step_limit"]
    assert all(BUDGETS["tiny"][key] <= values[key] for key in values)


@pytest.mark.parametrize(
    ("name", "needed", "places", "tiny"),
    [
        ("probe", "encoder", ["corpora", 0], LABELLED_MINUTES),
        ("marble/embedded", "encoder", ["labels"], LABELLED_MINUTES),
        ("zero_shot/zero_shot_corpus", "model", ["clips", "prepare"], 20),
    ],
)
def test_what_is_measured_on_a_smaller_corpus_makes_it_elsewhere(
    name, needed, places, tiny
):
    """Few minutes in the folder of three hundred stop all that needs these."""
    for given, minutes in ({}, 300), (spent(f"{name}.yaml"), tiny):
        text = resolve_experiment(HPARAMS / f"{name}.yaml", {needed: "small", **given})
        part = load_hparams(text)
        for place in places:
            part = getattr(part, "keywords", part)[place]
        assert part.keywords["corpus_minutes"] == minutes
        assert part.keywords["corpus_folder"] == f"results/corpus-{minutes}min"


@pytest.mark.parametrize("name", ["probe", "marble/embedded"])
def test_labels_of_a_tiny_corpus_are_enough(name):
    """What its manifests and scores say of whole recordings, with that seed."""
    file = DATA / f"corpus_of_{LABELLED_MINUTES}_minutes.jsonl"
    clips = []
    for line in file.read_text("utf-8").splitlines():
        known = json.loads(line)
        wav = f"/{known['name']}.flac"
        clips.append(Clip(known["name"], wav, 1, known["part"], known))
    given = {"encoder": "small", **spent(f"{name}.yaml")}
    tree = parse_yaml(resolve_experiment(HPARAMS / f"{name}.yaml", given), name)
    for task in tree["tasks"]:
        if task.get("kind") == "frames" or task["label"] == "pitch":
            continue  # they are of MIDI files, and of rendered notes
        if name == "probe":
            task_data(*make_tasks([task], tree["group"]), clips)
        else:
            own_task(task, lambda: Labels("corpus", clips, "piece"), 10.0, 1).read("")


def test_what_is_given_wins_in_every_stage():
    found = spent("muq_iter.yaml", corpus_minutes=50)
    assert {v for k, v in found.items() if "corpus_minutes" in k} == {50}
    assert spent("muq.yaml", lr=1)["lr"] == 1


def test_the_whole_budget_changes_nothing():
    assert spend(str(HPARAMS / "muq.yaml"), {"budget": "full", "lr": 1}) == {"lr": 1}


def test_a_study_has_a_budget_of_its_own():
    path = str(HPARAMS / "studies" / "study_rvq.yaml")
    with pytest.raises(UserError, match="has a budget of its own"):
        spend(path, {"budget": "tiny"})
    own = {"budget": {"optimizer_step_limit": 3}}
    assert spend(path, own) == own


def test_what_it_cannot_mean_is_refused(tmp_path):
    with pytest.raises(UserError, match="tinny is none of tiny.*nearest is tiny"):
        spend(str(HPARAMS / "muq.yaml"), {"budget": "tinny"})
    (tmp_path / "a.yaml").write_text("seed: 1")
    with pytest.raises(UserError, match="says nothing about"):
        spend(str(tmp_path / "a.yaml"), {"budget": "tiny"})
