"""Texts that the entries of a manifest bring along, and lists of tags.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import random
from typing import Any

from muq_plugins.data.captions.labels import TAG_LABELS, is_text, listed, tag_values
from muq_plugins.data.captions.tags import MOST, has_labels, sample_in_order

# What stands between the tags of a list.
SEPARATORS = {"en": (", ",), "zh": ("，", "、")}
# Keys of an entry that hold texts, and what they hold.
_TEXTS = {"caption": str, "captions": list, "tags": list}


def check_entries(entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Refuses entries of a manifest that nothing can be said about.

    Arguments
    ---------
    entries : dict
        Clip id to entry.

    Returns
    -------
    dict
        The same.

    Raises
    ------
    ValueError
        If an entry has neither labels nor texts, or such that are wrong.

    Example
    -------
    >>> check_entries({"song": {"wav": "song.flac"}})
    Traceback (most recent call last):
    ...
    ValueError: The clip 'song' (song.flac) has nothing to write a caption from: ...
    """
    for clip_id, entry in entries.items():
        where = f"The clip {clip_id!r} ({entry.get('wav', 'no file')})"
        try:
            _check_texts(entry)
            for kind in TAG_LABELS:
                tag_values(entry, kind)
            known = has_texts(entry) or has_labels(entry)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if not known:
            raise ValueError(
                f"{where} has nothing to write a caption from: give it a caption (a "
                "text), captions (texts), tags (words), or labels such as instruments, "
                "key or composer. For a data_folder, set captions_file to a file of "
                "them."
            )
    return entries


def has_texts(entry: dict[str, Any]) -> bool:
    """Tells whether captions are taken from an entry instead of written from labels.

    Arguments
    ---------
    entry : dict
        Of a manifest.

    Returns
    -------
    bool
        True if it has ``caption``, ``captions`` or ``tags``, and no ``instruments``;
        null is as if it were not there.

    Example
    -------
    >>> has_texts({"tags": ["jazz"]}), has_texts({"instruments": [], "caption": "x"})
    (True, False)
    """
    return entry.get("instruments") is None and any(
        entry.get(name) is not None for name in _TEXTS
    )


def sentences_of(entry: dict[str, Any]) -> list[str]:
    """The captions that an entry brings along.

    Arguments
    ---------
    entry : dict
        Of a manifest.

    Returns
    -------
    list of str
        Those of ``captions``, then ``caption``; may be empty.

    Example
    -------
    >>> sentences_of({"caption": "One.", "captions": ["Two.", "Three."]})
    ['Two.', 'Three.', 'One.']
    """
    return [*listed(entry, "captions"), *listed(entry, "caption")]


def own_text(entry: dict[str, Any], plain: bool, rng: random.Random) -> str:
    """Chooses one of the captions of an entry, or makes a list of its tags.

    Arguments
    ---------
    entry : dict
        Of a manifest, with texts.
    plain : bool
        Prefer the tags, if there are both.
    rng : random.Random
        Draws.

    Returns
    -------
    str
        The text.

    Example
    -------
    >>> own_text({"tags": ["jazz"]}, plain=False, rng=random.Random(0))
    'jazz'
    """
    sentences, tags = sentences_of(entry), list(dict.fromkeys(listed(entry, "tags")))
    if sentences and not (plain and tags):
        return rng.choice(sentences)
    chosen = sample_in_order(tags, min(len(tags), MOST), rng)
    chosen = sample_in_order(chosen, rng.randint(1, len(chosen)), rng)
    # Between Chinese tags stands a Chinese comma.
    chinese = all("\u4e00" <= tag[0] <= "\u9fff" for tag in chosen)
    return tag_list(chosen, "zh" if chinese else "en", rng)


def tag_list(names: list[str], language: str, rng: random.Random) -> str:
    """Puts names in any order, with a comma of their language between them.

    Arguments
    ---------
    names : list of str
        Of tags; shuffled in place.
    language : str
        "en" or "zh", which has two commas.
    rng : random.Random
        Draws.

    Returns
    -------
    str
        The list.

    Example
    -------
    >>> tag_list(["slow", "flute"], "en", random.Random(0))
    'slow, flute'
    """
    rng.shuffle(names)
    return rng.choice(SEPARATORS[language]).join(names)


def _check_texts(entry: dict[str, Any]) -> None:
    for name, kind in _TEXTS.items():
        value = entry.get(name)
        if value is None:
            continue
        if (
            not value
            or not isinstance(value, kind)
            or not all(map(is_text, listed(entry, name)))
        ):
            raise ValueError(
                f"{name} is {value!r}, but must be "
                f"{'a text' if kind is str else 'a list of texts'}, none of them empty."
            )
