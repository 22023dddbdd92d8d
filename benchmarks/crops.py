#!/usr/bin/env python3
"""What a crop of music costs: from mp3 of 44.1 kHz, and from shards.

> python benchmarks/crops.py --corpus results/corpus-300min --folder /tmp/crops

Some recordings of the embedded corpus are written as stereo mp3 of 44.1 kHz, these
into shards, and the same crops are read from all, in turn, by one thread.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from muq_plugins.data.audio import read_audio
from muq_plugins.data.manifest import PARTS, load_manifest
from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.data.shards.write import jobs_of_folder, write_shards

RECORDINGS = 24
MP3 = {"samplerate": 44100, "format": "MP3", "subtype": "MPEG_LAYER_III"}


def write_mp3s(corpus: Path, folder: Path, count: int) -> None:
    """Some recordings as people have them, each of about four minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = list(load_manifest(corpus / "train.json", corpus).values())
    for number in range(count):
        wav, seconds = [], 0.0
        while seconds < 240:
            entry = entries.pop(0)
            wav.append(read_audio(entry["wav"], sample_rate=44100))
            seconds += entry["duration"]
        mono = torch.cat(wav).numpy()
        # Two channels that differ, as encoders take one for a half.
        stereo = np.stack([mono, 0.7 * np.roll(mono, 441)], axis=1)
        with soundfile.SoundFile(
            folder / f"{number}.mp3", "w", channels=2, **MP3
        ) as file:
            for begin in range(0, len(stereo), 44100):
                file.write(stereo[begin : begin + 44100])


def entries_of(folder: Path, corpus: Path) -> dict[str, dict]:
    """All clips of a folder or of shards."""
    manifests = prepare_manifests(folder, corpus, 1.0, 1)
    return {
        name: entry for part in PARTS for name, entry in manifests.parts[part].items()
    }


def measure(
    sources: dict[str, dict[str, dict]], seconds: float, crops: int
) -> dict[str, float]:
    """CPU milliseconds of a crop from each source; the crops are the same."""
    random = np.random.default_rng(0)
    names = sorted(next(iter(sources.values())))
    spent: dict[str, list[float]] = {name: [] for name in sources}
    for crop in range(crops + 3):
        clip = names[random.integers(len(names))]
        share = random.random()
        for name, entries in sources.items():
            entry = entries[clip]
            start = share * (entry["duration"] - seconds - 0.1)
            begin = time.process_time()
            read_audio(entry["wav"], start, seconds)
            if crop >= 3:  # to warm up
                spent[name].append(1000 * (time.process_time() - begin))
    return {name: float(np.median(times)) for name, times in spent.items()}


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=RECORDINGS)
    parser.add_argument("--crops", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    music = given.folder / "mp3"
    if not music.is_dir():
        write_mp3s(given.corpus, music, given.recordings)
    sources = {"mp3, 44.1 kHz": entries_of(music, given.folder / "corpus")}
    sizes = {"mp3, 44.1 kHz": sum(f.stat().st_size for f in music.iterdir())}
    hours = sum(entry["duration"] for entry in sources["mp3, 44.1 kHz"].values()) / 3600
    for encoding in ("flac", "opus"):
        out = given.folder / encoding
        begin = time.process_time()
        jobs = jobs_of_folder(music, given.folder / "scan", 1)
        content, _ = write_shards(jobs, out, encoding, workers=1)
        took = time.process_time() - begin
        print(f"{encoding}: written in {took / hours:.0f} s of CPU an hour of music")
        sources[f"shards, {encoding}"] = entries_of(out, given.folder / "corpus")
        sizes[f"shards, {encoding}"] = sum(s["bytes"] for s in content["shards"])
    print("| source | MB an hour | 10 s | 30 s |\n|---|---|---|---|")
    rows = [measure(sources, seconds, given.crops) for seconds in (10.0, 30.0)]
    first = next(iter(sources))
    for name in sources:
        times = " | ".join(
            f"{row[name]:.1f} ms ({row[first] / row[name]:.1f}x)" for row in rows
        )
        print(f"| {name} | {sizes[name] / hours / 1e6:.0f} | {times} |")


if __name__ == "__main__":
    main()
