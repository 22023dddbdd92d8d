"""From the labels of a manifest entry to tags, and how many of them a caption names.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from muq_plugins.data.captions import words
from muq_plugins.data.captions.labels import label_values

# Kind of a tag, the label of a manifest entry that it comes from, and what names it.
_KINDS = {
    "instruments": ("instruments", words.instrument_names),
    "family": ("family", words.family_names),
    "key": ("key", words.key_names),
    "tempo": ("tempo_bpm", words.tempo_names),
    "metre": ("time_signature", words.metre_names),
    "composer": ("composer", words.composer_names),
}
KINDS = tuple(_KINDS)

# How many tags are named, by how many there are (columns: 1, 2, 3, ... tags). The odds
# are those of the recipe that comes with MuQ-MuLan (arXiv 2501.01108).
COUNT_ODDS = {
    1: (1,),
    2: (0.5, 0.5),
    3: (0.3, 0.4, 0.3),
    4: (0.2, 0.3, 0.3, 0.2),
    5: (0.2, 0.2, 0.3, 0.2, 0.1),
    6: (0.1, 0.15, 0.2, 0.2, 0.2, 0.15),
    7: (0.05, 0.1, 0.1, 0.2, 0.25, 0.2, 0.1),
    8: (0.03, 0.05, 0.1, 0.15, 0.25, 0.2, 0.1, 0.12),
    9: (0.02, 0.1, 0.1, 0.1, 0.15, 0.2, 0.15, 0.1, 0.08),
    10: (0.01, 0.1, 0.1, 0.15, 0.2, 0.15, 0.1, 0.05, 0.05, 0.09),
}
MOST = max(COUNT_ODDS)


class Tag(NamedTuple):
    """One thing that can be said about a clip.

    Arguments
    ---------
    kind : str
        One of `KINDS`.
    names : tuple of str
        Ways to say it in one language, the usual one first.

    Example
    -------
    >>> Tag("instruments", ("flute",)).kind
    'instruments'
    """

    kind: str
    names: tuple[str, ...]


def has_labels(entry: dict[str, Any]) -> bool:
    """Tells whether a manifest entry has labels to write captions from.

    Arguments
    ---------
    entry : dict
        Of a manifest.

    Returns
    -------
    bool
        True if there is at least one tag.

    Example
    -------
    >>> has_labels({"instruments": ["flute"]}), has_labels({"artist": "unknown"})
    (True, False)
    """
    return bool(tags_of(entry, "en"))


def tags_of(entry: dict[str, Any], language: str) -> list[Tag]:
    """Reads the labels of a manifest entry.

    Arguments
    ---------
    entry : dict
        Of a manifest; labels that it lacks, or that are null, are left out.
    language : str
        "en" or "zh".

    Returns
    -------
    list of Tag
        In the order of `KINDS`, each once.

    Raises
    ------
    ValueError
        If a label is wrong, see `label_values`.

    Example
    -------
    >>> entry = {"instruments": ["flute", "oboe", "flute"], "tempo_bpm": 70.0}
    >>> [tag.names[0] for tag in tags_of(entry, "zh")]
    ['长笛', '双簧管', '缓慢']
    """
    tags = []
    for kind, (label, names_of) in _KINDS.items():
        for one in label_values(entry, label):
            if names := names_of(one, language):
                tags.append(Tag(kind, names))
    return list(dict.fromkeys(tags))


def sample_tags(
    tags: list[Any], dropout: dict[str, float], rng: random.Random
) -> list[Any]:
    """Chooses which tags a caption names.

    First every kind of tags is left out with its probability; if nothing is left,
    nothing was left out. Then the number of tags is drawn from `COUNT_ODDS`.

    Arguments
    ---------
    tags : list of Tag
        At least one.
    dropout : dict
        Kind to the probability that its tags are left out.
    rng : random.Random
        Draws.

    Returns
    -------
    list of Tag
        At least one, in the order they were given.

    Example
    -------
    >>> tags = [Tag("key", ("C major",)), Tag("tempo", ("slow",))]
    >>> sample_tags(tags, {"key": 1.0}, random.Random(0))
    [Tag(kind='tempo', names=('slow',))]
    """
    # Every kind is drawn for, so that a label more does not change the others.
    lost = {kind for kind in KINDS if rng.random() < dropout.get(kind, 0.0)}
    kept = [tag for tag in tags if tag.kind not in lost] or tags
    if len(kept) > MOST:
        kept = sample_in_order(kept, MOST, rng)
    odds = COUNT_ODDS[len(kept)]
    (count,) = rng.choices(range(1, len(kept) + 1), odds)
    return sample_in_order(kept, count, rng)


def sample_in_order(items: list[Any], count: int, rng: random.Random) -> list[Any]:
    """Chooses items without changing their order.

    Arguments
    ---------
    items : list
        At least as many as are chosen.
    count : int
        How many.
    rng : random.Random
        Draws.

    Returns
    -------
    list
        The chosen ones.

    Example
    -------
    >>> sample_in_order([3, 1, 2], 3, random.Random(0))
    [3, 1, 2]
    """
    return [items[place] for place in sorted(rng.sample(range(len(items)), count))]
