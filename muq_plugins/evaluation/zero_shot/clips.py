"""Clips with what is known of them: tags, captions, and the group each belongs to.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from muq_plugins.data.datasets.common import (
    PARTS,
    TAGS_FILE,
    TaggedData,
    read_tag_order,
)
from muq_plugins.data.datasets.files import DatasetError
from muq_plugins.data.datasets.mtg_jamendo import spoken_tag
from muq_plugins.data.manifest import load_manifest
from muq_plugins.data.preparation import Manifests


@dataclass(frozen=True)
class LabelledClips:
    """Clips to test a model on.

    Arguments
    ---------
    name : str
        The data set, its split and part, as a reader should know them.
    files : list of str
        Audio of every clip.
    tags : list of str
        All tags, each once; empty without tags.
    truth : numpy.ndarray
        bool (clips, tags): which clip has which tag.
    captions : list of str
        Of every clip; empty without captions.
    groups : list of str
        Of every clip: the bootstrap draws groups.

    Example
    -------
    >>> clips = LabelledClips("two", ["a", "b"], ["calm"], np.ones((2, 1)), [], ["a"])
    >>> clips.spoken
    ['calm']
    """

    name: str
    files: list[str]
    tags: list[str]
    truth: np.ndarray
    captions: list[str]
    groups: list[str]

    @property
    def spoken(self) -> list[str]:
        """What each tag says, without its kind: "rock" for "genre---rock"."""
        return [spoken_tag(tag) for tag in self.tags]


def tagged_folder(
    annotation_folder: str | Path, audio_folder: str | Path
) -> TaggedData:
    """Manifests that are there already, one's own or those of a prepare function.

    Arguments
    ---------
    annotation_folder : str or pathlib.Path
        Folder of `test.json` and others. With a `tags.json` the tags are those it
        lists, else those that occur, sorted.
    audio_folder : str or pathlib.Path
        What "{data_root}" stands for in them.

    Returns
    -------
    TaggedData
        The manifests.

    Raises
    ------
    DatasetError
        If the folder holds none.

    Example
    -------
    >>> from muq_plugins.data.jsonio import write_json
    >>> folder = getfixture("tmp_path")
    >>> clip = {"wav": "{data_root}/a.wav", "duration": 1.0}
    >>> write_json(folder / "test.json", {"a": clip})
    >>> list(tagged_folder(folder, folder).manifests)
    ['test']
    """
    folder = Path(annotation_folder)
    paths = {part: folder / f"{part}.json" for part in PARTS}
    paths = {part: path for part, path in paths.items() if path.is_file()}
    if not paths:
        raise DatasetError(
            f"{folder} holds none of train.json, valid.json and test.json: give the "
            "folder of the manifests as annotation_folder."
        )
    tags = read_tag_order(folder) if (folder / TAGS_FILE).is_file() else []
    return TaggedData(folder.resolve().name, paths, Path(audio_folder), tags, [])


def labelled_clips(
    prepare: Callable[[], TaggedData | Manifests],
    part: str = "test",
    tag_key: str | None = "tags",
    caption_key: str | None = None,
    group_key: str | None = None,
) -> LabelledClips:
    """The clips of one part of a data set.

    Arguments
    ---------
    prepare : callable
        Makes the manifests: `tagged_folder`, a function of `muq_plugins.data.datasets`,
        or `muq_plugins.data.preparation.prepare_manifests`.
    part : str
        "train", "valid" or "test".
    tag_key : str or None
        Key of the entries with a list of tags; None for none.
    caption_key : str or None
        Key of the entries with a text; None for none.
    group_key : str or None
        Key of the entries with what clips share that are alike, such as the piece or
        the artist. None: every clip stands for itself.

    Returns
    -------
    LabelledClips
        The clips.

    Raises
    ------
    DatasetError
        If the part or a key is missing, or no clip has a tag.

    Example
    -------
    >>> clip = {"wav": "a.wav", "duration": 1.0, "instruments": ["oboe"]}
    >>> def corpus():
    ...     return Manifests(Path("corpus"), {}, {}, {"a": clip})
    >>> labelled_clips(corpus, tag_key="instruments").tags
    ['oboe']
    """
    if part not in PARTS:
        raise DatasetError(f"part must be one of {', '.join(PARTS)}, got {part!r}.")
    data = prepare()
    known: list[str] = []
    if isinstance(data, TaggedData):
        if part not in data.manifests:
            raise DatasetError(
                f"There is no part {part!r}, only {', '.join(data.manifests)}."
            )
        entries = load_manifest(data.manifests[part], data.audio_folder)
        name, known = data.name, data.tags
    else:
        entries, name = getattr(data, part), data.folder.name
    tags = _values(entries, tag_key, list)
    captions = _values(entries, caption_key, str)
    groups = _values(entries, group_key, str) or list(entries)
    tag_names = known or sorted({tag for some in tags for tag in some})
    if tag_key is None:
        tag_names = []
    elif not any(tags):
        raise DatasetError(f"No clip of {name} has a tag under {tag_key!r}.")
    _check_tags(name, tag_names, tags)
    truth = [[tag in some for tag in tag_names] for some in tags]
    return LabelledClips(
        name=f"{name}, {part}",
        files=[entry["wav"] for entry in entries.values()],
        tags=tag_names,
        truth=np.array(truth, dtype=bool).reshape(len(entries), len(tag_names))
        if tags
        else np.zeros((len(entries), 0), dtype=bool),
        captions=captions,
        groups=groups,
    )


def _values(entries, key, kind):
    """The value of every entry under a key; empty without a key."""
    if key is None:
        return []
    for clip_id, entry in entries.items():
        if not isinstance(entry.get(key), kind):
            raise DatasetError(
                f"The clip {clip_id!r} has {entry.get(key)!r} under {key!r}, expected "
                f"a {kind.__name__}. It has: {', '.join(entry)}."
            )
    return [entry[key] for entry in entries.values()]


def _check_tags(name, tag_names, tags):
    twice = [tag for i, tag in enumerate(tag_names) if tag in tag_names[:i]]
    if twice:
        raise DatasetError(
            f"The tag {twice[0]!r} comes twice in the list of tags of {name}: keep "
            "one, or it counts double."
        )
    unknown = {tag for some in tags for tag in some} - set(tag_names)
    if unknown:
        raise DatasetError(
            f"Clips of {name} have the tag {min(unknown)!r}, which is not in "
            f"{TAGS_FILE}: add it there, or prepare the data again."
        )
