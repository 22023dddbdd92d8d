"""Captions for training: another wording each time a clip is heard.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from muq_plugins.data.captions.fixed import full_caption, values_of
from muq_plugins.data.captions.tags import KINDS, sample_tags, tags_of
from muq_plugins.data.captions.templates import fill, fitting_templates
from muq_plugins.data.captions.texts import (
    check_entries,
    has_texts,
    own_text,
    tag_list,
)
from muq_plugins.data.captions.words import LANGUAGES
from muq_plugins.data.sampling import keyed_integer


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

    Arguments
    ---------
    entries : dict
        Clip id to entry of a manifest.
    languages : sequence of str
        Any of "en" and "zh", of which each caption has one.
    tag_dropout : dict or None
        Kind of tags ("instruments", "family", "key", "tempo", "metre", "composer")
        to the probability that a caption says nothing of it.
    plain_tags : float
        Probability of a plain list of tags, 0..1.
    seed : int
        Seed of the experiment.

    Raises
    ------
    ValueError
        If a clip has nothing to write a caption from, or labels or texts that are
        none, or an argument is wrong.

    Example
    -------
    >>> entry = {"instruments": ["flute", "viola"], "tempo_bpm": 70.0, "key": "D major"}
    >>> writer = CaptionWriter({"song": entry}, seed=1)
    >>> for key in (0, 2, 3, 5):
    ...     print(writer.caption("song", key))
    Instrumental music, slow.
    viola, a major key
    D大调，中提琴，平缓
    一首节奏平缓的大调的曲子，乐器有中提琴。
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
            raise ValueError(f"plain_tags is {plain_tags}, but a probability is 0..1.")
        self.entries = check_entries(entries)
        self.plain_tags = plain_tags
        self.seed = seed

    def caption(self, clip_id: str, clip_key: int) -> str:
        """Writes the caption of one hearing.

        Arguments
        ---------
        clip_id : str
            One of the entries.
        clip_key : int
            The key of the hearing, see `muq_plugins.data.sampling.clip_key`.

        Returns
        -------
        str
            A list of tags or a sentence.
        """
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
        """Says everything that is known about a clip, in one of the languages.

        Arguments
        ---------
        clip_id : str
            One of the entries.
        clip_key : int
            Chooses the language.

        Returns
        -------
        str
            See `muq_plugins.data.captions.full_caption`.

        Example
        -------
        >>> writer = CaptionWriter({"song": {"tempo_bpm": 150}}, languages=["zh"])
        >>> writer.full_caption("song", 0)
        '音乐，节奏快速。'
        """
        place = keyed_integer(len(self.languages), "language", clip_key, clip_id)
        return full_caption(self.entries[clip_id], self.languages[place])

    def captions(self, clip_ids: Iterable[str], per_clip: int) -> list[str]:
        """Writes several captions of clips, as a text corpus.

        Arguments
        ---------
        clip_ids : iterable of str
            Any of the entries.
        per_clip : int
            Captions of each clip.

        Returns
        -------
        list of str
            In the order of the clips.

        Example
        -------
        >>> writer = CaptionWriter({"song": {"caption": "A calm song."}})
        >>> writer.captions(["song"], per_clip=2)
        ['A calm song.', 'A calm song.']
        """
        return [
            self.caption(clip_id, key)
            for clip_id in clip_ids
            for key in range(per_clip)
        ]


def _check_languages(languages: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in languages if name not in LANGUAGES]
    if unknown or not languages or isinstance(languages, str):
        raise ValueError(
            f"languages is {languages!r}, but must be a list of one or more of "
            f"{', '.join(LANGUAGES)}."
        )
    return tuple(languages)


def _check_dropout(dropout: dict[str, float]) -> dict[str, float]:
    for kind, share in dropout.items():
        if kind not in KINDS or not 0 <= share <= 1:
            raise ValueError(
                f"tag_dropout: {kind} is {share}, but the kinds are "
                f"{', '.join(KINDS)}, and a probability is 0..1."
            )
    return dict(dropout)
