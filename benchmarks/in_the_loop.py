"""How long a probe takes that encodes its clips in every epoch, or only once.

> python benchmarks/in_the_loop.py --model small --folder /data/GTZAN

Genres of GTZAN as MARBLE v2 reads them: one hidden state of whole clips, a head with
one hidden layer, so many epochs over the training part, each followed by validation,
and the test part at the end. Both ways see the same vectors; without a folder,
recordings are random chords. Times are those of the processor.
"""

import argparse
import tempfile
import time
from pathlib import Path

import soundfile
import torch
from fidelity import RATE, random_chords
from torch import nn

from muq_plugins.data.datasets.gtzan import GENRES
from muq_plugins.evaluation.marble.task import open_task
from muq_plugins.evaluation.marble.tasks import TASKS
from muq_plugins.evaluation.probing.features import HiddenStates
from muq_plugins.evaluation.probing.store import Cutting, stored_features
from muq_plugins.inference.encoders import load_encoder

SECONDS = 30.0
BATCH = 8
PARTS = {"train": 4, "valid": 2, "test": 2}  # random recordings


def write_folder(folder, seconds=SECONDS):
    """Random recordings in the layout of GTZAN."""
    number = 0
    for part, count in PARTS.items():
        names = []
        for _ in range(count):
            genre = GENRES[number % len(GENRES)]
            name = f"{genre}/{genre}.{number:05}.wav"
            path = folder / "genres_original" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, random_chords(int(seconds) + number % 2), RATE)
            names.append(name)
            number += 1
        (folder / f"{part}_filtered.txt").write_text("\n".join(names) + "\n")
    return folder


def probe(opened, vectors, epochs):
    """Trains a head for so many epochs; `vectors` gives those of some recordings."""
    places = {
        part: [n for n, one in enumerate(opened.recordings) if one.part == part]
        for part in PARTS
    }
    torch.manual_seed(0)
    head = nn.Sequential(nn.LazyLinear(512), nn.ReLU(), nn.Dropout(0.2))
    head.append(nn.Linear(512, len(GENRES)))
    targets = torch.as_tensor(opened.targets)
    head(vectors(places["train"][:1]))  # its width
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)

    def batches(part):
        for start in range(0, len(places[part]), BATCH):
            some = places[part][start : start + BATCH]
            yield vectors(some), targets[some]

    def share(part):
        head.eval()
        with torch.no_grad():
            right = [(head(x).argmax(1) == y).float() for x, y in batches(part)]
        return float(torch.cat(right).mean())

    for _ in range(epochs):
        head.train()
        for x, y in batches("train"):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(x), y).backward()
            optimizer.step()
        share("valid")
    return share("test")


def both_ways(opened, extractor, layer, epochs, folder):
    """Seconds of the processor in the loop and from kept features, and both scores."""
    cutting, recordings = Cutting(SECONDS, most=1), opened.recordings

    def encoded(places):
        rows = cutting.rows(extractor, [recordings[at] for at in places], BATCH)
        return torch.stack([torch.as_tensor(one[0][0, layer]) for one in rows]).float()

    begin = time.process_time()
    in_the_loop = probe(opened, encoded, epochs)
    middle = time.process_time()
    stored, _ = stored_features(extractor, recordings, cutting, folder, BATCH)
    kept = stored.only([layer])
    once = probe(opened, lambda places: kept[torch.as_tensor(places)][:, 0], epochs)
    end = time.process_time()
    return middle - begin, end - middle, in_the_loop, once


def main():
    """Prints both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--folder", type=Path, help="GTZAN; none: random chords")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--epochs", type=int, default=20, help="v2: 20 to 50")
    given = parser.parse_args()
    extractor = HiddenStates(load_encoder(given.model))
    with tempfile.TemporaryDirectory() as temporary:
        temporary = Path(temporary)
        folder = given.folder or write_folder(temporary / "GTZAN")
        opened = open_task(TASKS["gtzan_genre"], folder)
        layer = given.layer % extractor.layers
        times = both_ways(opened, extractor, layer, given.epochs, temporary / "kept")
    looped, kept, score, same = times
    print(f"{len(opened.recordings)} recordings, {given.epochs} epochs, layer {layer}")
    print(f"encoded in every epoch: {looped:.1f} s, accuracy {score:.1%}")
    print(f"encoded once:           {kept:.1f} s, accuracy {same:.1%}")
    print(f"ratio:                  {looped / kept:.1f}")


if __name__ == "__main__":
    main()
