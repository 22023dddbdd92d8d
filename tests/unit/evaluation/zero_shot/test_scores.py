"""Similarities of clips and texts, scored by hand."""

import json

import numpy as np
import pytest

from muq_plugins.errors import UserError
from muq_plugins.evaluation.zero_shot.scores import (
    caption_scores,
    class_accuracy,
    distinct_captions,
    tag_scores,
)
from muq_plugins.files import write_json


def test_classes_are_scored_only_where_each_clip_has_one(folder, load):
    clips = load()
    assert class_accuracy(clips, np.eye(3), np.eye(3)) is None
    entries = json.loads((folder / "test.json").read_text())
    names = ["genre---rock", "genre---pop", "genre---pop"]
    for entry, tag in zip(entries.values(), names, strict=True):
        entry["tags"] = [tag]
    write_json(folder / "test.json", entries)
    clips = load()
    audio = np.array([[1.0, 0, 0], [0, 0, 1], [0, 0.5, 0.5]])
    found = class_accuracy(clips, audio, np.eye(3))
    # Right; right; folk and pop are equally near.
    assert found["value"] == pytest.approx(2.5 / 3)
    assert found["chance"] == 1 / 3
    assert found["low"] < found["value"] < found["high"]


def test_tags_are_scored_by_similarity(folder, load):
    clips = load()
    audio = np.array([[1.0, 0], [0.6, 0.8], [-1, 0]])
    texts = np.array([[1.0, 0], [0, -1], [0, 1]])
    found = tag_scores(clips, audio, texts)
    assert [tag.roc_auc for tag in found.tags] == [1, None, 1]
    assert found.without_positive == ["genre---folk"]


def test_clips_with_one_caption_are_all_right_answers(folder, load):
    clips = load()
    captions = distinct_captions(clips)
    assert captions == ["loud", "calm"]
    audio = np.array([[1.0, 0], [0, 1], [0.9, 0.1]])
    found = caption_scores(clips, audio, captions, np.eye(2))
    to_audio, to_text = found["text to music"], found["music to text"]
    assert to_audio.map_at_10.value == to_text.map_at_10.value == 1
    assert (to_audio.queries, to_audio.items) == (2, 3)
    assert (to_text.queries, to_text.items) == (3, 2)
    # Chance knows that "loud" has two of three.
    assert to_audio.chance["recall_at_1"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    with pytest.raises(UserError, match="caption 'calm' of a clip is not among"):
        caption_scores(clips, audio, ["loud"], np.eye(2)[:1])
