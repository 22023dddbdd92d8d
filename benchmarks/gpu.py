"""What one GPU does with a MuQ of the released size.

    python benchmarks/gpu.py docs/results/gpu/h100.json --data_folder /my/music
    python benchmarks/gpu.py out.json --tiny    # on a CPU, to see that it works

Each row is written when it is known, to the JSON file and to a table beside it (.md);
one that could not be measured says why, and none begins after --seconds. Times are
medians of repeats that wait for the GPU, after two to warm up. Rates count the audio
that goes in: seconds a second, or hours in an hour of the GPU. It needs torch,
torchaudio and our lobes; `pretraining`, at the end, needs all of the package, and
`official` the interpreter of an environment with the package muq, such as
`benchmarks/compare.py` builds in ~/.cache/muq_plugins. Its steps are taken by Adam, its
memory is what is used beside the loaded model.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from muq_plugins import lobes  # noqa: E402
from muq_plugins.lobes.finite import Refusals  # noqa: E402

TINY = {"width": 64, "num_layers": 1, "num_heads": 4, "ffn_width": 128}
TINY["conv_channels"] = 8
KINDS = ("float32", "bfloat16", "bfloat16 compiled")


class Bench:
    """The measurements on one machine, and the file that they go to."""

    def __init__(
        self,
        out: Path,
        tiny: bool,
        seconds: float,
        official: str | None = None,
        data_folder: Path | None = None,
    ):
        self.out, self.tiny, self.end = out, tiny, time.monotonic() + seconds
        self.official_python, self.data_folder = official, data_folder
        self.gpu = torch.cuda.is_available() and not tiny
        self.device = "cuda" if self.gpu else "cpu"
        self.width, self.book = (64, 64) if tiny else (1024, 1024)
        self.matrix_rate = float("nan")
        self.rows: list[dict[str, Any]] = []

    def measure(self, task: Callable[..., dict], /, **settings: Any) -> None:
        """Adds a row; out of memory and refusals of compilers are rows too."""
        row = {"what": task.__name__, **settings}
        try:
            late = time.monotonic() > self.end
            row |= {"left_out": "no time left"} if late else task(**settings)
        except Exception as error:
            row["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if self.gpu:
            torch.cuda.empty_cache()
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        self.out.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")
        self.out.with_suffix(".md").write_text(table(self.rows), encoding="utf-8")

    def timed(self, call: Callable) -> dict[str, Any]:
        """Seconds of a call, and GiB of the GPU at most, the model included."""
        wait = torch.cuda.synchronize if self.gpu else lambda: None
        times = []
        for repeat in range(3 if self.tiny else 7):
            if repeat == 2 and self.gpu:
                torch.cuda.reset_peak_memory_stats()
            wait()
            begin = time.perf_counter()
            call()
            wait()
            times.append(time.perf_counter() - begin)
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.gpu else None
        return {"seconds": statistics.median(times[2:]), "peak_gib": peak}

    def autocast(self, kind: str) -> contextlib.AbstractContextManager:
        """The precision that a kind asks for."""
        enabled = kind.startswith("bfloat16")
        return torch.autocast(self.device, torch.bfloat16, enabled=enabled)

    def audio(self, clips: int, seconds: float) -> torch.Tensor:
        """Noise at 24 kHz."""
        return 0.1 * torch.randn(clips, int(seconds * 24000), device=self.device)

    def stage(self, kind: str) -> lobes.MaskedPrediction:
        """Pre-training with the target of the paper."""
        torch.manual_seed(0)
        encoder = lobes.MuQEncoder(**TINY if self.tiny else {})
        target = lobes.Target(
            lobes.StackedFrames(lobes.LogMel()), lobes.ResidualVQ(512, 8, self.book)
        )
        head = lobes.MultiCodebookHead(self.width, 8, self.book)
        stage = lobes.MaskedPrediction(lobes.BlockMasking(), target, encoder, head)
        if "compiled" in kind:  # not the spectrogram: compilers leave complex numbers
            torch.compiler.reset()
            encoder.compile(backend="inductor" if self.gpu else "eager")
        return stage.to(self.device)

    def machine(self) -> dict:
        """What it runs on, and the rate of a large matrix product."""
        side = 8192 if self.gpu else 128
        left, right = torch.randn(2, side, side, device=self.device).bfloat16()
        self.matrix_rate = 2 * side**3 / self.timed(lambda: left @ right)["seconds"]
        return {
            "device": torch.cuda.get_device_name() if self.gpu else "cpu",
            "torch": torch.__version__,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            "matrix_tflops": self.matrix_rate / 1e12,
        }

    @torch.no_grad()
    def difference(self) -> dict:
        """How far hidden states are from those in float32 on the CPU, relatively."""
        encoder, wavs = self.stage("").encoder.eval(), self.audio(1, 3)
        expected = encoder.cpu()(wavs.cpu()).last_hidden_state
        encoder.to(self.device)
        row = {}
        for kind in KINDS[:2]:
            with self.autocast(kind):
                found = encoder(wavs).last_hidden_state.float().cpu()
            row[kind] = float((found - expected).norm() / expected.norm())
        return row

    @torch.no_grad()
    def inference(self, kind: str, clips: int, clip_seconds: float) -> dict:
        """Hidden states of clips."""
        encoder = self.stage(kind).encoder.eval()
        wavs = self.audio(clips, clip_seconds)
        with self.autocast(kind):
            row = self.timed(lambda: encoder(wavs).last_hidden_state)
        return row | {"audio_per_second": clips * clip_seconds / row["seconds"]}

    def training(self, kind: str, clips: int, clip_seconds: float) -> dict:
        """An update of one micro-batch."""
        stage = self.stage(kind).train()
        parameters = [p for p in stage.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, fused=self.gpu)
        wavs = self.audio(clips, clip_seconds)
        keys = torch.arange(clips)

        def step():
            with self.autocast(kind), Refusals().collect():
                loss = stage(wavs, None, keys).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        row = self.timed(step)
        row["audio_per_second"] = clips * clip_seconds / row["seconds"]
        row["synchronisations"] = self.waits(step) if self.gpu else None
        if "compiled" not in kind:
            with FlopCounterMode(display=False) as counter:
                step()
            rate = counter.get_total_flops() / row["seconds"]
            row["share_of_matrix_rate"] = rate / self.matrix_rate
        return row

    def waits(self, call: Callable) -> int:
        """How often the processor waits for the GPU in a call."""
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call()
        torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in seen)

    @torch.no_grad()
    def target(self, clips: int, clip_seconds: float) -> dict:
        """Codes of clips, and the log-mel spectrogram alone."""
        stage, wavs = self.stage("").eval(), self.audio(clips, clip_seconds)
        codes = self.timed(lambda: stage.objectives["codes"].target(wavs))["seconds"]
        mel = self.timed(lambda: stage.encoder.features(wavs))["seconds"]
        audio = clips * clip_seconds
        return {"audio_per_second": audio / codes, "log_mel_per_second": audio / mel}

    def official(self, task: str, precision: str, clips: int, clip_seconds: float):
        """The package muq, in a process of its own."""
        from compare import measure

        if self.official_python is None:
            return {"left_out": "no --official_python"}
        size = "quick" if self.tiny else "released"
        wanted = {"kind": task, "precision": precision, "seconds": clip_seconds}
        wanted |= {"batch": clips, "device": self.device, "threads": 2, "size": size}
        with tempfile.TemporaryDirectory() as folder:
            log = self.out.with_suffix(".log")
            pythons = {"official": self.official_python}
            found = measure(wanted, pythons, Path(folder), log, 5)["official"]
        if "fails" in found:
            return {"failed": found["fails"]}
        peak = found["bytes"] / 2**30 if self.gpu else None
        rate = {"audio_per_second": found["per_second"]}
        return {"seconds": found["seconds"], "peak_gib": peak} | rate

    def pretraining(self, kind: str, clips: int, clip_seconds: float, minutes: float):
        """Pre-training on recordings, as `train.py` does it: does it wait for them?"""
        if self.data_folder is None:
            return {"left_out": "no --data_folder"}
        from muq_plugins.brains import PretrainBrain
        from muq_plugins.data.clips import training_loader
        from muq_plugins.data.manifest import load_manifest
        from muq_plugins.data.scan import scan_folder

        warm_up, workers = (1, 0) if self.tiny else (20, 14)
        with tempfile.TemporaryDirectory() as folder:
            scan_folder(self.data_folder, folder, 0.0, 0.0, progress=False)
            manifest = load_manifest(Path(folder) / "train.json", self.data_folder)
            brain = PretrainBrain(
                modules={"pretrain": self.stage(kind)},
                opt_class=lambda parameters: torch.optim.AdamW(parameters, fused=True),
                hparams={
                    "seed": 0,
                    "output_folder": folder,
                    "optimizer_step_limit": 10**9,
                    "batch_size": clips,
                    "clips_per_update": clips,
                    "lr_schedule": lambda optimizer, update: None,
                    "log_interval": 20,
                    "valid_interval": 10**9,
                    "checkpoints_to_keep": 1,
                    "max_bad_fraction": 0.01,
                    "max_grad_norm": 10.0,
                },
                run_opts={
                    "device": self.device,
                    "precision": "bf16" if kind.startswith("bfloat16") else "fp32",
                    "noprogressbar": True,
                },
            )
            share = (0, 1, workers, self.gpu)
            clips_of = training_loader(manifest, clip_seconds, clips, 0, *share)
            left = self.end - time.monotonic()
            loader = Timed(clips_of, warm_up, min(60 * minutes, left))
            brain.fit(loader)
            if self.gpu:
                torch.cuda.synchronize()
        seconds, audio = time.perf_counter() - loader.began, loader.audio
        return {
            "seconds": seconds,
            "audio_per_second": audio / seconds,
            "share_waiting_for_audio": loader.waited / seconds,
        }

    def run(self) -> None:
        """Measures everything."""
        clip = 1 if self.tiny else 30
        clips = ((1, 1),) if self.tiny else ((1, 10), (1, 30), (8, 30), (1, 300))
        batches = (2,) if self.tiny else (3, 8, 16, 24)
        self.measure(self.machine)
        self.measure(self.difference)
        for kind in KINDS:
            for n, seconds in clips:
                self.measure(self.inference, kind=kind, clips=n, clip_seconds=seconds)
        for kind in KINDS:
            for n in batches if kind != "float32" else batches[:1]:
                self.measure(self.training, kind=kind, clips=n, clip_seconds=clip)
        self.measure(self.target, clips=2 if self.tiny else 8, clip_seconds=clip)
        asked = [("inference", n, seconds) for n, seconds in clips]
        for task, n, seconds in [*asked, ("training", batches[0], clip)]:
            for precision in ("fp32", "bf16"):
                size = {"clips": n, "clip_seconds": seconds}
                self.measure(self.official, task=task, precision=precision, **size)
        size = {"clips": batches[-1], "clip_seconds": clip}
        minutes = 0.02 if self.tiny else 2
        self.measure(self.pretraining, kind=KINDS[-1], minutes=minutes, **size)


class Timed:
    """A loader that ends after a while, and says how long it was waited for."""

    def __init__(self, loader: Any, warm_up: int, seconds: float):
        self.loader, self.warm_up, self.seconds = loader, warm_up, seconds
        self.batch_sampler, self.dataset = loader.batch_sampler, loader.dataset
        self.began = self.waited = self.audio = 0.0

    def __iter__(self):
        source = iter(self.loader)
        for number in itertools.count():
            if number == self.warm_up:
                self.began, self.waited, self.audio = time.perf_counter(), 0.0, 0.0
            asked = time.perf_counter()
            if number > self.warm_up and asked > self.began + self.seconds:
                return
            batch = next(source)
            self.waited += time.perf_counter() - asked
            self.audio += batch.audio_seconds
            yield batch


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for a reader."""
    first = rows[0]
    lines = [
        f"{first.get('device')}, torch {first.get('torch')}; a matrix product in "
        f"bfloat16: {first.get('matrix_tflops', math.nan):.4g} TFLOP/s",
        "",
        "| what | of | clips | seconds | audio a second | GiB | of the matrix rate "
        "| waits | what else |",
        "|---" * 9 + "|",
    ]
    shown = ("seconds", "audio_per_second", "peak_gib")
    shown += ("share_of_matrix_rate", "synchronisations")
    for row in rows[1:]:
        row = dict(row)
        of = [row.pop(name, None) for name in ("task", "kind", "precision")]
        clips, seconds = row.pop("clips", None), row.pop("clip_seconds", None)
        clips = f"{clips} x {seconds} s" if clips else ""
        cells = [row.pop("what"), " ".join(filter(None, of)), clips]
        numbers = [row.pop(name, None) for name in shown]
        cells += ["" if number is None else f"{number:.4g}" for number in numbers]
        cells.append(", ".join(f"{k}: {_short(v)}" for k, v in row.items()))
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)[:200]


def main(argv: list[str] | None = None) -> None:
    """Measures on the GPU, or on a CPU where there is none."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="JSON file that the rows go to")
    parser.add_argument("--tiny", action="store_true", help="a small model, on a CPU")
    parser.add_argument(
        "--seconds", type=float, default=460, help="no row begins later"
    )
    parser.add_argument("--official_python", help="one that has the package muq")
    parser.add_argument("--data_folder", type=Path, help="recordings to train on")
    settings = parser.parse_args(argv)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    others = settings.official_python, settings.data_folder
    Bench(settings.out, settings.tiny, settings.seconds, *others).run()


if __name__ == "__main__":
    main()
