"""Names of what is labelled, and sentences around any choice of tags."""

import itertools
import re

import pytest

from muq_plugins.data.captions import KINDS, LANGUAGES
from muq_plugins.data.captions import wording as words
from muq_plugins.data.captions.wording import FULL, TEMPLATES, fill, fitting_templates
from muq_plugins.data.corpus import FAMILIES, INSTRUMENTS
from muq_plugins.data.corpus.pieces import COLLECTIONS, find_pieces
from muq_plugins.data.corpus.scores import key_name


def is_chinese(text):
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def test_every_instrument_of_the_corpus_has_a_chinese_name_of_its_own():
    names = [instrument.name for instrument in INSTRUMENTS.values()]
    chinese = [words.instrument_names(name, "zh")[0] for name in names]
    assert all(map(is_chinese, chinese))
    assert len(set(chinese)) == len(set(names)) == 64


@pytest.mark.parametrize("family", [*FAMILIES, "mixed"])
def test_every_family_has_names(family):
    english, chinese = (words.family_names(family, code) for code in words.LANGUAGES)
    assert len(english) == len(chinese) == 2
    assert all(map(is_chinese, chinese)) and not any(map(is_chinese, english))


def test_every_composer_of_the_corpus_has_names():
    composers = {piece.composer for piece in find_pieces(COLLECTIONS)}
    for composer in composers - {words.UNKNOWN_COMPOSER}:
        full, short = words.composer_names(composer, "en")
        assert full == composer and full.endswith(short.split()[-1])
        assert all(map(is_chinese, words.composer_names(composer, "zh")))
    # Nothing can be learned from a composer whom nobody knows.
    assert words.UNKNOWN_COMPOSER in composers
    assert words.composer_names(words.UNKNOWN_COMPOSER, "zh") == ()


def test_every_key_has_a_name():
    keys = [key_name(t, mode) for t in range(12) for mode in ("major", "minor")]
    chinese = [words.key_names(key, "zh") for key in keys]
    assert len({exact for exact, _ in chinese}) == 24
    assert {mode for _, mode in chinese} == {"大调", "小调"}
    assert words.key_names("Eb minor", "zh") == ("降E小调", "小调")
    assert words.key_names("Eb minor", "en") == ("E-flat minor", "a minor key")


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_faster_music_has_other_words(language):
    found = [words.tempo_names(tempo, language) for tempo in (65.9, 66, 84, 108, 138)]
    assert len(set(sum(found, ()))) == 10


@pytest.mark.parametrize(
    "names_of", [words.instrument_names, words.family_names, words.composer_names]
)
def test_what_is_not_known_stays_as_it_is(names_of):
    assert names_of("a kazoo", "zh") == names_of("a kazoo", "en") == ("a kazoo",)
    assert words.key_names("D dorian", "zh") == ("D dorian",)
    assert words.tempo_names("rubato", "zh") == ("rubato",)


VALUES = {
    "instruments": "flute and oboe",
    "family": "woodwinds",
    "key": "D major",
    "tempo": "slow",
    "metre": "3/4 time",
    "composer": "Verdi",
}


# Something unfilled, two spaces, or nothing between two marks.
UNTIDY = r"[\[\]{}]|  |[,;:，；：] ?[,;:.，；：。]"


CHOICES = [
    choice
    for count in range(1, len(KINDS) + 1)
    for choice in itertools.combinations(KINDS, count)
]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kinds", CHOICES, ids="+".join)
def test_any_choice_of_tags_is_said_completely_and_cleanly(language, kinds):
    values = {kind: VALUES[kind] for kind in kinds}
    templates = fitting_templates(language, kinds)
    assert len(templates) >= 5
    for template in [*templates, FULL[language]]:
        sentence = fill(template, values)
        for kind, value in VALUES.items():
            assert (value.lower() in sentence.lower()) == (kind in kinds), sentence
        assert not re.search(UNTIDY, sentence), sentence
        assert not re.match(r"[\W_]", sentence), sentence
        assert sentence.endswith("." if language == "en" else "。")


def test_there_are_many_different_templates():
    for language in LANGUAGES:
        assert len(set(TEMPLATES[language])) == len(TEMPLATES[language]) >= 20


def test_a_missing_value_is_not_left_out_silently():
    with pytest.raises(KeyError, match="composer"):
        fill("By {composer}.", {"tempo": "slow"})
