"""What both environments compute: sizes, audio, one training step, time and memory.

Only torch and the standard library, because both environments import this file.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from memory import peak, reset_peak
from torch import Tensor, nn

SEED = 1234
SAMPLE_RATE = 24000
FRAME_SAMPLES = 960
CHECKPOINT = "official"  # folder of the weights that both environments load
FIRST_LAYER = "conv.conv.0.conv1.weight"  # end of its name on both sides
TOKENIZER = {"num_codebooks": 8, "codebook_size": 1024}

# The released model, and one for trying the benchmark out.
SIZES = {
    "released": {
        "width": 1024,
        "num_layers": 12,
        "num_heads": 16,
        "ffn_width": 4096,
        "conv_channels": 512,
    },
    "quick": {
        "width": 64,
        "num_layers": 2,
        "num_heads": 4,
        "ffn_width": 256,
        "conv_channels": 16,
    },
}


@dataclass
class Job:
    """One thing to measure."""

    run: Callable[[], Any]  # computes it once
    # tensors by name, by which two environments are compared
    result: Callable[[], dict[str, Tensor]]
    close: Callable[[], None] = lambda: None  # undoes what it left behind


class Side:
    """One environment's half of the benchmark; its methods are orders.

    A subclass loads its model in `load_model` and has one method per kind of task that
    makes a `Job` of it.
    """

    def load(self, size: str, device: str, threads: int, folder: str) -> None:
        """Gets the model ready."""
        torch.set_num_threads(threads)
        self.device = torch.device(device)
        self.size = size
        self.folder = Path(folder)
        self.task: dict[str, Any] = {}
        self.job: Job | None = None
        self.load_model()

    def load_model(self) -> None:
        """Loads what all tasks share."""
        raise NotImplementedError

    def prepare(self, task: dict[str, Any], result: str | None = None) -> None:
        """Chooses what is measured next."""
        self.release()
        self.task = task
        self.job = getattr(self, task["kind"])()
        if result is not None:
            tensors = {k: v.detach().cpu() for k, v in self.job.result().items()}
            torch.save(tensors, result)

    def time(self, calls: int) -> float:
        """Measures time."""
        self._wait()
        start = time.perf_counter()
        for _ in range(calls):
            self.job.run()
        self._wait()
        return (time.perf_counter() - start) / calls

    def memory(self) -> int:
        """Measures the memory that the task needs beside the loaded model."""
        gc.collect()
        if self.device.type == "cuda":
            self._wait()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.job.run()
            self._wait()
            return torch.cuda.max_memory_allocated() - before
        before = reset_peak()
        self.job.run()
        return peak() - before

    def release(self) -> None:
        """Forgets the task and frees its memory."""
        if self.job is not None:
            self.job.close()
        self.job = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def autocast(self) -> torch.autocast:
        """The precision that the task asks for."""
        enabled = self.task["precision"] == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def wavs(self) -> Tensor:
        """The audio of the task, the same in every environment."""
        samples = round(self.task["seconds"] * SAMPLE_RATE)
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.randn(self.task["batch"], samples, generator=generator)
        times = torch.arange(samples, dtype=torch.float64) / SAMPLE_RATE
        tones = [(2 * math.pi * hertz * times).sin() for hertz in (220, 277, 330)]
        return (0.05 * noise + 0.1 * sum(tones).float()).to(self.device)

    def stacked_mel(self) -> Tensor:
        """Vectors like stacked log-mel frames, the same in every environment."""
        frames = round(self.task["seconds"] * SAMPLE_RATE) // FRAME_SAMPLES
        generator = torch.Generator().manual_seed(SEED)
        shape = (self.task["batch"], frames, 512)
        return torch.randn(shape, generator=generator).to(self.device)

    def masking_path(self) -> Path:
        """Where the masked waveforms of the task lie, which both sides train on."""
        name = f"masking_{self.task['batch']}_{self.task['seconds']:g}.pt"
        return self.folder / name

    def training_job(self, module: nn.Module, loss: Callable, checked: Callable) -> Job:
        """One training step: loss, backward pass, update of Adam."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        # The last one that the backward pass reaches.
        first = next(p for n, p in module.named_parameters() if n.endswith(FIRST_LAYER))
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        optimizer = torch.optim.Adam(parameters, lr=0.0)

        def run():
            module.train()
            optimizer.zero_grad()
            with self.autocast():
                value = loss()
            value.backward()
            optimizer.step()

        def result():
            module.eval()
            optimizer.zero_grad()
            with self.autocast():
                value = checked()
            value.backward()
            return {"loss": value, "gradient": first.grad}

        def close():
            optimizer.zero_grad()
            module.load_state_dict(buffers, strict=False)
            module.eval()

        return Job(run, result, close)

    def _wait(self) -> None:
        """Waits for the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def randomize_statistics(module: nn.Module) -> None:
    """Gives batch normalisations something to do, as training would."""
    generator = torch.Generator().manual_seed(SEED)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(std=0.1, generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)
