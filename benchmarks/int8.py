r"""How much faster int8 is on this CPU, and what it changes.

> python benchmarks/int8.py
> python benchmarks/int8.py --model small --seconds 30 --notes /tmp/notes
> python benchmarks/int8.py --model small --seconds 30 --onnx /tmp/onnx

Without a model it is the released size with random weights. Times are processor time of
both, which take turns, so that other programs matter little; the ratio is the median of
the turns. `--onnx` also measures exported files in onnxruntime, `--notes` what linear
probes tell of single notes, which are rendered into that folder.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from fidelity import RATE, random_chords, random_model
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from muq_plugins import MuQ
from muq_plugins.data.audio import read_audio
from muq_plugins.data.preparation import prepare_notes
from muq_plugins.inference.export import export_onnx

LABELS = ("instrument_family", "pitch")


def load(name):
    """The same weights in each call."""
    return MuQ.from_pretrained(name, "cpu") if name else random_model({})


def processor_time(call):
    """Seconds of all threads."""
    start = time.process_time()
    call()
    return time.process_time() - start


def ratio(calls, turns):
    """Median seconds of two calls that take turns, and of their ratio."""
    found = [[processor_time(call) for call in calls] for _ in range(turns)]
    ratios = [slow / fast for slow, fast in found]
    slow, fast = (statistics.median(times) for times in zip(*found, strict=True))
    return (
        f"{slow:.2f} s and {fast:.2f} s, {statistics.median(ratios):.2f} times as fast "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


@torch.no_grad()
def errors(model, rounded, wav):
    """Relative difference of the states of each layer, and one minus the cosine of
    their means over time."""
    for layer, states in enumerate(
        zip(model(wav).hidden_states, rounded(wav).hidden_states, strict=True)
    ):
        one, other = states
        means = (state[0].mean(0).double() for state in states)
        cosine = torch.cosine_similarity(*means, dim=0)
        relative = (other - one).norm() / one.norm()
        print(f"layer {layer}: {relative:.2%}, 1 - cosine {1 - cosine:.1e}")


def sessions(model, folder, wav):
    """Calls of both exported files."""
    import onnxruntime

    for int8 in (False, True):
        path = export_onnx(model, Path(folder, f"{int8}.onnx"), int8=int8)
        files = path.parent.glob(f"{path.name}*")
        print(f"{path}: {sum(file.stat().st_size for file in files) / 1e6:.0f} MB")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(path, options)
        yield lambda run=session.run: run(None, {"wavs": wav.numpy()})


@torch.no_grad()
def statistics_of_notes(model, notes):
    """Means and deviations over time of all layers, for each note."""
    rows = []
    for note in notes:
        states = torch.stack(model(read_audio(note["wav"])[None]).hidden_states)[:, 0]
        rows.append(torch.cat([states.mean(1), states.std(1)], 1).numpy())
    return np.stack(rows, 1)


def probe(model, rounded, folder):
    """Accuracy on instruments that were not learned from, by layer."""
    manifests = prepare_notes(folder, step=3, seed=1)
    parts = [list(manifests.parts[part].values()) for part in ("train", "test")]
    features = {
        name: [statistics_of_notes(m, part) for part in parts]
        for name, m in (("float32", model), ("int8", rounded))
    }
    for label in LABELS:
        train, test = ([note[label] for note in part] for part in parts)
        for name, (known, asked) in features.items():
            scores = [
                make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
                .fit(one, train)
                .score(other, test)
                for one, other in zip(known, asked, strict=True)
            ]
            print(label, name, *(f"{score:.1%}" for score in scores), len(test))


def main():
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--audio")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--onnx")
    parser.add_argument("--notes")
    given = parser.parse_args()
    model, rounded = load(given.model), load(given.model).int8()
    wav = random_chords(given.seconds)
    if given.audio:
        wav = read_audio(given.audio, sample_rate=RATE)[: given.seconds * RATE]
    wav = wav[None]
    errors(model, rounded, wav)
    for threads in given.threads:
        torch.set_num_threads(threads)
        calls = [lambda m=m: m(wav) for m in (model, rounded)]
        print(f"threads {threads}:", ratio(calls, given.turns))
        if given.onnx:
            calls = list(sessions(model, given.onnx, wav))
            print(f"threads {threads}, onnxruntime:", ratio(calls, given.turns))
    if given.notes:
        probe(model, rounded, given.notes)


if __name__ == "__main__":
    main()
