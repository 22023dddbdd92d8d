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

BATCHES = 12  # after one to warm up
TRACKS = 6
# Hours of the corpora of the paper (arXiv 2501.01108): public, and the authors' own.
CORPORA = (900, 160_000)


def measure(step: Callable[[int], float], steps: int, device: str) -> float:
    """Times something."""
    cpu = torch.device(device).type == "cpu"
    clock = time.process_time if cpu else time.perf_counter
    step(0)
    audio, begin = 0.0, clock()
    for number in range(1, steps + 1):
        audio += step(number)
    if not cpu:
        torch.accelerator.synchronize()
    return 3600 * (clock() - begin) / audio


def lines(costs: dict[str, float], bytes_per_hour: float) -> list[str]:
    """Says what the measured costs mean."""
    extraction = costs["extraction"]
    found = [
        f"extraction {extraction:.2f} s per hour of audio: "
        f"{3600 / extraction:,.0f} hours per hour and worker",
        f"a look-up {costs['stored']:.3f} s per hour heard",
        f"on the fly {costs['computed']:.2f} s per hour heard (same labels), "
        f"{costs['crop']:.2f} s (the target hears the crop alone)",
    ]
    for name, words in (("computed", "computed ones"), ("crop", "targets on crops")):
        # extraction + n * stored = n * other
        saved = costs[name] - costs["stored"]
        found.append(
            f"stored labels pay from {extraction / saved:.2f} hearings of each hour on "
            f"against {words}"
            if saved > 0
            else f"stored labels never pay against {words}"
        )
    for hours in CORPORA:
        found.append(
            f"{hours:,} h: {hours * extraction / 3600:,.0f} worker hours, "
            f"{hours * bytes_per_hour / 1e9:,.1f} GB of labels"
        )
    return found


def main(argv: list[str]) -> None:
    """Measures what the command line asks for."""
    experiment = load_experiment(argv)
    hparams = experiment.hparams
    device = experiment.run_opts.device or infer_device()
    manifests = prepare_manifests(**hparams["data"])
    target = hparams["modules"]["pretrain"].target
    load_tokenizer(target, hparams["tokenizer_folder"])
    target.to(device)
    settings = hparams["labels"]
    stored = settings.target_for(target, manifests)
    on_the_fly = ComputedLabels(settings.window_seconds, settings.context_seconds)
    computed = on_the_fly.target_for(target, manifests)
    loader = training_loader(
        manifests.train, hparams["clip_seconds"], hparams["batch_size"], seed=0
    )
    stream = iter(loader)
    batches = [next(stream).to(device) for _ in range(BATCHES + 1)]

    def hear(target):
        def step(number):
            batch = batches[number]
            target(batch.wavs, batch.wav_lens, batch.crops)
            return batch.audio_seconds

        return step

    clips = list(all_clips(manifests).values())

    def extract(number):
        entry = clips[number * len(clips) // (TRACKS + 1)]
        samples = track_samples(entry, target.sample_rate)
        for span in computed.windows.spans(samples):
            computed.windows.labels(entry["wav"], samples, span)
        return entry["duration"]

    costs = {"extraction": measure(extract, TRACKS, device)}
    for name, heard in (("stored", stored), ("computed", computed), ("crop", target)):
        costs[name] = measure(hear(heard), BATCHES, device)
    print(f"device {device}, {torch.get_num_threads()} threads")
    rate = 3600 * target.frame_rate * target.num_codebooks * 2
    print("\n".join(lines(costs, rate)))


if __name__ == "__main__":
    main(sys.argv[1:])
