"""Sentences around any choice of tags."""

import itertools
import re

import pytest

from muq_plugins.data.captions import KINDS, LANGUAGES
from muq_plugins.data.captions.wording import FULL, TEMPLATES, fill, fitting_templates

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
        assert not re.search(r"[\[\]{}]|  |[,;:，；：] ?[,;:.，；：。]", sentence), (
            sentence
        )
        assert not re.match(r"[\W_]", sentence), sentence
        assert sentence.endswith("." if language == "en" else "。")


def test_there_are_many_different_templates():
    for language in LANGUAGES:
        assert len(set(TEMPLATES[language])) == len(TEMPLATES[language]) >= 20


def test_a_missing_value_is_not_left_out_silently():
    with pytest.raises(KeyError, match="composer"):
        fill("By {composer}.", {"tempo": "slow"})
