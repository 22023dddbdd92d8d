"""Finds the audio files of a folder tree and checks each one once.

Files are decoded in threads: libsndfile works outside Python's interpreter lock,
so threads scale like processes and need no start-up time. Results are appended to
a cache as they come.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import collections
import dataclasses
import os
import stat
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tqdm import tqdm

from muq_plugins.data.audio import AUDIO_EXTENSIONS, AudioCheck, check_audio
from muq_plugins.data.jsonio import append_json_line, open_json_lines, read_json_lines

# What can change without a change of the file is never cached.
_TRANSIENT = ("missing", "unreadable")
# A file with another size or modification time is another file.
_CACHE_KEY = ("path", "size", "mtime_ns")


def find_audio(data_folder):
    """Finds the audio files of a folder tree by their extension.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        The top of the tree.

    Returns
    -------
    paths : list of str
        Sorted, relative to the folder, with "/".
    unreadable : list of (str, str)
        Folders that could not be listed, and why.
    ignored : dict
        Extension to number of other files.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If the folder is missing or a file.

    Example
    -------
    >>> root = getfixture("tmpdir")
    >>> _ = (root / "Song.FLAC").write("")
    >>> _ = (root / "cover.jpg").write("")
    >>> find_audio(root)
    (['Song.FLAC'], [], {'.jpg': 1})
    """
    top = Path(data_folder)
    if not top.exists():
        raise FileNotFoundError(f"The data folder {top} does not exist.")
    if not top.is_dir():
        raise NotADirectoryError(
            f"The data folder {top} is a file. Give the folder that holds the music."
        )
    paths, unreadable, ignored, seen = [], [], collections.Counter(), set()

    def note(error):
        name = Path(error.filename).relative_to(top).as_posix()
        unreadable.append((name, error.strerror))

    for folder, subfolders, names in os.walk(top, followlinks=True, onerror=note):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            # Reached through a link: a loop, or music that was found already.
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
        for name in names:
            if name[0] == ".":
                continue
            extension = os.path.splitext(name)[1].lower()
            if extension in AUDIO_EXTENSIONS:
                paths.append(Path(folder, name).relative_to(top).as_posix())
            else:
                ignored[extension] += 1
    return sorted(paths), unreadable, dict(ignored)


def check_files(data_folder, paths, cache_path, workers=None, progress=True):
    """Checks audio files, from the cache where it knows them.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        The top of the tree.
    paths : list of str
        Relative to the folder.
    cache_path : str or pathlib.Path
        JSON lines with the results of this scan and earlier ones.
    workers : int, optional
        Threads; as many as this process may use cores when None.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    checks : dict
        Path to `AudioCheck`, in the order of the paths.
    decoded : int
        How many files were not in the cache.

    Example
    -------
    >>> root = getfixture("tmpdir")
    >>> _ = (root / "a.wav").write("text")
    >>> cache = str(root / "cache.jsonl")
    >>> checks, decoded = check_files(str(root), ["a.wav"], cache, progress=False)
    >>> checks["a.wav"].reason, decoded
    ('undecodable', 1)
    >>> check_files(str(root), ["a.wav"], cache, progress=False)[1]
    0
    """
    data_folder = Path(data_folder)
    cache = _load_cache(cache_path)
    checks, todo = {}, []
    for path in paths:
        try:
            status = os.stat(data_folder / path)
        except OSError as error:
            checks[path] = AudioCheck("missing", error.strerror)
            continue
        key = (path, status.st_size, status.st_mtime_ns)
        if not stat.S_ISREG(status.st_mode):
            checks[path] = AudioCheck("undecodable", "not a regular file")
        elif key in cache:
            checks[path] = cache[key]
        else:
            todo.append(key)

    def check(key):
        return key, check_audio(data_folder / key[0])

    with (
        open_json_lines(cache_path) as cache_file,
        ThreadPool(workers or _available_cores()) as pool,
        tqdm(
            total=len(paths),
            initial=len(checks),
            desc="Scanning audio",
            unit="file",
            disable=not progress,
        ) as bar,
    ):
        for key, result in pool.imap_unordered(check, todo):
            checks[key[0]] = result
            if result.reason not in _TRANSIENT:
                record = dict(
                    zip(_CACHE_KEY, key, strict=True), **dataclasses.asdict(result)
                )
                append_json_line(cache_file, record)
            bar.update()
    return {path: checks[path] for path in paths}, len(todo)


def _load_cache(cache_path):
    """The results of earlier scans: (path, size, mtime_ns) to `AudioCheck`."""
    cache = {}
    for record in read_json_lines(cache_path):
        key = tuple(record.pop(name) for name in _CACHE_KEY)
        cache[key] = AudioCheck(**record)
    return cache


def _available_cores():
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
