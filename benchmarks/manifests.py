"""What a large manifest costs: start, first batch, resuming, memory, scanning again.

    python benchmarks/manifests.py 100000 1000000

The manifests are made up: all entries share a few links to one real recording. Every
measurement is a process of its own; memory of a worker is that beyond a worker with six
entries, so without what it imports: USS is its own, PSS its share of what is shared.
Times are of the processor: other programs do not count, and files are in its cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile

ALBUMS = 1000
SECONDS, CLIP_SECONDS, BATCH = 60.0, 5.0, 8
FAR = 10_000_000  # micro-batches
PARTS = {"train": 0.9, "valid": 0.05, "test": 0.05}
ROWS = {
    "first start": "first start: read the JSON files, seconds",
    "start": "every other start: manifests, facts, loaders, seconds",
    "first batch": "first batch, seconds",
    "resume": "resume at 10 million micro-batches, seconds",
    "trainer": "trainer holds, MB",
    "spawn uss": "worker by spawn holds, USS, MB",
    "spawn pss": "worker by spawn holds, PSS, MB",
    "fork uss": "worker by fork holds, USS, MB",
    "fork pss": "worker by fork holds, PSS, MB",
    "workers": "workers beside 8 of training, of one process",
    "ids and split": "ids and split, seconds",
    "scan again": "scan again a folder where nothing is new, seconds",
}


def make(folder: Path, entries: int) -> None:
    """Manifests of a corpus, whose paths are there."""
    from muq_plugins.data.audio import AudioInfo
    from muq_plugins.data.manifest import clip_ids, manifest_entry

    music = folder / "music"
    noise = np.random.default_rng(0).normal(0, 0.1, int(SECONDS * 24000))
    music.mkdir(parents=True)
    soundfile.write(music / "one.flac", noise, 24000)
    for album in range(min(ALBUMS, entries)):
        place = music / f"artist-{album // 10:03d}" / f"album-{album:03d}"
        place.mkdir(parents=True)
        os.link(music / "one.flac", place / "A title of usual length.flac")
    audio = AudioInfo(24000, int(SECONDS * 24000), 1, "FLAC", "PCM_16")
    first = 0
    for part, share in PARTS.items():
        count = max(2, round(share * entries))
        names, files = [], []
        for number in range(first, first + count):
            album = number % min(ALBUMS, entries)
            place = f"artist-{album // 10:03d}/album-{album:03d}"
            names.append(f"{place}/{number:07d} A title of usual length.flac")
            files.append(f"{place}/A title of usual length.flac")
        first += count
        found = {
            name: manifest_entry(file, audio)
            for name, file in zip(clip_ids(names), files, strict=True)
        }
        (folder / f"{part}.json").write_text(json.dumps(found), encoding="utf-8")


def make_files(folder: Path, entries: int) -> None:
    """A folder of as many files, which were decoded before, as its scan remembers."""
    from muq_plugins.data import scan
    from muq_plugins.data.audio import AudioCheck

    for number in range(entries):
        place = folder / "many" / f"artist-{number % ALBUMS:03d}"
        if number < ALBUMS:
            place.mkdir(parents=True)
        (place / f"{number:07d} A title of usual length.flac").touch()
    good = AudioCheck(24000, int(SECONDS * 24000), 1, "FLAC", "PCM_16", peak=0.5)
    check, scan.check_audio = scan.check_audio, lambda path: good
    scan.scan_folder(folder / "many", folder / "scanned", progress=False)
    scan.check_audio = check


def measure(folder: Path, what: str) -> dict[str, float]:
    """One kind of numbers, by the keys of `ROWS`."""
    if what == "scan again":
        from muq_plugins.data.scan import scan_folder

        begin = time.process_time()
        scan_folder(folder / "many", folder / "scanned", progress=False)
        return {what: time.process_time() - begin}
    from muq_plugins.data import clips
    from muq_plugins.data.manifest import clip_ids, load_manifest, split_files
    from muq_plugins.data.preparation import Manifests

    if what == "ids and split":
        names = json.loads((folder / "train.json").read_bytes())
        names = [name.replace("__", "/") + ".flac" for name in names]
        begin = time.process_time()
        clip_ids(names)
        split_files(names, 1234, 0.05, 0.05)
        return {what: time.process_time() - begin}
    before = psutil.Process().memory_full_info().uss
    begin = time.process_time()
    parts = [load_manifest(folder / f"{part}.json", folder / "music") for part in PARTS]
    manifests = Manifests(folder, *parts)
    manifests.facts(), manifests.heard()
    workers = 8 if what == "workers" else int(what in ("spawn", "fork"))
    share = {"num_workers": workers}
    loader = clips.training_loader(manifests.train, CLIP_SECONDS, BATCH, 1, **share)
    valid = clips.evaluation_loader(
        manifests.valid, CLIP_SECONDS, BATCH, 4, 64, **share
    )
    start = time.process_time() - begin
    if what == "workers":
        return {what: 2 * valid.num_workers}
    if not workers:
        numbers = {what: start}
        if what == "start":
            begin = time.process_time()
            next(iter(loader))
            numbers["first batch"] = time.process_time() - begin
            numbers["trainer"] = psutil.Process().memory_full_info().uss - before
            numbers["trainer"] /= 1e6
            loader.batch_sampler.set_position(FAR)
            begin = time.process_time()
            next(iter(loader))
            numbers["resume"] = time.process_time() - begin
        return numbers
    if what == "fork":
        loader = clips.DataLoader(
            loader.dataset,
            batch_sampler=loader.batch_sampler,
            collate_fn=loader.collate_fn,
            num_workers=1,
            multiprocessing_context="fork",
        )
    iterator = iter(loader)
    for _ in range(20):
        next(iterator)
    memory = psutil.Process(iterator._workers[0].pid).memory_full_info()
    return {f"{what} {kind}": getattr(memory, kind) / 1e6 for kind in ("uss", "pss")}


def measure_all(entries: int, top: Path) -> dict[str, float]:
    """All numbers of one size."""
    numbers = {}
    for size in (6, entries):
        folder = top / str(size)
        if not folder.exists():
            make(folder, size)
            make_files(folder, size)
        for what in (
            "first start",
            "start",
            "spawn",
            "fork",
            "workers",
            "ids and split",
            "scan again",
        ):
            command = [sys.executable, __file__, "--measure", what, str(folder)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            for name, value in json.loads(output.splitlines()[-1]).items():
                beyond = name.split()[-1] in ("uss", "pss") and size == entries
                numbers[name] = value - numbers[name] if beyond else value
    return numbers


def main() -> None:
    """Prints a Markdown table with a column for each size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("entries", nargs="+", help="sizes of the corpus")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help="where files are made, and kept")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.entries[0]), args.measure)))
        return
    with tempfile.TemporaryDirectory() as made:
        top = Path(args.folder or made)
        columns = [measure_all(int(size), top) for size in args.entries]
    sizes = " | ".join(f"{int(size):,} entries" for size in args.entries)
    print(f"| | {sizes} |\n{'|---' * (1 + len(columns))}|")
    for name, words in ROWS.items():
        values = " | ".join(f"{column[name]:,.2f}" for column in columns)
        print(f"| {words} | {values} |")


if __name__ == "__main__":
    main()
