"""Peak memory of this process."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
from pathlib import Path


def reset_peak() -> int:
    """Starts a measurement of this process's peak memory."""
    # glibc keeps freed memory, in which a measurement could hide.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        # Linux: forgets the peak of loading the model, which `getrusage` cannot.
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The highest memory use of this process since `reset_peak`."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
