"""The page and the headline show every number beside chance."""

import json

import numpy as np

from muq_plugins.evaluation.intervals import plain
from muq_plugins.evaluation.zero_shot.page import save_zero_shot, zero_shot_report
from muq_plugins.evaluation.zero_shot.scores import (
    caption_scores,
    least_similarity,
    tag_scores,
)


def test_the_report_shows_every_number_beside_chance(folder, tmp_path, load, caplog):
    clips = load()
    audio = np.array([[1.0, 0, 0], [0.6, 0, 0.8], [-1, 0, 0]])
    retrieval = caption_scores(clips, audio, ["loud", "calm"], np.eye(3)[[0, 2]])
    scores = {
        "model": "mine",
        "fingerprint": "1ec3",
        "data": clips.name,
        "clips": 30,
        "groups": 5,
        "clip_seconds": 10.0,
        "prompts": ["{tag} music"],
        "tagging": plain(tag_scores(clips, audio, np.eye(3))),
        "accuracy": {"value": 0.1, "low": 0.05, "high": 0.2, "chance": 0.1},
        "retrieval": {name: plain(one) for name, one in retrieval.items()},
    }
    save_zero_shot(tmp_path / "out", scores)
    path = tmp_path / "out" / "zero_shot.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(scores))
    page, headline = zero_shot_report(tmp_path / "out")
    assert headline[0].startswith("tagging ROC-AUC 1.000")
    assert headline[2] == "accuracy 0.100 [0.050, 0.200] (chance 0.100)"
    text = (page.parent / "report.md").read_text()
    undecided = "- **undecided**: whether accuracy is above chance is undecided: its"
    assert f"{undecided} interval is 0.050 to 0.200, chance is 0.100." in text
    assert '"{tag} music"' in text
    assert "no clip has them: genre---folk." in text
    assert "| genre---pop | 1 | 1.000 | 1.000 |" in text
    assert "| genre---folk | 0 | - | - |" in text
    assert "all texts are the same" not in text and "left out" not in text
    # Among fewer recordings it is easier to find one.
    lost = [
        {"path": f"{at}.mp3", "reason": "missing", "detail": ""} for at in range(28)
    ]
    save_zero_shot(tmp_path / "lost", {**scores, "left_out": lost})
    lacks, _ = zero_shot_report(tmp_path / "lost")
    for page_text in (lacks.read_text(), caplog.text):
        assert "28 of 58 recordings, without a file or broken, are left" in page_text
    # T24: a projection of texts that has died gives one latent for all of them.
    dead = np.array([[1.0, 0.02], [1.0, 0.0], [2.0, 0.01]])
    assert least_similarity(dead) > 0.99 and least_similarity(dead[:1]) is None
    assert least_similarity(np.eye(2)) == 0
    # Of so few nothing is known, be the number 1 or that of guessing.
    perfect = {"accuracy": {"value": 1.0, "low": 1.0, "high": 1.0, "chance": 0.5}}
    for changes, words in (
        ({"groups": 1, **perfect}, "in 1 groups, are too few to say whether accuracy"),
        ({"clips": 3, "groups": None, **perfect}, "undecided: 3 clips, in 3 groups"),
        ({}, "whether text to music, R@10"),
        (
            {"accuracy": {**scores["accuracy"], "chance": 0.3}},
            "warning: accuracy is be",
        ),
    ):
        few = {k: v for k, v in {**scores, **changes}.items() if v is not None}
        caplog.clear()
        save_zero_shot(tmp_path / "few", few)
        zero_shot_report(tmp_path / "few")
        assert words in caplog.text
    save_zero_shot(tmp_path / "dead", {**scores, "texts_alike": least_similarity(dead)})
    broken, _ = zero_shot_report(tmp_path / "dead")
    assert "all texts are the same to this model" in broken.read_text()
    for words in ("Text to music", "Music to text", "median rank", "mAP@10"):
        assert words in text
        assert words in page.read_text()
