"""The hidden states that a command asks for."""

from __future__ import annotations

import argparse

from muq_plugins.inference.commands.options import CommandError

ALL_LAYERS = "all"


def parse_layers(text: str) -> tuple[int, ...] | str:
    """Reads --layer: an index, several with commas, or "all"."""
    if text == ALL_LAYERS:
        return ALL_LAYERS
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f'must be an index, several such as 3,6,-1, or "{ALL_LAYERS}", got {text!r}'
        ) from error


def resolve_layers(
    layers: tuple[int, ...] | str, num_states: int, model: str
) -> list[int]:
    """Turns layers as given into indices from 0, each once."""
    if layers == ALL_LAYERS:
        return list(range(num_states))
    for layer in layers:
        if not -num_states <= layer < num_states:
            raise CommandError(
                f"--layer {layer}: {model} has {num_states} hidden states, 0 (front "
                f"end) to {num_states - 1} (behind the last layer), or -{num_states} "
                f"to -1 counted from the end."
            )
    return list(dict.fromkeys(layer % num_states for layer in layers))
