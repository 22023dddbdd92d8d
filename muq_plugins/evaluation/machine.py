"""What a measurement was made on.

Authors
 * The MuQ for SpeechBrain team 2026
"""

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
    """Machine and versions, to be printed beside figures.

    Arguments
    ---------
    devices : iterable of str
        The devices that were used, such as "cpu" or "cuda:0".

    Returns
    -------
    dict
        ``processor``, ``cores``, ``device`` and the version of ``python`` and of the
        packages that matter.

    Example
    -------
    >>> describe_machine(["cpu", "cpu"])["device"]
    'cpu, cpu'
    """
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
    """Finds the name of the processor.

    Returns
    -------
    str
        As the system gives it.

    Example
    -------
    >>> isinstance(cpu_name(), str)
    True
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
