"""What the entries of a manifest say about clips, in one form.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from typing import Any

# The one label that is usually a number.
TEMPO = "tempo_bpm"
# Kinds of tags that clips are compared by, and the labels that name them: the first
# that an entry has. The embedded corpus has all families of a clip in `families`.
TAG_LABELS = {"instrument": ("instruments",), "family": ("families", "family")}


def listed(entry: dict[str, Any], name: str) -> list[Any]:
    """The values of one key of an entry.

    Arguments
    ---------
    entry : dict
        Of a manifest.
    name : str
        The key.

    Returns
    -------
    list
        None where the entry lacks the key or has null there; a single value is a list
        of one.

    Example
    -------
    >>> entry = {"instruments": "flute", "key": None}
    >>> [listed(entry, name) for name in ("instruments", "key", "composer")]
    [['flute'], [], []]
    """
    value = entry.get(name)
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def is_text(value: Any) -> bool:
    """Tells whether a value says something.

    Arguments
    ---------
    value : object
        Any.

    Returns
    -------
    bool
        True for a text that is not empty and can be written as UTF-8.

    Example
    -------
    >>> is_text("flute"), is_text("  "), is_text(5), is_text("\\udcff")
    (True, False, False, False)
    """
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def label_values(entry: dict[str, Any], label: str) -> list[Any]:
    """The values of one label of an entry, for captions and for tags alike.

    Arguments
    ---------
    entry : dict
        Of a manifest.
    label : str
        Such as "instruments".

    Returns
    -------
    list
        Texts; of ``tempo_bpm`` positive numbers or texts. None where the entry lacks
        the label or has null there; a single value is a list of one.

    Raises
    ------
    ValueError
        If a value is none of these.

    Example
    -------
    >>> label_values({"instruments": "flute"}, "instruments")
    ['flute']
    >>> label_values({"instruments": ["flute", None]}, "instruments")
    Traceback (most recent call last):
    ...
    ValueError: instruments is ['flute', None], but must be a text or a list of ...
    """
    values = listed(entry, label)
    if not all(is_text(one) or label == TEMPO and _is_tempo(one) for one in values):
        kind = "a positive number or a text" if label == TEMPO else "a text"
        raise ValueError(
            f"{label} is {entry[label]!r}, but must be {kind} or a list of such, none "
            "of them empty; leave it out, or give null, if it is not known."
        )
    return values


def tag_values(entry: dict[str, Any], kind: str) -> list[str]:
    """The tags of one kind of an entry.

    Arguments
    ---------
    entry : dict
        Of a manifest.
    kind : str
        One of `TAG_LABELS`.

    Returns
    -------
    list of str
        None where the entry has no such label.

    Raises
    ------
    ValueError
        If the label is wrong, see `label_values`.

    Example
    -------
    >>> tag_values({"family": "brass"}, "family")
    ['brass']
    >>> tag_values({"family": "mixed", "families": ["brass", "reed"]}, "family")
    ['brass', 'reed']
    """
    for label in TAG_LABELS[kind]:
        if entry.get(label) is not None:
            return label_values(entry, label)
    return []


def _is_tempo(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 < value < float("inf")
