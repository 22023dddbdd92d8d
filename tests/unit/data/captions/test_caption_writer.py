"""Captions of training: many wordings, always the same for the same key."""

import collections
import random

import pytest

from muq_plugins.data.captions import CaptionWriter
from muq_plugins.data.captions.labels import COUNT_ODDS, Tag, sample_tags, tags_of

ENTRY = {
    "wav": "song.flac",
    "instruments": ["flute", "viola", "flute"],
    "family": "mixed",
    "key": "Bb major",
    "tempo_bpm": 70.0,
    "time_signature": "3/4",
    "composer": "Giuseppe Verdi",
    "caption": "The corpus has a caption too.",
}
ENGLISH = {
    "instruments": ("flute", "viola"),
    "family": ("mixed ensemble", "mixed instruments"),
    "key": ("b-flat major", "a major key"),
    "tempo": ("slow", "calm"),
    "metre": ("3/4 time",),
    "composer": ("verdi",),
}


def captions(count=400, entry=ENTRY, **settings):
    writer = CaptionWriter({"song": entry}, **settings)
    return [writer.caption("song", key) for key in range(count)]


def kinds_in(caption):
    text = caption.lower()
    return {kind for kind, names in ENGLISH.items() if any(n in text for n in names)}


def test_it_depends_on_seed_clip_and_key_alone():
    one, two = (CaptionWriter({"a": ENTRY, "b": ENTRY}, seed=3) for _ in range(2))
    forwards = [one.caption(clip, key) for clip in "ab" for key in range(30)]
    backwards = [two.caption(clip, key) for clip in "ba" for key in range(29, -1, -1)]
    assert forwards == backwards[::-1]
    assert forwards[:30] != forwards[30:]
    assert forwards[:30] != captions(30, seed=4)
    # What other clips there are does not matter.
    alone = CaptionWriter({"a": ENTRY}, seed=3)
    assert forwards[:30] == [alone.caption("a", key) for key in range(30)]


def test_half_are_lists_and_both_languages_occur():
    found = captions(1000)
    plain = [text for text in found if text[-1] not in ".。"]
    chinese = [text for text in found if any("\u4e00" <= c <= "\u9fff" for c in text)]
    assert 440 < len(plain) < 560
    assert 440 < len(chinese) < 560
    assert len(set(found)) > 700
    for text in set(plain) & set(chinese):
        assert "," not in text
    commas = collections.Counter(c for text in plain for c in text if c in "，、")
    assert 0.5 < commas["，"] / commas["、"] < 2


@pytest.mark.parametrize(("share", "sentences"), [(0.0, 100), (1.0, 0)])
def test_the_share_of_lists_can_be_set(share, sentences):
    found = captions(100, plain_tags=share)
    assert sum(text[-1] in ".。" for text in found) == sentences


def test_nothing_is_invented_and_everything_is_said_at_times():
    counts = collections.Counter()
    for text in captions(300, languages=["en"]):
        assert kinds_in(text), text
        counts.update(kinds_in(text))
    assert set(counts) == set(ENGLISH)
    assert all(40 < count < 290 for count in counts.values()), counts


def test_dropout_leaves_a_kind_out():
    without = captions(200, languages=["en"], tag_dropout={"composer": 1.0, "key": 0.8})
    counts = collections.Counter(kind for text in without for kind in kinds_in(text))
    assert counts["composer"] == 0
    assert 0 < counts["key"] < 0.25 * counts["instruments"]


def test_dropout_of_everything_leaves_something_to_say():
    found = captions(20, entry={"key": "D minor"}, tag_dropout={"key": 1.0})
    assert all("D" in text or "minor" in text or "小调" in text for text in found)


def test_the_number_of_tags_has_the_odds_of_the_recipe():
    tags = [Tag("instruments", (str(number),)) for number in range(5)]
    rng = random.Random(0)
    drawn = [len(sample_tags(tags, {}, rng)) for _ in range(5000)]
    shares = [drawn.count(n) / len(drawn) for n in range(1, 6)]
    assert shares == pytest.approx(COUNT_ODDS[5], abs=0.03)
    for count, odds in COUNT_ODDS.items():
        assert len(odds) == count and sum(odds) == pytest.approx(1)


def test_more_tags_than_the_recipe_knows_are_no_error():
    tags = [Tag("instruments", (str(number),)) for number in range(30)]
    rng = random.Random(0)
    drawn = [sample_tags(tags, {}, rng) for _ in range(200)]
    assert max(map(len, drawn)) == 10
    assert len({tag for some in drawn for tag in some}) == 30


def test_a_label_that_comes_twice_is_one_tag():
    names = [tag.names for tag in tags_of(ENTRY, "en") if tag.kind == "instruments"]
    assert names == [("flute",), ("viola",)]


def test_labels_win_over_the_caption_of_the_corpus():
    assert not any("has a caption too" in text for text in captions(100))


def test_texts_of_other_manifests_are_used_as_they_are():
    entry = {"captions": ["Ein Lied. 🎻", "一首歌"], "caption": "A song."}
    assert set(captions(60, entry)) == {"Ein Lied. 🎻", "一首歌", "A song."}


def test_tags_of_other_manifests_become_lists():
    entry = {"tags": ["jazz", "piano", "jazz"]}
    found = set(captions(60, entry))
    assert found == {"jazz", "piano", "jazz, piano", "piano, jazz"}
    chinese = set(captions(60, {"tags": ["爵士", "钢琴"]}))
    assert {"爵士，钢琴", "钢琴、爵士"} <= chinese
    assert set(captions(9, {"instruments": [], "tags": ["jazz"]})) == {"jazz"}
    both = captions(200, {"tags": ["jazz"], "caption": "A jazz song."}, plain_tags=0.5)
    assert 60 < both.count("jazz") < 140


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"wav": "x.flac"}, r"'song' \(x.flac\) has nothing to write a caption from"),
        ({"instruments": []}, "nothing to write a caption from"),
        ({"composer": "Anonymous"}, "nothing to write a caption from"),
        ({"caption": "  "}, "caption is '  ', but must be a text"),
        ({"captions": ["fine", ""]}, "captions is .* must be a list of texts"),
        ({"tags": []}, r"tags is \[\], but must be a list"),
        ({"tags": [3]}, r"tags is \[3\], but must be a list"),
        (
            {"captions": "A calm song."},
            "captions is 'A calm song.', but must be a list",
        ),
        ({"tags": "jazz"}, "tags is 'jazz', but must be a list of texts"),
        ({"caption": ["A song."]}, r"caption is \['A song.'\], but must be a text"),
        ({"caption": "\udcff"}, r"caption is '\\udcff', but must be a text"),
        (
            {"instruments": ["flute", None]},
            r"'song' .*: instruments is \['flute', None\]",
        ),
        ({"instruments": [""]}, r"instruments is \[''\], but must be a text"),
        ({"instruments": [5]}, r"instruments is \[5\], but must be a text"),
        ({"composer": " ", "key": "D minor"}, "composer is ' ', but must be a text"),
        ({"key": 5}, "'song' .*: key is 5, but must be a text"),
        (
            {"tempo_bpm": float("nan")},
            "tempo_bpm is nan, but must be a positive number",
        ),
        ({"tempo_bpm": True}, "tempo_bpm is True"),
        ({"caption": "A song.", "families": [5]}, r"families is \[5\]"),
        ({"caption": None, "key": None}, "nothing to write a caption from"),
    ],
)
def test_a_clip_without_a_text_is_an_error_that_names_it(entry, message):
    with pytest.raises(ValueError, match=message):
        CaptionWriter({"good": ENTRY, "song": entry})


def test_null_is_as_if_it_were_not_there():
    entry = {"instruments": None, "caption": "A calm song.", "tags": None}
    assert set(captions(20, entry)) == {"A calm song."}
    assert captions(20, {**ENTRY, "caption": None, "captions": None}) == captions(20)


def test_a_single_label_is_a_list_of_one():
    single = {**ENTRY, "instruments": "flute"}
    assert captions(20, single) == captions(20, {**ENTRY, "instruments": ["flute"]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"languages": ["en", "de"]}, r"languages is \['en', 'de'\]"),
        ({"languages": []}, r"languages is \[\]"),
        ({"languages": "en"}, "languages is 'en'"),
        ({"plain_tags": 1.5}, "plain_tags is 1.5"),
        ({"tag_dropout": {"genre": 0.1}}, "tag_dropout: genre is 0.1"),
        ({"tag_dropout": {"key": 2}}, "tag_dropout: key is 2"),
    ],
)
def test_wrong_settings_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        CaptionWriter({"song": ENTRY}, **settings)
