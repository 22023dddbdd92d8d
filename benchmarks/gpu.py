"""What one GPU does with a MuQ of the released size.

    python benchmarks/gpu.py docs/results/gpu/h100.json
    python benchmarks/gpu.py out.json --tiny    # on a CPU, to see that it works

Each row is written when it is known; one that could not be measured says why, and none
begins after --seconds. Times are medians of repeats that wait for the GPU, after two to
warm up. Rates count the audio that goes in. It needs torch, torchaudio and our lobes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from muq_plugins import lobes  # noqa: E402

TINY = {"width": 64, "num_layers": 1, "num_heads": 4, "ffn_width": 128}
TINY["conv_channels"] = 8
KINDS = ("float32", "bfloat16", "bfloat16 compiled")


class Bench:
    """The measurements on one machine, and the file that they go to."""

    def __init__(self, out: Path, tiny: bool, seconds: float):
        self.out, self.tiny, self.end = out, tiny, time.monotonic() + seconds
        self.gpu = torch.cuda.is_available() and not tiny
        self.device = "cuda" if self.gpu else "cpu"
        self.width, self.book = (64, 64) if tiny else (1024, 1024)
        self.matrix_rate = float("nan")
        self.rows: list[dict[str, Any]] = []

    def measure(self, task: Callable[..., dict], **settings: Any) -> None:
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
            for part in (encoder.conv, encoder.conformer):
                part.compile(backend="inductor" if self.gpu else "eager")
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
        keys = torch.arange(clips, device=self.device)

        def step():
            with self.autocast(kind):
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

    def run(self) -> None:
        """Measures everything."""
        clip = 1 if self.tiny else 30
        clips = ((1, 1),) if self.tiny else ((1, 30), (8, 30), (1, 300))
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


def main(argv: list[str] | None = None) -> None:
    """Measures on the GPU, or on a CPU where there is none."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="JSON file that the rows go to")
    parser.add_argument("--tiny", action="store_true", help="a small model, on a CPU")
    parser.add_argument(
        "--seconds", type=float, default=460, help="no row begins later"
    )
    settings = parser.parse_args(argv)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    Bench(settings.out, settings.tiny, settings.seconds).run()


if __name__ == "__main__":
    main()
