"""What labels were made of: the hashes that keep the wrong ones from being used."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from muq_plugins.data.labels.windows import LabelWindows, track_samples
from muq_plugins.data.sources import hash_file, size_and_time
from muq_plugins.errors import UserError, given_by_user
from muq_plugins.files import read_json, write_json
from muq_plugins.lobes.parts import attribute, fingerprint
from muq_plugins.lobes.target import Target

DESCRIPTION_FILE = "labels.json"
FORMAT = 2
READ = (1, FORMAT)  # in 1, shards follow the order of the manifest
MAX_ENTRIES = 1 << 16  # codes are stored in 16 bits


def describe(
    windows: LabelWindows, manifest: dict, shard_minutes: float, latents: bool
) -> dict[str, Any]:
    """Everything that decides what is in a set of labels, as JSON.

    The tokenizer is described by a hash of its weights and settings, which are those of
    its teacher too; the manifest by a hash of ids and lengths, not of where files are.
    """
    target = windows.target
    if not isinstance(target, Target):
        raise UserError(
            f"Labels are stored of a Target, not of a {type(target).__name__}: set "
            "labels to null."
        )
    if target.codebook_size > MAX_ENTRIES:
        raise UserError(
            f"Codebooks of {target.codebook_size} entries cannot be stored: labels "
            f"have 16 bits, which is enough for {MAX_ENTRIES}."
        )
    with given_by_user():
        config = attribute(target.features, "config")
        quantizer_config = attribute(target.quantizer, "config")
    features = {
        "features": type(target.features).__name__,
        "features_config": config,
        "quantizer": type(target.quantizer).__name__,
        "quantizer_config": quantizer_config,
    }
    return {
        "format": FORMAT,
        "tokenizer": fingerprint(target, features),
        "teacher": config.get("teacher"),
        "layer": config.get("layer"),
        "manifest": hash_manifest(manifest, target.sample_rate),
        "sample_rate": target.sample_rate,
        "frame_rate": target.frame_rate,
        "num_codebooks": target.num_codebooks,
        "codebook_size": target.codebook_size,
        "window_frames": windows.window_frames,
        "context_frames": windows.context_frames,
        "shard_minutes": shard_minutes,
        "latent_size": target.features.output_size if latents else None,
        "clips": len(manifest),
    }


def hash_manifest(manifest: dict, sample_rate: int) -> str:
    """A hash of the clips of a manifest, wherever their files are."""
    digest = hashlib.sha256()
    for clip_id in sorted(manifest):
        samples = track_samples(manifest[clip_id], sample_rate)
        line = f"{clip_id}\0{samples}\n"
        digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def agree(folder: Path, expected: dict[str, Any], create: bool) -> dict[str, Any]:
    """Makes sure that a folder is for these labels and no others; can begin one.

    Gives what the folder says, which may be of a format of before.
    """
    path = folder / DESCRIPTION_FILE
    if create and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, expected)
    if not path.is_file():
        raise UserError(
            f"There are no labels in {folder}: {DESCRIPTION_FILE} is missing. Extract "
            "them with extract_labels.py, or give another folder."
        )
    found = read_object(path, "format")
    differences = [
        f"{key} is {found.get(key)} there, {value} here"
        for key, value in expected.items()
        if found.get(key) not in (READ if key == "format" else (value,))
    ]
    if differences:
        raise UserError(
            f"The labels described in {path} are not those of this experiment: "
            f"{'; '.join(differences)}. Extract labels into another folder, or give "
            "the folder of the right ones."
        )
    return found


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """Reads a JSON object that has these keys."""
    remedy = "delete it and extract its labels again"
    content = read_json(path, remedy)
    if not isinstance(content, dict) or not set(keys) <= content.keys():
        raise UserError(f"{path} is damaged (it lacks {', '.join(keys)}): {remedy}.")
    return content


@dataclasses.dataclass(frozen=True)
class AudioStamp:
    """What tells that an audio file is still the one that was labelled."""

    size: int
    mtime_ns: int
    digest: str

    @classmethod
    def of(cls, path: str | Path) -> AudioStamp:
        """Of a file, which is read."""
        return cls(*size_and_time(path), _audio_hash(path))

    def matches(self, path: str | Path) -> bool:
        """Compares a file; only one that was touched or copied is read."""
        size, mtime_ns = size_and_time(path)
        if size != self.size:
            return False
        return mtime_ns == self.mtime_ns or _audio_hash(path) == self.digest


def _audio_hash(path: str | Path) -> str:
    return hash_file(path, hashlib.blake2b(digest_size=16))
