"""Clips with what is known of them: tags, captions, and the group each belongs to."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from muq_plugins.data.captions import full_caption
from muq_plugins.data.datasets.mtg_jamendo import spoken_tag
from muq_plugins.data.datasets.tagged import Labelled
from muq_plugins.data.manifest import PARTS, load_manifest
from muq_plugins.data.preparation import Manifests
from muq_plugins.errors import UserError
from muq_plugins.evaluation.kept import digest, file_stamp
from muq_plugins.files import read_json, replace_file
from muq_plugins.lobes.mulan import AudioModel, TextModel

# Raised whenever a change of the code changes the latents.
FORMAT = 1
# Recordings in a file: what an interruption can cost.
CHUNK = 64
# The order of the tags of one's own manifests, beside them.
TAGS_FILE = "tags.json"


def text_latents(model: TextModel, texts: list[str]) -> np.ndarray:
    """Latents of texts as they are, to compare with those of `audio_latents`."""
    return model.embed_text(texts).detach().float().cpu().numpy()


def audio_latents(
    model: AudioModel,
    files: Sequence[str | Path],
    folder: str | Path,
    progress: bool = False,
) -> np.ndarray:
    """Latents of recordings, computed where they are not kept already.

    How a recording becomes a latent is the model's: `MuQMuLan` cuts it into clips of
    its training length, completes the last one with the start, and takes the mean.
    """
    parts = []
    for start in tqdm(range(0, len(files), CHUNK), disable=not progress, unit="chunk"):
        some = [str(file) for file in files[start : start + CHUNK]]
        path = Path(folder) / f"{_key(model, some)}.npy"
        if not path.is_file():
            latents = np.stack([_embed(model, file) for file in some])
            content = io.BytesIO()
            np.save(content, latents, allow_pickle=False)
            replace_file(path, content.getvalue())
        parts.append(np.load(path, allow_pickle=False))
    return np.concatenate(parts)


def _embed(model: AudioModel, file: str) -> np.ndarray:
    latent = model.embed_file(file).detach().float().cpu().numpy().reshape(-1)
    if not np.isfinite(latent).all():
        raise UserError(
            f"The latent of {file} is not finite: the model is broken, or the "
            "recording is."
        )
    return latent


def _key(model: AudioModel, files: list[str]) -> str:
    """A hash of all that the latents of these recordings depend on."""
    stamps = [file_stamp(file) for file in files]
    return digest({"format": FORMAT, "model": model.fingerprint, "files": stamps})


@dataclass(frozen=True)
class LabelledClips:
    """Clips to test a model on, with tags, captions, or both."""

    name: str  # the data set, its split and part, as a reader should know them
    files: list[str]  # audio of every clip
    groups: list[str]  # of every clip: the bootstrap draws groups
    tags: Sequence[str] = ()  # all tags, each once
    truth: np.ndarray | None = None  # bool (clips, tags): which clip has which tag
    captions: Sequence[str] = ()  # of every clip
    texts: Mapping[str, list[str]] = field(default_factory=dict)  # captions by kind
    # recordings without a file or broken: "path", "reason" and "detail"
    left_out: Sequence[dict[str, str]] = ()

    @property
    def spoken(self) -> list[str]:
        """What each tag says, without its kind: "rock" for "genre---rock"."""
        return [spoken_tag(tag) for tag in self.tags]


class TaggedFolder(NamedTuple):
    """Manifests of one's own."""

    name: str
    manifests: dict[str, Path]  # by part
    audio_folder: Path  # the data root of the manifests
    tags: list[str]  # all of them in their order; empty: those that occur, sorted


def tagged_folder(
    annotation_folder: str | Path, audio_folder: str | Path
) -> TaggedFolder:
    """Manifests that are there already."""
    folder = Path(annotation_folder)
    paths = {part: folder / f"{part}.json" for part in PARTS}
    paths = {part: path for part, path in paths.items() if path.is_file()}
    if not paths:
        raise UserError(
            f"{folder} holds none of train.json, valid.json and test.json: give the "
            "folder of the manifests as annotation_folder."
        )
    listed = folder / TAGS_FILE
    tags = read_json(listed, "write a list of tags") if listed.is_file() else []
    return TaggedFolder(folder.resolve().name, paths, Path(audio_folder), tags)


def labelled_clips(
    prepare: Callable[[], Labelled | TaggedFolder | Manifests],
    part: str = "test",
    tag_key: str | None = "tags",
    caption_key: str | Sequence[str] | None = None,
    group_key: str | None = None,
    leave_out_missing: bool = False,
) -> LabelledClips:
    """The clips of one part of a data set, with captions of one kind or of several.

    `leave_out_missing` is of published data sets: to go on without the audio that is
    not there.
    """
    if part not in PARTS:
        raise UserError(f"part must be one of {', '.join(PARTS)}, got {part!r}.")
    data = prepare()
    known: Sequence[str] = ()
    left_out: Sequence[dict[str, str]] = ()
    if isinstance(data, Labelled):
        # Nobody needs the audio of the others.
        clips = [clip for clip in data.clips if clip.part == part]
        found, left_out = replace(data, clips=clips).found(leave_out_missing)
        entries = {
            clip.path: {"wav": str(path), "tags": clip.tags, **clip.labels}
            for clip, path, _ in found
        }
        name, known = data.name, data.classes
    elif isinstance(data, TaggedFolder):
        if part not in data.manifests:
            raise UserError(
                f"There is no part {part!r}, only {', '.join(data.manifests)}."
            )
        entries = load_manifest(data.manifests[part], data.audio_folder)
        name, known = data.name, data.tags
    else:
        entries, name = getattr(data, part), data.folder.name
        # Corpora of before this package had one writer of captions hold other words.
        entries = {
            clip_id: {**entry, "caption": full_caption(entry, "en")}
            if entry.get("instruments")
            else entry
            for clip_id, entry in entries.items()
        }
    if not entries:
        raise UserError(
            f"No clip of the part {part!r} of {name} is there: get its audio, or take "
            "another part."
        )
    tags = _values(entries, tag_key, list)
    kinds = [caption_key] if isinstance(caption_key, str) else caption_key or []
    texts = {kind: _values(entries, kind, str) for kind in kinds}
    groups = _values(entries, group_key, str) or list(entries)
    tag_names = known or sorted({tag for some in tags for tag in some})
    if tag_key is None:
        tag_names = []
    elif not any(tags):
        raise UserError(f"No clip of {name} has a tag under {tag_key!r}.")
    _check_tags(name, tag_names, tags)
    truth = [[tag in some for tag in tag_names] for some in tags]
    return LabelledClips(
        name=f"{name}, {part}",
        files=[entry["wav"] for entry in entries.values()],
        tags=tag_names,
        truth=np.array(truth, dtype=bool).reshape(len(entries), len(tag_names)),
        captions=next(iter(texts.values()), []),
        texts=texts,
        groups=groups,
        left_out=left_out,
    )


def _values(entries, key, kind):
    """The value of every entry under a key; empty without a key."""
    if key is None:
        return []
    for clip_id, entry in entries.items():
        if not isinstance(entry.get(key), kind):
            raise UserError(
                f"The clip {clip_id!r} has {entry.get(key)!r} under {key!r}, expected "
                f"a {kind.__name__}. It has: {', '.join(entry)}."
            )
    return [entry[key] for entry in entries.values()]


def _check_tags(name, tag_names, tags):
    twice = [tag for i, tag in enumerate(tag_names) if tag in tag_names[:i]]
    if twice:
        raise UserError(
            f"The tag {twice[0]!r} comes twice in the list of tags of {name}: keep "
            "one, or it counts double."
        )
    unknown = {tag for some in tags for tag in some} - set(tag_names)
    if unknown:
        raise UserError(
            f"Clips of {name} have the tag {min(unknown)!r}, which is not in "
            f"{TAGS_FILE}: add it there."
        )
