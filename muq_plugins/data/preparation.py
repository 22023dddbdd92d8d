"""From a folder of music, or none, to loaders of clips.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechbrain.utils.distributed import run_on_main
from torch.utils.data import BatchSampler, DataLoader

from muq_plugins.data.batch import make_loader
from muq_plugins.data.corpus import build_corpus, build_notes
from muq_plugins.data.corpus.pieces import check_collections
from muq_plugins.data.dataset import ClipDataset
from muq_plugins.data.locking import alone
from muq_plugins.data.manifest import load_manifest
from muq_plugins.data.sampling import ClipSampler
from muq_plugins.data.scan import scan_folder


@dataclass(frozen=True)
class Manifests:
    """The three parts of a corpus.

    Arguments
    ---------
    folder : Path
        Where the manifest files are.
    train : dict
        Clip id to entry.
    valid : dict
        Clip id to entry.
    test : dict
        Clip id to entry; the validation part again if the corpus is too small
        for a test part.

    Example
    -------
    >>> entry = {"wav": "a.flac", "duration": 30.0}
    >>> Manifests(Path("."), {"a": entry}, {}, {}).train["a"]["duration"]
    30.0
    """

    folder: Path
    train: dict
    valid: dict
    test: dict


def prepare_manifests(
    data_folder: str | Path | None,
    corpus_folder: str | Path,
    corpus_minutes: float,
    corpus_seed: int,
    manifest_folder: str | Path | None = None,
    collections: Sequence[str] | None = None,
) -> Manifests:
    """Makes the corpus ready: the embedded one, or a folder of recordings.

    With several processes the first one works and the others wait, also those of
    other runs. Nothing is done twice: a corpus that is there is used, and a folder
    is only scanned for what is new in it.

    Arguments
    ---------
    data_folder : str or Path or None
        Any folder tree of recordings; None renders the embedded corpus.
    corpus_folder : str or Path
        Where the embedded corpus is kept.
    corpus_minutes : float
        Size of the embedded corpus, in minutes of audio.
    corpus_seed : int
        Seed of the embedded corpus.
    manifest_folder : str or Path or None
        Where the manifests of ``data_folder`` are kept; by default beside the
        embedded corpus, under a name made from the data folder's path.
    collections : sequence of str or None
        Which collections the embedded corpus plays (see
        `muq_plugins.data.corpus.pieces.find_pieces`); None for its usual music. A
        choice has a folder of its own: ``corpus_folder`` with their names behind it.

    Returns
    -------
    Manifests
        The training, validation and test parts.

    Raises
    ------
    OSError
        If the data folder is missing, or a folder cannot be written.
    ValueError
        If the data folder holds no usable audio, or too little to validate on; or if
        collections are unknown, have too few pieces, or are chosen for a data folder.
    """
    settings = {"minutes": corpus_minutes, "seed": corpus_seed}
    if collections is not None:
        if data_folder is not None:
            raise ValueError(
                f"collections is {collections!r}, which chooses from the embedded "
                f"corpus, but data_folder is {str(data_folder)!r}: set one of them to "
                "null."
            )
        settings["collections"] = check_collections(collections)
        names = "-".join(settings["collections"]).replace(" ", "_")
        corpus_folder = f"{corpus_folder}-{names}"
    if data_folder is None:
        folder = data_root = Path(corpus_folder)
        _make_alone(folder, build_corpus, folder, **settings)
    else:
        data_root = Path(data_folder)
        digest = hashlib.blake2b(str(data_root.resolve()).encode(), digest_size=4)
        name = f"{data_root.resolve().name}-{digest.hexdigest()}"
        folder = Path(
            manifest_folder or Path(corpus_folder).parent / "manifests" / name
        )
        _make_alone(folder, scan_folder, data_root, folder)
    train, valid, test = (
        folder / f"{part}.json" for part in ("train", "valid", "test")
    )
    if _is_empty(valid):
        raise ValueError(
            f"{data_root} holds only one usable file: training needs at least two, one "
            f"of them to validate on. See {folder / 'scan.json'}."
        )
    return Manifests(
        folder,
        train=load_manifest(train, data_root),
        valid=load_manifest(valid, data_root),
        test=load_manifest(valid if _is_empty(test) else test, data_root),
    )


def prepare_notes(notes_folder: str | Path, step: int, seed: int) -> Manifests:
    """Makes rendered single notes ready, as `prepare_manifests` does music.

    Arguments
    ---------
    notes_folder : str or Path
        Where they are kept.
    step : int
        Semitones between the notes of an instrument.
    seed : int
        Decides the velocities.

    Returns
    -------
    Manifests
        The training, validation and test parts, each with its own instruments.

    Raises
    ------
    OSError
        If the folder cannot be written.
    ValueError
        If it holds other data.

    Example
    -------
    >>> notes = prepare_notes(getfixture("tmp_path"), step=36, seed=0)
    >>> notes.test["004-072"]["instrument"], notes.test["004-072"]["pitch_class"]
    ('electric piano', 'C')
    """
    folder = Path(notes_folder)
    _make_alone(folder, build_notes, folder, step=step, seed=seed)
    return Manifests(
        folder,
        *(
            load_manifest(folder / f"{part}.json", folder)
            for part in ("train", "valid", "test")
        ),
    )


def _make_alone(folder: Path, make: Callable, *args, **kwargs) -> None:
    """Makes something in a folder while no other run does so."""

    def work():
        with contextlib.suppress(OSError):  # `make` says it better
            folder.mkdir(parents=True, exist_ok=True)
        with alone(folder) if folder.is_dir() else contextlib.nullcontext():
            make(*args, **kwargs)

    run_on_main(work)


def _is_empty(manifest: Path) -> bool:
    """Whether a part got no file, because there are so few."""
    return json.loads(manifest.read_text(encoding="utf-8")) == {}


def training_loader(
    manifest: dict,
    clip_seconds: float,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """An endless loader of random crops, one process's share.

    Arguments
    ---------
    manifest : dict
        Clip id to entry.
    clip_seconds : float
        Length of a crop.
    batch_size : int
        Clips in a micro-batch.
    seed : int
        Seed of the experiment.
    rank : int
        This process.
    world_size : int
        Number of processes.
    num_workers : int
        Worker processes that read; 0 reads in this process.
    pin_memory : bool
        Whether batches go to a GPU.

    Returns
    -------
    DataLoader
        Yields `ClipBatch` without end.
    """
    dataset = ClipDataset(manifest, clip_seconds, seed=seed)
    sampler = ClipSampler(
        len(dataset), batch_size, seed, rank, world_size, dataset.crops_per_clip()
    )
    return make_loader(dataset, sampler, num_workers, pin_memory)


def evaluation_loader(
    manifest: dict,
    clip_seconds: float,
    batch_size: int,
    windows_per_clip: int,
    max_windows: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """A loader of fixed windows with fixed keys, one process's share.

    The windows, and what is masked in them, depend neither on the seed of the
    experiment nor on the number of processes, so that runs can be compared.

    Arguments
    ---------
    manifest : dict
        Clip id to entry.
    clip_seconds : float
        Length of a window.
    batch_size : int
        Windows in a batch.
    windows_per_clip : int
        Windows taken from one file at most.
    max_windows : int or None
        Windows in all at most, evenly chosen; None takes all.
    rank : int
        This process.
    world_size : int
        Number of processes.
    num_workers : int
        Worker processes that read; 0 reads in this process.
    pin_memory : bool
        Whether batches go to a GPU.

    Returns
    -------
    DataLoader
        Yields `ClipBatch`.
    """
    dataset = ClipDataset(
        manifest, clip_seconds, seed=0, fixed=True, windows_per_clip=windows_per_clip
    )
    windows = range(len(dataset))
    if max_windows is not None and len(windows) > max_windows:
        windows = [i * len(windows) // max_windows for i in range(max_windows)]
    batches = list(BatchSampler(windows, batch_size, drop_last=False))
    return make_loader(dataset, batches[rank::world_size], num_workers, pin_memory)
