"""What a measurement was made on."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "speechbrain", "muq_plugins")


def describe_machine(devices: Iterable[str]) -> dict[str, str | int]:
    """Machine and versions, to be printed beside figures."""
    names = [
        torch.cuda.get_device_name(device) if device.startswith("cuda") else device
        for device in devices
    ]
    return {
        "processor": cpu_name(),
        "cores": os.cpu_count() or 1,
        "device": ", ".join(names),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def cpu_name() -> str:
    """Finds the name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
