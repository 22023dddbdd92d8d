"""Sentences around tags.

A template names kinds of tags in braces. A part in brackets is left out if the caption
has no tag of its kind; whatever stands outside brackets must be there.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import re
from collections.abc import Collection
from functools import lru_cache

ENGLISH = (
    "A piece[ by {composer}][ in {key}][ for {family}][, played on {instruments}]"
    "[, in {metre}][, at a {tempo} tempo].",
    "Music[ for {family}][ by {composer}][ in {key}][, {metre}][; the instruments "
    "are {instruments}][; the tempo is {tempo}].",
    "A recording of music[ by {composer}][ for {family}][ with {instruments}]"
    "[ in {key}][; {tempo}][; {metre}].",
    "Instrumental music[ with {instruments}][, for {family}][, composed by {composer}]"
    "[, {tempo}][, in {metre}][, in {key}].",
    "A[ {tempo}] performance[ of music by {composer}][ on {instruments}]"
    "[, scored for {family}][, in {metre}][, in {key}].",
    "Listen to[ {instruments} in] this[ {tempo}] piece[ for {family}][ by {composer}]"
    "[, written in {key}][, counted in {metre}].",
    "{instruments} playing[ {tempo}] music[ by {composer}][ for {family}][ in {key}]"
    "[, in {metre}].",
    "{instruments} can be heard here[, arranged for {family}][, music by {composer}]"
    "[, with a {tempo} pulse][, in {metre}][, in {key}].",
    "We hear {instruments}[ play {composer}][, music for {family}][, in {key}]"
    "[, {tempo}][, in {metre}].",
    "The sound of {instruments}[ in a {tempo} tempo][, in {metre}][, {family}]"
    "[, a work by {composer}][, in {key}].",
    "Played by {instruments}[: {composer}][, for {family}][, {tempo}][, {key}]"
    "[, {metre}].",
    "{family}[, namely {instruments}][, play {composer}][ at a {tempo} pace]"
    "[ in {metre}][, in {key}].",
    "Music for {family}[ with {instruments}][, {tempo}][, by {composer}][, in {key}]"
    "[, in {metre}].",
    "An arrangement for {family}[ of music by {composer}][, played on {instruments}]"
    "[, {tempo}][, in {metre}][, in {key}].",
    "A {tempo} piece[ for {family}][ by {composer}][ with {instruments}][ in {metre}]"
    "[, in {key}].",
    "The music is {tempo}[, in {metre}][, in {key}][, by {composer}][, for {family}]"
    "[ and features {instruments}].",
    "It moves at a {tempo} pace[ in {metre}][; {instruments} play][; {family}]"
    "[; composed by {composer}][; in {key}].",
    "{composer}[ in {key}][, for {family}][, on {instruments}][, at a {tempo} tempo]"
    "[, in {metre}].",
    "A composition by {composer}[, {tempo}][, in {metre}][, for {family}]"
    "[, heard on {instruments}][, in {key}].",
    "This is music by {composer}[, arranged for {family}][, with {instruments}]"
    "[, in {key}][, in {metre}][, and it is {tempo}].",
    "In {key}[ and {metre}][: {instruments}][, {family}][, {tempo}][, by {composer}].",
    "A track in {metre}[, {tempo}][, with {instruments}][, for {family}]"
    "[, by {composer}][, in {key}].",
)

CHINESE = (
    "一段[{composer}创作的][{key}]音乐[，由{instruments}演奏][，属于{family}]"
    "[，{metre}][，节奏{tempo}]。",
    "这首[{key}]乐曲[出自{composer}][，使用了{instruments}][，{family}][，{metre}]"
    "[，节奏{tempo}]。",
    "[{composer}的]器乐作品[，为{family}而作][，有{instruments}][，{key}][，{metre}]"
    "[，节奏{tempo}]。",
    "录音里是[{composer}的]音乐[，可以听到{instruments}][，{key}][，{family}][，{metre}]"
    "[，节奏{tempo}]。",
    "一首[节奏{tempo}的][{metre}的][{key}的]曲子[，作曲家是{composer}]"
    "[，为{family}改编][，乐器有{instruments}]。",
    "请听这段[节奏{tempo}的]音乐[：{instruments}][，{family}][，{composer}作曲]"
    "[，{key}][，{metre}]。",
    "由{instruments}演奏的[{composer}的]音乐[，{family}][，{key}][，{metre}]"
    "[，节奏{tempo}]。",
    "{instruments}奏出[{composer}的]旋律[，节奏{tempo}][，{metre}][，{key}][，{family}]。",
    "可以听到{instruments}[，节奏{tempo}][，为{family}而作][，{composer}的作品]"
    "[，{key}][，{metre}]。",
    "主要乐器是{instruments}[，属于{family}][，作曲家是{composer}][，{key}]"
    "[，节奏{tempo}][，{metre}]。",
    "{instruments}的声音[，{family}][，{metre}][，节奏{tempo}][，{key}][，{composer}]。",
    "{family}演奏[{composer}的]乐曲[，有{instruments}][，节奏{tempo}][，{metre}][，{key}]。",
    "为{family}创作的音乐[，包括{instruments}][，节奏{tempo}][，{key}][，{metre}]"
    "[，{composer}]。",
    "以{family}为主的一段音乐[，乐器是{instruments}][，{composer}作曲][，节奏{tempo}]"
    "[，{metre}][，{key}]。",
    "节奏{tempo}的音乐[，{instruments}演奏][，{family}][，{metre}][，{key}]"
    "[，{composer}的作品]。",
    "整首曲子节奏{tempo}[，{metre}][，用{instruments}演奏][，{family}][，{key}]"
    "[，由{composer}作曲]。",
    "音乐节奏{tempo}[，由{composer}谱写][，{key}][，{metre}][，{family}]"
    "[，{instruments}]。",
    "{composer}的作品[，由{instruments}演绎][，{family}][，{key}][，{metre}]"
    "[，节奏{tempo}]。",
    "作曲家{composer}[，{key}][，{metre}][，节奏{tempo}][，为{family}改编]"
    "[，由{instruments}演奏]。",
    "这是{composer}的音乐[，节奏{tempo}][，{family}][，可以听到{instruments}][，{key}]"
    "[，{metre}]。",
    "{key}的乐曲[，{metre}][，{instruments}][，{family}][，节奏{tempo}]"
    "[，{composer}作曲]。",
    "一首{metre}的乐曲[，节奏{tempo}][，有{instruments}][，{family}][，{key}]"
    "[，{composer}]。",
)

TEMPLATES = {"en": ENGLISH, "zh": CHINESE}

# Everything that is known, always in the same words: what models are compared on.
FULL = {
    "en": "Music[ by {composer}][ for {family}][, played on {instruments}][, in {key}]"
    "[, in {metre}][, at a {tempo} tempo].",
    "zh": "[{composer}的]音乐[，为{family}而作][，由{instruments}演奏][，{key}]"
    "[，{metre}][，节奏{tempo}]。",
}

_OPTIONAL = re.compile(r"\[([^\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def fill(template: str, values: dict[str, str]) -> str:
    """Puts values into a template.

    Arguments
    ---------
    template : str
        With ``{kind}`` and ``[parts]``.
    values : dict
        Kind to text.

    Returns
    -------
    str
        A sentence that begins with a capital letter.

    Raises
    ------
    KeyError
        If a kind outside brackets has no value.

    Example
    -------
    >>> fill("{tempo} music[ by {composer}][ in {key}].", {"tempo": "slow", "key": "D"})
    'Slow music in D.'
    """

    def part(found: re.Match) -> str:
        text = found[1]
        return text if all(kind in values for kind in _SLOT.findall(text)) else ""

    text = _SLOT.sub(lambda found: values[found[1]], _OPTIONAL.sub(part, template))
    return text[:1].upper() + text[1:]


def fitting_templates(language: str, kinds: Collection[str]) -> list[str]:
    """Finds the templates that name all of some kinds and need no other.

    Arguments
    ---------
    language : str
        "en" or "zh".
    kinds : collection of str
        Kinds of the tags of a caption.

    Returns
    -------
    list of str
        Templates.

    Example
    -------
    >>> fill(fitting_templates("en", {"tempo"})[0], {"tempo": "slow"})
    'A piece, at a slow tempo.'
    """
    kinds = set(kinds)
    return [
        template
        for template in TEMPLATES[language]
        if _kinds_needed(template) <= kinds <= set(_SLOT.findall(template))
    ]


@lru_cache
def _kinds_needed(template: str) -> set[str]:
    """The kinds outside brackets."""
    return set(_SLOT.findall(_OPTIONAL.sub("", template)))
