"""Labels of clips, in an order that is kept, and what a manifest may lack."""

import numpy as np
import pytest
import soundfile

from muq_plugins.data.datasets.tagged import Labelled, TaggedClip
from muq_plugins.data.preparation import Manifests
from muq_plugins.errors import UserError
from muq_plugins.evaluation.zero_shot.clips import labelled_clips, tagged_folder
from muq_plugins.files import write_json


def test_labels_in_the_order_of_the_list_of_tags(folder, load):
    clips = load()
    assert clips.files == ["/audio/a.wav", "/audio/b.wav", "/audio/c.wav"]
    assert clips.spoken == ["rock", "folk", "pop"]
    assert clips.truth.tolist() == [
        [True, False, False],
        [True, False, True],
        [False, False, False],
    ]
    assert clips.captions == ["loud", "calm", "loud"]
    assert clips.groups == ["x", "x", "y"]
    assert clips.name == f"{folder.name}, test"


def test_without_a_list_the_tags_are_those_that_occur(folder, load):
    (folder / "tags.json").unlink()
    clips = load(caption_key=None, group_key=None)
    assert clips.tags == ["genre---pop", "genre---rock"]
    assert clips.captions == []
    assert clips.groups == ["a", "b", "c"]


def test_captions_alone(folder, load):
    clips = load(tag_key=None)
    assert clips.tags == []
    assert clips.truth.shape == (3, 0)


def test_the_embedded_corpus_has_its_manifests_in_memory(folder):
    entry = {"wav": "a.wav", "duration": 1.0, "instruments": ["oboe", "tuba"]}
    corpus = Manifests(folder, {}, {}, {"a": entry})
    assert labelled_clips(lambda: corpus, tag_key="instruments").tags == [
        "oboe",
        "tuba",
    ]


def test_captions_of_the_corpus_are_those_of_its_labels_whatever_it_stores(folder):
    entry = {"wav": "a.wav", "duration": 1.0, "instruments": ["oboe", "tuba"]}
    corpus = Manifests(folder, {}, {}, {"a": {**entry, "caption": "Old words."}})
    clips = labelled_clips(lambda: corpus, tag_key=None, caption_key="caption")
    assert clips.captions == ["Music, played on oboe and tuba."]


ROCK, POP = "genre---rock", "genre---pop"


@pytest.mark.parametrize(
    ("options", "tags", "message"),
    [
        ({"part": "dev"}, [], "part must be one of train, valid, test, got 'dev'"),
        ({"part": "train"}, [], "There is no part 'train', only test"),
        ({"tag_key": "labels"}, [], "'a' has None under 'labels', expected a list"),
        ({"caption_key": "tags"}, [], "under 'tags', expected a str. It has: wav"),
        ({}, [ROCK, POP, ROCK], "'genre---rock' comes twice"),
        ({}, [ROCK], "'genre---pop', which is not in tags.json"),
    ],
)
def test_what_does_not_fit(folder, options, tags, message, load):
    write_json(folder / "tags.json", tags)
    with pytest.raises(UserError, match=message):
        load(**options)


def test_a_folder_without_manifests(tmp_path):
    with pytest.raises(UserError, match="holds none of train.json"):
        tagged_folder(tmp_path, tmp_path)


def published(folder, *names):
    """A data set whose test part has three songs, of which some have audio."""
    for name in names:
        soundfile.write(folder / name, np.full(800, 0.1), 8000)
    songs = {"c.wav": ["rock"], "a.wav": [], "b.wav": ["pop"]}
    clips = [TaggedClip(x, "test", tags, {"song": x[0]}) for x, tags in songs.items()]
    clips.append(TaggedClip("train.wav", "train", ["rock"]))
    return Labelled("GTZAN", folder, clips, ["rock", "pop"])


def test_a_published_data_set_is_what_its_reader_makes_of_it(tmp_path):
    """The audio of the other parts is not needed."""
    data = published(tmp_path, "a.wav", "b.wav", "c.wav")
    clips = labelled_clips(lambda: data, caption_key="song")
    assert clips.name == "GTZAN, test" and clips.tags == ["rock", "pop"]
    assert clips.files == [str(tmp_path / x) for x in ("c.wav", "a.wav", "b.wav")]
    assert clips.truth.tolist() == [[True, False], [False, False], [False, True]]
    assert clips.groups == ["c.wav", "a.wav", "b.wav"]
    assert clips.captions == ["c", "a", "b"] and not clips.left_out


def test_what_is_left_out_of_a_data_set_is_known(tmp_path):
    data = published(tmp_path, "b.wav")
    with pytest.raises(UserError, match="2 of 3 recordings are missing: c.wav, a.wav"):
        labelled_clips(lambda: data)
    clips = labelled_clips(lambda: data, leave_out_missing=True)
    assert clips.files == [str(tmp_path / "b.wav")]
    missing = [(one["path"], one["reason"]) for one in clips.left_out]
    assert missing == [("c.wav", "missing"), ("a.wav", "missing")]
    for part in ("train", "valid"):
        with pytest.raises(UserError, match=f"No clip of the part '{part}' of GTZAN"):
            labelled_clips(lambda: data, part, leave_out_missing=True)
