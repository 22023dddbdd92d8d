"""Manifests: the JSON files that list the clips of a split.

A manifest maps a clip id to its file, its duration and any labels, in the form
that `speechbrain.dataio.dataset.DynamicItemDataset.from_json` reads:

    {"<clip id>": {"wav": "{data_root}/album/song.flac", "duration": 31.25, ...}}

Authors
 * The MuQ for SpeechBrain team 2026
"""

import collections
import json
import math
from pathlib import Path, PurePosixPath

from speechbrain.dataio.dataio import load_data_json

from muq_plugins.data.sampling import keyed_integer


def load_manifest(path, data_root):
    """Loads a manifest and checks what reading audio needs.

    Arguments
    ---------
    path : str or pathlib.Path
        The manifest.
    data_root : str or pathlib.Path
        Folder that replaces "{data_root}" in every text.

    Returns
    -------
    dict
        Clip id to entry; each entry has at least "wav" (str) and "duration"
        (seconds).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a manifest, or an entry lacks a usable "wav" or "duration".

    Example
    -------
    >>> from muq_plugins.data.jsonio import write_json
    >>> path = getfixture("tmpdir") / "train.json"
    >>> write_json(path, {"a": {"wav": "{data_root}/a.flac", "duration": 2.5}})
    >>> load_manifest(path, "/music")
    {'a': {'wav': '/music/a.flac', 'duration': 2.5}}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no manifest {path}. Write one with "
            "muq_plugins.data.scan.scan_folder, or check the path."
        )
    try:
        manifest = load_data_json(path, {"data_root": str(data_root)})
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} holds a placeholder other than {{data_root}}: {error}. Write "
            "braces that belong to a text twice: {{ and }}."
        ) from error
    if not isinstance(manifest, dict) or not manifest:
        raise ValueError(
            f"{path} holds no clips: a manifest is a JSON object from clip id to "
            'an entry with "wav" and "duration".'
        )
    for clip_id, entry in manifest.items():
        _check_entry(path, clip_id, entry)
    return manifest


def manifest_entry(relative_path, duration, sample_rate, channels, **labels):
    """One entry of a manifest.

    Arguments
    ---------
    relative_path : str
        The file below the data root, with "/".
    duration : float
        In seconds.
    sample_rate : int
        Of the file, in Hz.
    channels : int
        Of the file.
    **labels
        Anything else that is known about the clip.

    Returns
    -------
    dict
        The entry, ready for `write_json`. Braces in texts are doubled, since
        readers take single ones for placeholders.

    Example
    -------
    >>> manifest_entry("a{1}.wav", 2.5, 44100, 2)["wav"]
    '{data_root}/a{{1}}.wav'
    """
    entry = {
        "wav": "{data_root}/" + _escape(relative_path),
        "duration": duration,
        "sample_rate": sample_rate,
        "channels": channels,
    }
    entry.update({name: _escape(value) for name, value in labels.items()})
    return entry


def clip_ids(relative_paths):
    """Names clips after their files.

    Arguments
    ---------
    relative_paths : list of str
        Distinct files below the data root, with "/".

    Returns
    -------
    list of str
        The path without extension, "/" replaced by "__". Where two files would get
        the same name, both get a hash of their full path in addition.

    Example
    -------
    >>> clip_ids(["album/song.wav", "other.mp3"])
    ['album__song', 'other']
    >>> clip_ids(["song.flac", "song.wav"])
    ['song-48993af9', 'song-0796065d']
    """
    names = [
        str(PurePosixPath(path).with_suffix("")).replace("/", "__")
        for path in relative_paths
    ]
    times = collections.Counter(names)
    return [
        name
        if times[name] == 1
        else f"{name}-{keyed_integer(1 << 32, 'clip id', path):08x}"
        for name, path in zip(names, relative_paths, strict=True)
    ]


def split_files(relative_paths, seed, valid_fraction, test_fraction):
    """Splits files by a hash of seed and path.

    A file keeps its split when others are added or removed. In a folder so small
    that a split would be empty, valid and then test get the files with the
    smallest hash (from 2 and 3 files on), and train always keeps one.

    Arguments
    ---------
    relative_paths : list of str
        Files below the data root, with "/".
    seed : int
        Seed of the split.
    valid_fraction : float
        Expected share of valid; none at 0.
    test_fraction : float
        Expected share of test; none at 0.

    Returns
    -------
    dict
        Split name to sorted list of paths.

    Example
    -------
    >>> split = split_files([f"{i}.wav" for i in range(1000)], 1234, 0.1, 0.1)
    >>> [len(paths) for paths in split.values()]
    [813, 104, 83]
    """
    resolution = 1 << 53

    def share(path):
        return keyed_integer(resolution, seed, "split", path) / resolution

    shares = sorted((share(path), path) for path in relative_paths)
    held_out = valid_fraction + test_fraction
    valid = sum(value < valid_fraction for value, _ in shares)
    test = sum(value < held_out for value, _ in shares) - valid
    if valid_fraction > 0 and len(shares) >= 2:
        valid = max(valid, 1)
    if test_fraction > 0 and len(shares) >= 3:
        test = max(test, 1)
    valid = min(valid, max(0, len(shares) - 1))
    test = min(test, max(0, len(shares) - 1 - valid))
    paths = [path for _, path in shares]
    return {
        "train": sorted(paths[valid + test :]),
        "valid": sorted(paths[:valid]),
        "test": sorted(paths[valid : valid + test]),
    }


def _escape(value):
    """Doubles the braces of texts, at any depth of lists."""
    if isinstance(value, str):
        return value.replace("{", "{{").replace("}", "}}")
    if isinstance(value, (list, tuple)):
        return [_escape(item) for item in value]
    return value


def _check_entry(path, clip_id, entry):
    """Raises ValueError for an entry that no audio can be read from."""
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: clip '{clip_id}' must be an object, got {entry!r}.")
    wav = entry.get("wav")
    if not isinstance(wav, str) or not wav:
        raise ValueError(
            f"{path}: clip '{clip_id}' needs \"wav\", the path of its file, "
            f"got {wav!r}."
        )
    duration = entry.get("duration")
    if (
        isinstance(duration, bool)
        or not isinstance(duration, (int, float))
        or not 0 < duration < math.inf
    ):
        raise ValueError(
            f"{path}: clip '{clip_id}' needs \"duration\", a number of seconds above "
            f"0, got {duration!r}."
        )
