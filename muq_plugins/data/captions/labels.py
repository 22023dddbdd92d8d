"""What the entries of a manifest let one say: tags of labels, or texts of their own."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from muq_plugins.data.captions import wording as words
from muq_plugins.errors import UserError

# The one label that is usually a number.
TEMPO = "tempo_bpm"

# Kinds of tags that clips are compared by, and the labels that name them: the first
# that an entry has. The embedded corpus has all families of a clip in `families`.
TAG_LABELS = {"instrument": ("instruments",), "family": ("families", "family")}

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

# What stands between the tags of a list.
SEPARATORS = {"en": (", ",), "zh": ("，", "、")}

# Keys of an entry that hold texts, and what they hold.
_TEXTS = {"caption": str, "captions": list, "tags": list}


class Tag(NamedTuple):
    """One thing that can be said about a clip."""

    kind: str  # one of `KINDS`
    names: tuple[str, ...]  # ways to say it in one language, the usual one first


def check_entries(entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Refuses entries of a manifest that nothing can be said about."""
    for clip_id, entry in entries.items():
        where = f"The clip {clip_id!r} ({entry.get('wav', 'no file')})"
        try:
            _check_texts(entry)
            for kind in TAG_LABELS:
                tag_values(entry, kind)
            known = has_texts(entry) or has_labels(entry)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        if not known:
            raise UserError(
                f"{where} has nothing to write a caption from: give it a caption (a "
                "text), captions (texts), tags (words), or labels such as instruments, "
                "key or composer. For a data_folder, set captions_file to a file of "
                "them."
            )
    return entries


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
            raise UserError(
                f"{name} is {value!r}, but must be "
                f"{'a text' if kind is str else 'a list of texts'}, none of them empty."
            )


def has_labels(entry: dict[str, Any]) -> bool:
    """Tells whether a manifest entry has labels to write captions from."""
    return bool(tags_of(entry, "en"))


def has_texts(entry: dict[str, Any]) -> bool:
    """Tells whether captions are taken from an entry instead of written from labels."""
    return not entry.get("instruments") and any(
        entry.get(name) is not None for name in _TEXTS
    )


def tags_of(entry: dict[str, Any], language: str) -> list[Tag]:
    """Reads the labels of a manifest entry."""
    tags = []
    for kind, (label, names_of) in _KINDS.items():
        for one in label_values(entry, label):
            if names := names_of(one, language):
                tags.append(Tag(kind, names))
    return list(dict.fromkeys(tags))


def tag_values(entry: dict[str, Any], kind: str) -> list[str]:
    """The tags of one kind of an entry."""
    for label in TAG_LABELS[kind]:
        if entry.get(label) is not None:
            return label_values(entry, label)
    return []


def label_values(entry: dict[str, Any], label: str) -> list[Any]:
    """The values of one label of an entry, for captions and for tags alike."""
    values = listed(entry, label)
    if not all(is_text(one) or label == TEMPO and _is_tempo(one) for one in values):
        kind = "a positive number or a text" if label == TEMPO else "a text"
        raise UserError(
            f"{label} is {entry[label]!r}, but must be {kind} or a list of such, none "
            "of them empty; leave it out, or give null, if it is not known."
        )
    return values


def listed(entry: dict[str, Any], name: str) -> list[Any]:
    """The values of one key of an entry."""
    value = entry.get(name)
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def is_text(value: Any) -> bool:
    """Tells whether a value says something."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_tempo(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 < value < float("inf")


def sample_tags(
    tags: list[Any], dropout: dict[str, float], rng: random.Random
) -> list[Any]:
    """Chooses which tags a caption names.

    First every kind of tags is left out with its probability; if nothing is left,
    nothing was left out. Then the number of tags is drawn from `COUNT_ODDS`.
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
    """Chooses items without changing their order."""
    return [items[place] for place in sorted(rng.sample(range(len(items)), count))]


def sentences_of(entry: dict[str, Any]) -> list[str]:
    """The captions that an entry brings along."""
    return [*listed(entry, "captions"), *listed(entry, "caption")]


def own_text(entry: dict[str, Any], plain: bool, rng: random.Random) -> str:
    """Chooses one of the captions of an entry, or makes a list of its tags."""
    sentences, tags = sentences_of(entry), list(dict.fromkeys(listed(entry, "tags")))
    if sentences and not (plain and tags):
        return rng.choice(sentences)
    chosen = sample_in_order(tags, min(len(tags), MOST), rng)
    chosen = sample_in_order(chosen, rng.randint(1, len(chosen)), rng)
    # Between Chinese tags stands a Chinese comma.
    chinese = all("\u4e00" <= tag[0] <= "\u9fff" for tag in chosen)
    return tag_list(chosen, "zh" if chinese else "en", rng)


def tag_list(names: list[str], language: str, rng: random.Random) -> str:
    """Puts names in any order, with a comma of their language between them."""
    rng.shuffle(names)
    return rng.choice(SEPARATORS[language]).join(names)
