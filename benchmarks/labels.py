#!/usr/bin/env python3
"""When are stored labels cheaper than labels that are computed on the fly?

From the experiment file and the options of a training on labels that are extracted:

> python benchmarks/labels.py hparams/iteration/muq_latent.yaml \
    --target.features.source results/muq/1234 \
    --tokenizer_folder results/muq_iter/1234/iteration-1/tokenizer \
    --labels.folder results/muq_iter/1234/iteration-1/labels

Times are those of the processor on a CPU, so that other programs do not count, and of
the clock on other devices.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import islice

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from speechbrain.utils.distributed import infer_device

from muq_plugins.data.clips import training_loader
from muq_plugins.data.labels import ComputedLabels
from muq_plugins.data.labels.targets import all_clips
from muq_plugins.data.labels.windows import track_samples
from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.experiment import load_experiment
from muq_plugins.inference.tokenizer import load_tokenizer
from muq_plugins.lobes import Target

BATCHES = 12  # after one to warm up
TRACKS = 6
# Hours of the corpora of the paper (arXiv 2501.01108): public, and the authors' own.
CORPORA = (900, 160_000)


def measure(step: Callable[[int], float], steps: int, device: str) -> float:
    """Seconds for an hour of audio; a step gives the seconds that it is about."""
    cpu = torch.device(device).type == "cpu"
    clock = time.process_time if cpu else time.perf_counter
    step(0)
    begin = clock()
    audio = sum(map(step, range(1, steps + 1)))
    if not cpu:
        torch.accelerator.synchronize()
    return 3600 * (clock() - begin) / audio


def report(costs: dict[str, float], bytes_per_hour: float) -> list[str]:
    """Says what the measured costs mean."""
    extraction = costs["extraction"]
    lines = [f"{name} {cost:.3f} s per hour of audio" for name, cost in costs.items()]
    for name in ("computed", "crop"):
        # extraction + n * stored = n * other
        saved = costs[name] - costs["stored"]
        after = f"from {extraction / saved:.2f} hearings on" if saved > 0 else "never"
        lines.append(f"stored labels pay {after} against {name}")
    for hours in CORPORA:
        lines.append(
            f"{hours:,} h: {hours * extraction / 3600:,.0f} worker hours, "
            f"{hours * bytes_per_hour / 1e9:,.1f} GB of labels"
        )
    return lines


def main(argv: list[str]) -> None:
    """Measures what the command line asks for."""
    experiment = load_experiment(argv)
    hparams = experiment.hparams
    device = experiment.run_opts.device or infer_device()
    manifests = prepare_manifests(**hparams["data"])
    target = hparams["target"]
    load_tokenizer(target, hparams["tokenizer_folder"])
    target.to(device)
    settings = hparams["labels"]
    on_the_fly = ComputedLabels(settings.window_seconds, settings.context_seconds)
    targets = {
        "stored": settings.target_for(target, manifests),
        "computed": on_the_fly.target_for(target, manifests),  # the same labels
        "crop": target,  # which hears the crop alone
    }
    loader = training_loader(
        manifests.train, hparams["clip_seconds"], hparams["batch_size"], seed=0
    )
    batches = [batch.to(device) for batch in islice(loader, BATCHES + 1)]
    clips = list(all_clips(manifests).values())
    windows = targets["computed"].windows

    def extract(number: int) -> float:
        entry = clips[number * len(clips) // (TRACKS + 1)]
        samples = track_samples(entry, target.sample_rate)
        for span in windows.spans(samples):
            windows.labels(entry["wav"], samples, span)
        return entry["duration"]

    def hear(heard: Target, number: int) -> float:
        batch = batches[number]
        heard(batch.wavs, batch.wav_lens, batch.crops)
        return batch.audio_seconds

    costs = {"extraction": measure(extract, TRACKS, device)}
    for name, heard in targets.items():
        costs[name] = measure(partial(hear, heard), BATCHES, device)
    print(f"device {device}, {torch.get_num_threads()} threads")
    rate = 3600 * target.frame_rate * target.num_codebooks * 2
    print("\n".join(report(costs, rate)))


if __name__ == "__main__":
    main(sys.argv[1:])
