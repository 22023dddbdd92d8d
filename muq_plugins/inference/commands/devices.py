"""Where and in which precision a command computes."""

from __future__ import annotations

from typing import Any

from muq_plugins.inference.commands.options import CommandError


def pick_device(name: str | None) -> str:
    """Checks --device, or chooses one."""
    import torch

    if name is None:
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CommandError(
            f"--device {name}: not a device. Give cpu, cuda, cuda:1 or mps."
        ) from error
    if device.type == "cuda":
        count, index = torch.cuda.device_count(), device.index or 0
        if index < count:
            return f"cuda:{index}"
        found = f"{count} CUDA device{'' if count == 1 else 's'}" if count else "none"
    elif device.type == "mps":
        if torch.backends.mps.is_available():
            return name
        found = "none"
    elif device.type == "cpu":
        return "cpu"
    else:
        raise CommandError(f"--device {name}: only cpu, cuda and mps are supported.")
    raise CommandError(
        f"--device {name}: there is no such device here (found: {found}). "
        f"`muq-plugins doctor` lists the devices."
    )


def pick_dtype(name: str, device: str) -> str:
    """Resolves --dtype auto."""
    import torch

    if name != "auto":
        return name
    if not device.startswith("cuda"):
        return "float32"
    with torch.cuda.device(device):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if fast else "float32"


def autocast(dtype: str, device: str) -> Any:
    """The context in which a model computes."""
    import torch

    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=dtype == "bfloat16")
