"""Captions and tags that models are compared on: always the same.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from muq_plugins.data.captions.labels import listed, tag_values
from muq_plugins.data.captions.tags import Tag, tags_of
from muq_plugins.data.captions.templates import FULL, fill
from muq_plugins.data.captions.texts import SEPARATORS, has_texts, sentences_of
from muq_plugins.data.captions.words import LANGUAGES, family_names, instrument_names

# What stands before the last of several instruments.
_AND = {"en": " and ", "zh": "和"}
# Kinds of tags that clips are compared by (see `TAG_LABELS`), and what names them.
TAGGED = {"instrument": instrument_names, "family": family_names}


def full_caption(entry: dict[str, Any], language: str) -> str:
    """Says everything that is known about a clip.

    Arguments
    ---------
    entry : dict
        Of a manifest, see `CaptionWriter`.
    language : str
        "en" or "zh".

    Returns
    -------
    str
        One sentence. An entry with texts of its own keeps its first caption, or all
        its tags, whatever the language.

    Example
    -------
    >>> entry = {"instruments": ["flute", "viola"], "tempo_bpm": 70, "key": "Bb major"}
    >>> full_caption(entry, "en")
    'Music, played on flute and viola, in B-flat major, at a slow tempo.'
    >>> full_caption(entry, "zh")
    '音乐，由长笛和中提琴演奏，降B大调，节奏缓慢。'
    """
    if has_texts(entry):
        return (sentences_of(entry) or [", ".join(listed(entry, "tags"))])[0]
    return fill(FULL[language], values_of(tags_of(entry, language), language))


def caption_languages(entries: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """The languages that the full captions of some clips differ in.

    Arguments
    ---------
    entries : dict
        Clip id to entry.

    Returns
    -------
    tuple of str
        "en" and "zh"; "own" alone if all clips bring texts of their own.

    Example
    -------
    >>> caption_languages({"song": {"caption": "Ein ruhiges Lied."}})
    ('own',)
    """
    return ("own",) if all(map(has_texts, entries.values())) else LANGUAGES


def tag_table(
    entries: dict[str, dict[str, Any]], kind: str
) -> tuple[list[str], np.ndarray]:
    """Which tags there are, and which clips have them.

    Instruments are those of ``instruments``. Families are those of ``families``, where
    the embedded corpus has all families of a clip; the ``family`` that captions name
    is taken where an entry has none.

    Arguments
    ---------
    entries : dict
        Clip id to entry.
    kind : str
        One of `TAGGED`.

    Returns
    -------
    tags : list of str
        As the manifest names them, sorted; empty without such labels.
    truth : numpy.ndarray
        (clips, tags) bool, clips in the order of the entries.

    Raises
    ------
    ValueError
        If a label is wrong, see `muq_plugins.data.captions.labels.label_values`.

    Example
    -------
    >>> entries = {"a": {"families": ["brass"]}, "b": {"families": ["brass", "reed"]}}
    >>> tags, truth = tag_table(entries, "family")
    >>> tags, truth.tolist()
    (['brass', 'reed'], [[True, False], [True, True]])
    """
    named = [set(tag_values(entry, kind)) for entry in entries.values()]
    tags = sorted(set().union(*named))
    truth = [[tag in names for tag in tags] for names in named]
    return tags, np.array(truth, dtype=bool).reshape(len(named), len(tags))


def tag_texts(tags: list[str], kind: str, language: str) -> list[str]:
    """What a model is asked about tags.

    Arguments
    ---------
    tags : list of str
        From `tag_table`.
    kind : str
        One of `TAGGED`.
    language : str
        "en" or "zh".

    Returns
    -------
    list of str
        The usual name of each, as in a plain list of tags.

    Example
    -------
    >>> tag_texts(["brass", "pipe"], "family", "en")
    ['brass', 'flutes and pipes']
    """
    return [TAGGED[kind](tag, language)[0] for tag in tags]


def values_of(
    tags: Sequence[Tag], language: str, rng: random.Random | None = None
) -> dict[str, str]:
    """What is put into a template.

    Arguments
    ---------
    tags : sequence of Tag
        At least one.
    language : str
        "en" or "zh".
    rng : random.Random or None
        Chooses among the names of a tag; None takes the usual one.

    Returns
    -------
    dict
        Kind to text; several tags of a kind become one text.

    Example
    -------
    >>> tags = [Tag("instruments", (name,)) for name in ("flute", "oboe", "viola")]
    >>> values_of(tags, "en")
    {'instruments': 'flute, oboe and viola'}
    """
    names: dict[str, list[str]] = {}
    for tag in tags:
        name = rng.choice(tag.names) if rng else tag.names[0]
        names.setdefault(tag.kind, []).append(name)
    comma = SEPARATORS[language][-1]
    return {
        kind: _AND[language].join(filter(None, [comma.join(several), last]))
        for kind, (*several, last) in names.items()
    }
