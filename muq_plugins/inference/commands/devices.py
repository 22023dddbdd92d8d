"""Where and in which precision a command computes.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from typing import Any

from muq_plugins.inference.commands.options import CommandError


def pick_device(name: str | None) -> str:
    """Checks --device, or chooses one.

    Arguments
    ---------
    name : str or None
        What was given.

    Returns
    -------
    str
        A device that is there; CUDA devices with their index.

    Raises
    ------
    CommandError
        If there is no such device.

    Example
    -------
    >>> pick_device("cpu")
    'cpu'
    """
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
    """Resolves --dtype auto.

    Arguments
    ---------
    name : str
        One of `DTYPES`.
    device : str
        From `pick_device`.

    Returns
    -------
    str
        ``float32`` or ``bfloat16``.

    Example
    -------
    >>> pick_dtype("auto", "cpu")
    'float32'
    """
    import torch

    if name != "auto":
        return name
    if not device.startswith("cuda"):
        return "float32"
    with torch.cuda.device(device):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if fast else "float32"


def autocast(dtype: str, device: str) -> Any:
    """The context in which a model computes.

    Arguments
    ---------
    dtype : str
        From `pick_dtype`.
    device : str
        From `pick_device`.

    Returns
    -------
    torch.autocast
        A context manager; for float32 it switches autocast off.

    Example
    -------
    >>> import torch
    >>> with autocast("bfloat16", "cpu"):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    import torch

    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=dtype == "bfloat16")
