"""Parts as data and back, and the hash of what a part computes.

A part is registered where it is defined, under the name of its class. Whoever saves a
model needs no table of the parts that exist, and whoever reads a folder can make
nothing else: a name in a file never imports anything.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, TypeVar

import torch
from torch import nn

Class = TypeVar("Class", bound=type)

# All that a file may ask for.
PARTS: dict[str, type[nn.Module]] = {}
# Settings of an encoder that change nothing in evaluation mode.
TRAINING_ONLY = ("dropout", "gradient_checkpointing")


def part(
    cls: Class | None = None, *, unsaved: tuple[str, ...] = ()
) -> Class | Callable[[Class], Class]:
    """Registers a module, so that it can be saved and built again by its name.

    The module remembers the arguments that it was made with, as ``arguments``. They
    must be what JSON holds, or parts themselves. A part of your own is found by those
    who import the module that defines it.

    Arguments
    ---------
    cls : type
        The class of the module.
    unsaved : tuple of str
        Arguments that nobody needs to build it again, because they are in the weights,
        or that no file may name, such as a loaded teacher.

    Returns
    -------
    type
        The same class.

    Raises
    ------
    ValueError
        If another class has the same name.

    Example
    -------
    >>> @part
    ... class Gain(nn.Module):
    ...     def __init__(self, factor: float = 2.0):
    ...         super().__init__()
    ...         self.factor = factor
    >>> describe(Gain())
    {'class': 'Gain', 'arguments': {'factor': 2.0}}
    >>> build(describe(Gain(3.0))).factor
    3.0
    """

    def register(cls: Class) -> Class:
        known = PARTS.get(cls.__name__, cls)
        if known.__module__ != cls.__module__:
            raise ValueError(
                f"There are two parts {cls.__name__}, in {known.__module__} and in "
                f"{cls.__module__}: give one of them another name."
            )
        PARTS[cls.__name__] = cls
        init = cls.__init__
        signature = inspect.signature(init)

        @functools.wraps(init)  # checks of experiments read the signature
        def remember(self, *args, **kwargs):
            if type(self) is cls:  # not for a class above this one
                bound = signature.bind(self, *args, **kwargs)
                bound.apply_defaults()
                left_out = (next(iter(bound.arguments)), *unsaved)
                arguments = {
                    k: v for k, v in bound.arguments.items() if k not in left_out
                }
                # Not as a submodule, which a part among the arguments would become.
                object.__setattr__(self, "arguments", arguments)
            init(self, *args, **kwargs)

        cls.__init__ = remember
        return cls

    return register if cls is None else register(cls)


def describe(module: nn.Module) -> dict[str, Any]:
    """What is needed to build a part again, apart from its weights, as JSON holds it.

    Raises TypeError if it, or a part inside it, is none, or if it was made with what
    JSON does not hold.
    """
    name = type(module).__name__
    if PARTS.get(name) is not type(module):
        raise TypeError(
            f"A {name} cannot be saved: only parts can. Write @part (from "
            f"muq_plugins.lobes) above its class."
        )
    arguments = {
        key: _plain(value, f"{key} of {name}")
        for key, value in module.arguments.items()
    }
    return {"class": name, "arguments": arguments}


def _plain(value: Any, what: str) -> Any:
    """An argument as JSON holds it."""
    if isinstance(value, nn.Module):
        return describe(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, what) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, what) for inner in value]
    if not isinstance(value, (str, int, float, NoneType)):
        raise TypeError(
            f"The argument {what} is a {type(value).__name__}, which cannot be saved: "
            f"make it of numbers, words, lists and other parts."
        )
    return value


def attribute(module: nn.Module, name: str) -> Any:
    """What a part must say of itself by its contract; ValueError if it does not."""
    if not hasattr(module, name):
        raise ValueError(
            f"{type(module).__name__} has no attribute {name}, which its contract "
            f"asks for: set self.{name} where it is made."
        )
    return getattr(module, name)


def check_sizes(least: int = 1, **sizes: int) -> None:
    """Refuses sizes and counts that a part would be empty with."""
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{name} must be at least {least}, got {size}.")


def check_clips(module: nn.Module, seconds: float, key: str) -> None:
    """Refuses clips that are too short for a part of a module; ``key`` is their length.

    A part needs one frame, if it has a ``frame_rate``, or its ``min_samples``, if it
    says more. Both are at its ``sample_rate``.
    """
    least, name, cls = 0.0, "model", type(module).__name__
    for place, inner in module.named_modules():
        rate = getattr(inner, "sample_rate", 0)
        samples = getattr(inner, "min_samples", 0)
        if rate and getattr(inner, "frame_rate", None):
            samples = max(samples, round(rate / inner.frame_rate))
        if rate and samples / rate > least:
            least, name, cls = samples / rate, place or name, type(inner).__name__
    if not math.isfinite(seconds) or seconds < least - 1e-9:
        needed = math.ceil(1000 * least - 1e-6) / 1000
        raise ValueError(
            f"{key} is {seconds:g}: the {name} needs at least {needed:g} seconds "
            f"({cls}): give as much, or change this part."
        )


def build(description: Mapping[str, Any], **given: Any) -> nn.Module:
    """Builds a part from its description, with fresh weights, in training mode.

    ``given`` is what no description names. Raises ValueError for an unknown part, for
    arguments that it does not have, and for anything that would have to be downloaded.
    """
    if not isinstance(description, Mapping):
        raise ValueError(
            f"A part is described by its class and arguments, got {description!r}."
        )
    name = description.get("class")
    if name not in PARTS:
        raise ValueError(
            f"There is no part {name!r}: it must be one of {', '.join(sorted(PARTS))}. "
            f"If it is your own, import the module that defines it first; a newer "
            f"version of this package may know it, too."
        )
    arguments = {
        key: build(value) if _is_description(value) else value
        for key, value in description.get("arguments", {}).items()
    }
    if arguments.get("source") is not None:
        raise ValueError(
            f"The description of a {name} names the source {arguments['source']!r}, "
            f"but building a part again must not read or download anything."
        )
    try:
        return PARTS[name](**arguments, **given)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"The arguments {', '.join(arguments)} do not build a {name}: "
            f"{type(error).__name__} {error}."
        ) from error


def _is_description(value: Any) -> bool:
    """Whether an argument is a part itself."""
    return isinstance(value, Mapping) and value.keys() == {"class", "arguments"}


def fingerprint(module: nn.Module, config: dict[str, Any]) -> str:
    """A short hash of weights and of settings that the weights do not show.

    Equal for a model and its copy in another folder, layout or on another device.
    Stored embeddings, labels and indexes carry it: what is hashed must not change.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # As bytes, since numpy has no bfloat16.
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def encoder_fingerprint(encoder: nn.Module) -> str:
    """A short hash of what an encoder computes when it is not trained."""
    config = {k: v for k, v in encoder.config.items() if k not in TRAINING_ONLY}
    return fingerprint(encoder, config)
