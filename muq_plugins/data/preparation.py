"""From a folder of music, or none, to the manifests of its parts."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

from muq_plugins.data.columns import Columns
from muq_plugins.data.corpus import build_corpus, build_notes
from muq_plugins.data.corpus.annotate import annotate_corpus
from muq_plugins.data.corpus.pieces import check_collections
from muq_plugins.data.manifest import PARTS, load_manifest
from muq_plugins.data.scan import (
    check_data_folder,
    check_fractions,
    decode_share,
    look_at,
    manifests_of,
    scan_folder,
)
from muq_plugins.data.shards.index import is_sharded, read_shards, shard_manifests
from muq_plugins.data.shares import are_together, work_together
from muq_plugins.data.sources import is_remote
from muq_plugins.errors import UserError, shown
from muq_plugins.files import locked, read_json
from muq_plugins.lobes.mulan.text_models import MOST_CHARACTERS

logger = get_logger(__name__)


@dataclass(frozen=True)
class Manifests:
    """The three parts of a corpus."""

    folder: Path  # where the manifest files are
    train: dict  # clip id to entry
    valid: dict  # clip id to entry
    # clip id to entry; the validation part again if the corpus is too small for a test
    # part
    test: dict
    source: str = "music"  # what it is, for people

    @property
    def parts(self) -> dict[str, dict]:
        """All three by name."""
        return {part: getattr(self, part) for part in PARTS}

    def heard(self) -> str:
        """What a model that is trained on it has heard, for those who use the model."""
        hours = sum(Columns.of(self.train).durations.tolist()) / 3600
        size = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
        files = f"{len(self.train):,} file{'s' * (len(self.train) != 1)}"
        return f"{self.source} ({files}, {size})"

    def facts(self) -> dict[str, Any]:
        """What a run notes of its music: files of each part, and a hash of them.

        Ids and durations count, not where the files are.
        """
        digest = hashlib.sha256()
        for name, part in self.parts.items():
            lines = Columns.of(part).lines()
            digest.update(b"".join(b"%s\0%s" % (name.encode(), line) for line in lines))
        sizes = {name: len(part) for name, part in self.parts.items()}
        return {**sizes, "hash": digest.hexdigest()[:16]}


def check_data(data: Mapping[str, Any]) -> None:
    """Refuses what `prepare_manifests` would, before anything is written."""
    collections, data_folder = data.get("collections"), data["data_folder"]
    if collections is not None:
        if data_folder is not None:
            raise UserError(
                f"collections is {collections!r}, which chooses from the embedded "
                f"corpus, but data_folder is {str(data_folder)!r}: set one of them to "
                "null."
            )
        check_collections(collections)
    if data_folder is not None:
        if is_sharded(data_folder):
            read_shards(data_folder, compare=not is_remote(data_folder))
        else:
            check_data_folder(data_folder)
    if data.get("valid_fraction") == 0:
        raise UserError(
            "valid_fraction is 0, and training needs files to validate on: give more, "
            "such as 0.05, or null for the usual share."
        )
    fractions = (data.get(f"{part}_fraction") for part in ("valid", "test"))
    check_fractions(*(fraction or 0.0 for fraction in fractions))


def prepare_manifests(
    data_folder: str | Path | None,
    corpus_folder: str | Path,
    corpus_minutes: float,
    corpus_seed: int,
    manifest_folder: str | Path | None = None,
    collections: Sequence[str] | None = None,
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
) -> Manifests:
    """Makes the corpus ready: the embedded one, or a folder of recordings.

    With several processes the first one works and the others wait, also those of
    other runs; the recordings of a folder are decoded by all. Nothing is done twice: a
    corpus that is there is used, and a folder is only scanned for what is new in it.
    ``valid_fraction`` and ``test_fraction`` are shares of the files of a folder; the
    embedded corpus is divided by melody. Each pair of shares has manifests of its own,
    so that runs do not divide each other's music.
    """
    check_data({"data_folder": data_folder, "collections": collections})
    settings = {"minutes": corpus_minutes, "seed": corpus_seed}
    if collections is not None:
        settings["collections"] = check_collections(collections)
        names = "-".join(settings["collections"]).replace(" ", "_")
        corpus_folder = f"{corpus_folder}-{names}"
    if data_folder is None:
        folder = data_root = Path(corpus_folder)
        _make_alone(folder, build_corpus, folder, **settings)
        source = "the embedded corpus"
        if collections is not None:
            source += f" ({', '.join(settings['collections'])})"
    else:
        # The address of a store stays as it is.
        remote = is_remote(data_folder)
        data_root = str(data_folder).rstrip("/") if remote else Path(data_folder)
        place = Path(data_folder) if remote else data_root.resolve()
        top = manifests_of(place, Path(corpus_folder).parent)
        top = Path(manifest_folder or top)
        folder, fractions = top, (valid_fraction, test_fraction)
        if fractions != (None, None):
            shares = ("usual" if share is None else share for share in fractions)
            folder = top / "valid-{}-test-{}".format(*shares)
        scan = functools.partial(scan_folder, data_root, folder, *fractions)
        # What was decoded, and the lock, are those of all.
        if is_sharded(data_folder):
            _make_alone(top, shard_manifests, data_root, folder, *fractions)
        elif run_on_main(scan, kwargs={"look_only": True}) is None:
            if are_together():
                # The first one alone would take days.
                share = dist.get_rank(), dist.get_world_size()
                work_together(decode_share(look_at(data_root), top, *share))
            _make_alone(top, scan, cache_folder=top)
        source = f"the folder {shown(place.name)}"
    train, valid, test = (folder / f"{part}.json" for part in PARTS)
    if _is_empty(valid):
        raise UserError(
            f"{data_root} holds only one usable file: training needs at least two, one "
            f"of them to validate on. What was found is in {folder}."
        )
    return Manifests(
        folder,
        train=load_manifest(train, data_root),
        valid=load_manifest(valid, data_root),
        test=load_manifest(valid if _is_empty(test) else test, data_root),
        source=source,
    )


def prepare_annotated(corpus_folder: str | Path, **data: Any) -> Manifests:
    """The embedded corpus, with what its scores say moment by moment."""
    manifests = prepare_manifests(None, corpus_folder, **data)
    _make_alone(manifests.folder, annotate_corpus, manifests.folder, progress=True)
    known = annotate_corpus(manifests.folder)
    parts = {
        part: {name: {**entry, **known[name]} for name, entry in clips.items()}
        for part, clips in manifests.parts.items()
    }
    return dataclasses.replace(manifests, **parts)


def prepare_notes(notes_folder: str | Path, step: int, seed: int) -> Manifests:
    """Makes rendered single notes ready, as `prepare_manifests` does music."""
    folder = Path(notes_folder)
    _make_alone(folder, build_notes, folder, step=step, seed=seed)
    parts = (load_manifest(folder / f"{part}.json", folder) for part in PARTS)
    return Manifests(folder, *parts)


def add_captions(
    manifests: Manifests, captions_file: str | Path, data_folder: str | Path
) -> Manifests:
    """Adds what a file knows about recordings to their manifests.

    The file is a JSON object from the path of a recording, below the data folder and
    with "/", to its caption, or to an object with any of ``caption``, ``captions``,
    ``tags`` and the labels that `CaptionWriter` knows. ``families`` is a list of all
    families of instruments, by which recordings are tagged; without it, by ``family``.
    ``piece`` names a group of recordings that intervals are computed over. Recordings
    that are not in the file are left out, and the log says how many.
    """
    known = read_captions(captions_file)
    parts = {
        name: {
            clip_id: {**entry, **known[path]}
            for clip_id, entry in part.items()
            if (path := _below(entry, data_folder)) in known
        }
        for name, part in manifests.parts.items()
    }
    for name, part in parts.items():
        before = manifests.parts[name]
        if not part:
            first = _below(next(iter(before.values())), data_folder)
            raise UserError(
                f"{captions_file} knows none of the {len(before)} recordings of the "
                f"{name} part, such as {first!r}; it has {len(known)} paths, such as "
                f"{next(iter(known), 'none')!r}. They start from {data_folder}."
            )
        if len(part) < len(before):
            logger.warning(
                f"{len(before) - len(part)} of {len(before)} recordings of the {name} "
                f"part are left out: they are not in {captions_file}."
            )
    return dataclasses.replace(manifests, **parts)


def _make_alone(folder: Path, make: Callable, *args, **kwargs) -> None:
    """Makes something in a folder while no other run does so."""

    def work():
        with contextlib.suppress(OSError):  # `make` says it better
            folder.mkdir(parents=True, exist_ok=True)
        # What may only be read is complete, or `make` says what is wrong with it.
        writable = folder.is_dir() and os.access(folder, os.W_OK)
        with locked(folder) if writable else contextlib.nullcontext():
            make(*args, **kwargs)

    run_on_main(work)


def _is_empty(manifest: Path) -> bool:
    """Whether a part got no file, because there are so few."""
    return read_json(manifest) == {}


def read_captions(path: str | Path) -> dict[str, dict[str, Any]]:
    """What a file for `add_captions` knows, by the path of each recording."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file of captions {path}: check the path.")
    content = read_json(path, "it must be JSON in UTF-8")
    if not isinstance(content, dict):
        raise UserError(
            f"{path} must hold a JSON object from the paths of recordings to their "
            f"captions, not {type(content).__name__}."
        )
    known = {}
    for name, value in content.items():
        entry = {"caption": value} if isinstance(value, str) else value
        if not isinstance(entry, dict) or {"wav", "duration"} & entry.keys():
            raise UserError(
                f"{path}: {name!r} must be a caption or an object with caption, "
                f"captions, tags or labels, and neither wav nor duration; it is "
                f"{str(value)[:80]!r}."
            )
        for text in (entry.get("caption"), *_list(entry, "captions", "tags")):
            if isinstance(text, str) and len(text) > MOST_CHARACTERS:
                raise UserError(
                    f"{path}: {name!r} has a text of {len(text):,} characters, which "
                    f"is no description of music: it may have {MOST_CHARACTERS:,}."
                )
        known[name] = entry
    return known


def _list(entry: dict[str, Any], *names: str) -> list:
    """What an entry lists under some names; what is no list is refused elsewhere."""
    lists = (entry.get(name) for name in names)
    return [value for found in lists if isinstance(found, list) for value in found]


def _below(entry: dict[str, Any], folder: str | Path) -> str:
    """The path of a recording as it is written in the file."""
    return entry.get("path") or Path(entry["wav"]).relative_to(folder).as_posix()
