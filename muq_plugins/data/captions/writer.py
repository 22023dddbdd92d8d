"""Captions: another wording each time a clip is heard, or always the same."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from muq_plugins.data.captions.labels import (
    KINDS,
    SEPARATORS,
    Tag,
    check_entries,
    has_texts,
    listed,
    own_text,
    sample_tags,
    sentences_of,
    tag_list,
    tag_values,
    tags_of,
)
from muq_plugins.data.captions.wording import (
    FULL,
    LANGUAGES,
    family_names,
    fill,
    fitting_templates,
    instrument_names,
)
from muq_plugins.data.clips import keyed_integer
from muq_plugins.errors import UserError

# What stands before the last of several instruments.
_AND = {"en": " and ", "zh": "和"}
# Kinds of tags that clips are compared by (see `TAG_LABELS`), and what names them.
TAGGED = {"instrument": instrument_names, "family": family_names}


class CaptionWriter:
    """Writes a caption for each hearing of each clip.

    A caption is a plain list of tags, or a sentence around them, in one of the
    languages, and names only some of what is known (arXiv 2501.01108).

    It depends on nothing but the seed, the clip and its key: a resumed run, and
    a run of several processes, hears the same.

    The embedded corpus is labelled. Entries of other manifests may have any of
    its labels (``instruments``, ``family``, ``key``, ``tempo_bpm``,
    ``time_signature``, ``composer``), or texts of their own: ``caption`` (a text) or
    ``captions`` (a list of them), of which one is chosen, and ``tags`` (a list),
    of which a plain list is made. An entry with ``instruments`` is captioned from
    its labels; another one from its texts, if it has some. A label is a text or a list
    of texts, ``tempo_bpm`` a number or a word, and null is as if it were not there.
    ``families`` lists all families of a clip for `tag_table`, which reads ``family``
    where it is missing; captions name the ``family`` alone.
    """

    def __init__(
        self,
        entries: dict[str, dict[str, Any]],
        languages: Sequence[str] = LANGUAGES,
        tag_dropout: dict[str, float] | None = None,
        plain_tags: float = 0.5,
        seed: int = 1234,
    ):
        self.languages = _check_languages(languages)
        self.tag_dropout = _check_dropout(tag_dropout or {})
        if not 0 <= plain_tags <= 1:
            raise UserError(f"plain_tags is {plain_tags}, but a probability is 0..1.")
        self.entries = check_entries(entries)
        self.plain_tags = plain_tags
        self.seed = seed

    def caption(self, clip_id: str, clip_key: int) -> str:
        """Writes the caption of one hearing."""
        entry = self.entries[clip_id]
        draw = keyed_integer(1 << 62, self.seed, "caption", clip_key, clip_id)
        rng = random.Random(draw)
        plain = rng.random() < self.plain_tags
        if has_texts(entry):
            return own_text(entry, plain, rng)
        language = rng.choice(self.languages)
        tags = sample_tags(tags_of(entry, language), self.tag_dropout, rng)
        if plain:
            return tag_list([rng.choice(tag.names) for tag in tags], language, rng)
        rng.shuffle(tags)
        values = values_of(tags, language, rng)
        return fill(rng.choice(fitting_templates(language, values)), values)

    def full_caption(self, clip_id: str, clip_key: int) -> str:
        """Says everything that is known about a clip, in one of the languages."""
        place = keyed_integer(len(self.languages), "language", clip_key, clip_id)
        return full_caption(self.entries[clip_id], self.languages[place])

    def captions(self, clip_ids: Iterable[str], per_clip: int) -> list[str]:
        """Writes several captions of clips, as a text corpus."""
        return [
            self.caption(clip_id, key)
            for clip_id in clip_ids
            for key in range(per_clip)
        ]


def _check_languages(languages: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in languages if name not in LANGUAGES]
    if unknown or not languages or isinstance(languages, str):
        raise UserError(
            f"languages is {languages!r}, but must be a list of one or more of "
            f"{', '.join(LANGUAGES)}."
        )
    return tuple(languages)


def _check_dropout(dropout: dict[str, float]) -> dict[str, float]:
    for kind, share in dropout.items():
        if kind not in KINDS or not 0 <= share <= 1:
            raise UserError(
                f"tag_dropout: {kind} is {share}, but the kinds are "
                f"{', '.join(KINDS)}, and a probability is 0..1."
            )
    return dict(dropout)


def full_caption(entry: dict[str, Any], language: str) -> str:
    """Says everything that is known about a clip."""
    if has_texts(entry):
        return (sentences_of(entry) or [", ".join(listed(entry, "tags"))])[0]
    return fill(FULL[language], values_of(tags_of(entry, language), language))


def caption_languages(entries: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """The languages that the full captions of some clips differ in."""
    return ("own",) if all(map(has_texts, entries.values())) else LANGUAGES


def tag_table(
    entries: dict[str, dict[str, Any]], kind: str
) -> tuple[list[str], np.ndarray]:
    """Which tags there are, and which clips have them.

    Instruments are those of ``instruments``. Families are those of ``families``, where
    the embedded corpus has all families of a clip; the ``family`` that captions name
    is taken where an entry has none.
    """
    named = [set(tag_values(entry, kind)) for entry in entries.values()]
    tags = sorted(set().union(*named))
    truth = [[tag in names for tag in tags] for names in named]
    return tags, np.array(truth, dtype=bool).reshape(len(named), len(tags))


def tag_texts(tags: list[str], kind: str, language: str) -> list[str]:
    """What a model is asked about tags."""
    return [TAGGED[kind](tag, language)[0] for tag in tags]


def values_of(
    tags: Sequence[Tag], language: str, rng: random.Random | None = None
) -> dict[str, str]:
    """What is put into a template."""
    names: dict[str, list[str]] = {}
    for tag in tags:
        name = rng.choice(tag.names) if rng else tag.names[0]
        names.setdefault(tag.kind, []).append(name)
    comma = SEPARATORS[language][-1]
    return {
        kind: _AND[language].join(filter(None, [comma.join(several), last]))
        for kind, (*several, last) in names.items()
    }
