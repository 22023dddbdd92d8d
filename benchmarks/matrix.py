"""How close a model comes to the fastest matrix product of its machine."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from workload import SAMPLE_RATE, TOKENIZER

from muq_plugins import MultiCodebookHead
from muq_plugins.lobes.conformer import Conformer
from muq_plugins.lobes.front_end import ResidualFrontEnd
from muq_plugins.lobes.linear import linear

HOP_SAMPLES, N_MELS, CONV_KERNEL_SIZE = 240, 128, 31
MASKED_SHARE = 0.6
SIDE = {"cpu": 2048, "cuda": 8192}
REPEATS = 10
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def count_flops(size: dict[str, int], task: dict[str, Any]) -> int:
    """Counts the operations of the model, without computing any of them.

    Spectrogram, tokenizer and update of the weights are left out: they are no matrix
    products, and less than one per cent of the work.
    """
    width = size["width"]
    with torch.device("meta"):
        front_end = ResidualFrontEnd(N_MELS, size["conv_channels"], width)
        conformer = Conformer(
            width,
            size["num_layers"],
            size["num_heads"],
            size["ffn_width"],
            CONV_KERNEL_SIZE,
            dropout=0.0,
        )
        head = MultiCodebookHead(width, **TOKENIZER)
        frames = round(task["seconds"] * SAMPLE_RATE) // HOP_SAMPLES
        mel = torch.zeros(task["batch"], frames, N_MELS)
    with FlopCounterMode(display=False) as counter:
        hidden = conformer(front_end(mel)[0])[-1]
        if task["kind"] == "training":
            head(hidden[:, : round(MASKED_SHARE * hidden.shape[1])])
    # The gradients of inputs and of weights cost as much as the forward pass, each.
    # (torch counts those of depthwise convolutions as if they were dense.)
    passes = 3 if task["kind"] == "training" else 1
    return passes * counter.get_total_flops()


def matrix_rate(device: torch.device, precision: str) -> float:
    """Measures the rate of a large matrix product."""
    side = SIDE[device.type]
    left, right = (
        torch.randn(side, side, device=device, dtype=DTYPES[precision])
        for _ in range(2)
    )
    seconds = []
    with torch.no_grad():
        for _ in range(REPEATS):
            start = time.perf_counter()
            linear(left, right)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)
