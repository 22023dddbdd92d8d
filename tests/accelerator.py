"""A CPU that passes for an accelerator: what would wait for it, what would mix devices.

Tensors are told apart by their memory. Those that are moved or made there, and all that
is computed of them, are on the accelerator; its tensors say so. What waits on a GPU is
listed: reading a value, a shape that depends on values, a blocking copy.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda:0")
VALUES = (
    "_local_scalar_dense nonzero masked_select bincount _unique2 unique_consecutive"
)
VALUES = {*VALUES.split(), "repeat_interleave", "equal"}
READS = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__)


class Accelerator:
    """Which memory is on the accelerator, and who has waited for it."""

    def __init__(self):
        self.waits: list[str] = []
        self._memory: dict[int, torch.Tensor] = {}  # kept, so that it is not used again

    def place(self, *tensors: torch.Tensor) -> None:
        """Puts tensors there."""
        for tensor in tensors:
            if tensor.numel():
                self._memory[tensor.untyped_storage().data_ptr()] = tensor.detach()

    def has(self, tensor: object) -> bool:
        """Whether it is there."""
        if not isinstance(tensor, torch.Tensor):
            return False
        return tensor.untyped_storage().data_ptr() in self._memory

    def wait(self, why: str) -> None:
        """Notes that somebody waits, and where in our code."""
        frames = [f for f in traceback.extract_stack() if "muq_plugins" in f.filename]
        self.waits.append(f"{why} at {frames[-1].filename}:{frames[-1].lineno}")

    @contextmanager
    def watch(self):
        """Computes as if there were the device."""
        generator = torch.Generator
        torch.Generator = lambda device="cpu": generator()
        try:
            with _Functions(self), _Operators(self):
                yield self
        finally:
            torch.Generator = generator


class _Operators(TorchDispatchMode):
    """What is computed of what is there is there."""

    def __init__(self, accelerator):
        super().__init__()
        self.accelerator = accelerator

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        own, name = self.accelerator, func.overloadpacket.__name__
        tensors = [t for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)]
        there = [own.has(tensor) for tensor in tensors]
        if any(there):
            by_mask = name.startswith("index") and any(
                tensor.dtype is torch.bool for tensor in tensors[1:]
            )
            if name in VALUES or by_mask:
                own.wait(name)
            here = [
                tensor
                for tensor, is_there in zip(tensors, there, strict=True)
                if not is_there and tensor.dim() and tensor.numel()
            ]
            if here and name not in ("_to_copy", "copy_"):
                raise RuntimeError(
                    f"{name} mixes devices: {here[0].shape} is on the CPU"
                )
        out = func(*args, **(kwargs or {}))
        if any(there) and name != "_local_scalar_dense":
            own.place(*(t for t in tree_leaves(out) if torch.is_tensor(t)))
        return out


class _Functions(TorchFunctionMode):
    """What names the device."""

    def __init__(self, accelerator):
        super().__init__()
        self.accelerator = accelerator

    def __torch_function__(self, func, types, args=(), kwargs=None):
        own, kwargs = self.accelerator, dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return DEVICE if own.has(args[0]) else func(*args)
        if func in READS and own.has(args[0]):
            own.wait(func.__name__)
        if func is torch.Tensor.cpu:
            func, args = torch.Tensor.to, (args[0], "cpu")
        if func is torch.Tensor.to:
            return self._to(*args, **kwargs)
        if _is_there(kwargs.get("device")):
            if func is torch.tensor:
                own.wait("a blocking copy")
            out = func(*args, **kwargs | {"device": "cpu"})
            own.place(out)
            return out
        return func(*args, **kwargs)

    def _to(self, tensor, *args, **kwargs):
        own, others = self.accelerator, []
        wanted = kwargs.pop("device", None)
        for arg in args:
            if isinstance(arg, (torch.device, str)):
                wanted = arg
            elif torch.is_tensor(arg):
                wanted = DEVICE if own.has(arg) else "cpu"
                others.append(arg.dtype)
            else:
                others.append(arg)
        out = tensor.to(*others, **kwargs)
        if wanted is None or _is_there(wanted) == own.has(tensor):
            return out
        by_torch = f"{torch.__path__[0]}/" in sys._getframe(2).f_code.co_filename
        if not kwargs.get("non_blocking") and not by_torch:
            own.wait("a blocking copy")
        with torch._C._DisableTorchDispatch():
            out = out.clone()
        if _is_there(wanted):
            own.place(out)
        return out


def _is_there(device) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type
