"""What models are compared on is always the same."""

import numpy as np
import pytest

from muq_plugins.data.captions import (
    CaptionWriter,
    caption_languages,
    full_caption,
    tag_table,
    tag_texts,
)
from muq_plugins.data.corpus import FAMILIES, INSTRUMENTS

ENTRY = {
    "instruments": ["flute", "viola", "oboe"],
    "family": "mixed",
    "families": ["pipe", "strings", "reed"],
    "key": "Bb major",
    "tempo_bpm": 70.0,
    "time_signature": "3/4",
    "composer": "Giuseppe Verdi",
}


def test_the_full_caption_says_all_that_is_known():
    assert full_caption(ENTRY, "en") == (
        "Music by Giuseppe Verdi for mixed ensemble, played on flute, viola and oboe, "
        "in B-flat major, in 3/4 time, at a slow tempo."
    )
    assert full_caption(ENTRY, "zh") == (
        "朱塞佩·威尔第的音乐，为混合乐队而作，由长笛、中提琴和双簧管演奏，降B大调，3/4拍，节奏缓慢。"
    )


def test_the_writer_gives_it_in_one_of_its_languages():
    writer = CaptionWriter({"song": ENTRY})
    found = {writer.full_caption("song", key) for key in range(20)}
    assert found == {full_caption(ENTRY, "en"), full_caption(ENTRY, "zh")}
    assert writer.full_caption("song", 7) == writer.full_caption("song", 7)
    chinese = CaptionWriter({"song": ENTRY}, languages=["zh"])
    assert chinese.full_caption("song", 7) == full_caption(ENTRY, "zh")


def test_texts_of_other_manifests_have_no_languages():
    own = {"a": {"captions": ["First.", "Second."]}, "b": {"tags": ["x", "y"]}}
    assert [full_caption(entry, "en") for entry in own.values()] == ["First.", "x, y"]
    assert caption_languages(own) == ("own",)
    assert caption_languages({**own, "c": ENTRY}) == ("en", "zh")


def test_tags_of_clips():
    entries = {"a": ENTRY, "b": {"instruments": ["flute"], "families": ["pipe"]}}
    tags, truth = tag_table(entries, "instrument")
    assert tags == ["flute", "oboe", "viola"]
    assert truth.tolist() == [[True, True, True], [True, False, False]]
    tags, truth = tag_table({"a": {"caption": "No labels."}}, "family")
    assert tags == [] and truth.shape == (1, 0) and truth.dtype == np.bool_


def test_tags_are_read_as_captions_read_them():
    entries = {"a": {"instruments": "flute"}, "b": {"instruments": None, "key": "C"}}
    tags, truth = tag_table(entries, "instrument")
    assert tags == ["flute"] and truth.tolist() == [[True], [False]]
    with pytest.raises(ValueError, match=r"instruments is \['flute', None\]"):
        tag_table({"a": {"instruments": ["flute", None]}}, "instrument")


def test_the_family_stands_in_for_families_that_are_missing():
    entries = {
        "a": {"family": "brass"},
        "b": {"family": "mixed", "families": ["brass", "reed"]},
        "c": {"family": "reed", "families": None},
        "d": {"family": "reed", "families": []},
    }
    tags, truth = tag_table(entries, "family")
    assert tags == ["brass", "reed"]
    assert truth.tolist() == [[1, 0], [1, 1], [0, 1], [0, 0]]


def test_every_tag_is_asked_for_by_a_text_of_its_own():
    names = {
        "instrument": [instrument.name for instrument in INSTRUMENTS.values()],
        "family": list(FAMILIES),
    }
    for kind, tags in names.items():
        for language in ("en", "zh"):
            texts = tag_texts(tags, kind, language)
            assert len(set(texts)) == len(tags)
