"""Encoders as data: a class by its name, and its arguments.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from muq_plugins.lobes.encoder import MuQEncoder
from muq_plugins.lobes.encoders.pretrained_speech import PretrainedSpeechEncoder
from muq_plugins.lobes.encoders.resampled import ResampledEncoder
from muq_plugins.lobes.encoders.speechbrain_conformer import SpeechBrainConformer
from muq_plugins.lobes.encoders.waveform_transformer import WaveformTransformer

# All that a file may ask for: a name in it never imports anything.
ENCODERS = {
    encoder.__name__: encoder
    for encoder in (
        MuQEncoder,
        PretrainedSpeechEncoder,
        ResampledEncoder,
        SpeechBrainConformer,
        WaveformTransformer,
    )
}


def describe_encoder(encoder: nn.Module) -> dict[str, Any]:
    """Says what is needed to build an encoder again, apart from its weights.

    Arguments
    ---------
    encoder : nn.Module
        An encoder of ours.

    Returns
    -------
    dict
        ``class`` and ``arguments``, as JSON can hold them.

    Raises
    ------
    TypeError
        If it, or an encoder inside it, is none of ours.

    Example
    -------
    >>> describe_encoder(MuQEncoder(32, 1, 4, 64, 4))["class"]
    'MuQEncoder'
    >>> describe_encoder(nn.Linear(2, 2))
    Traceback (most recent call last):
    ...
    TypeError: A Linear cannot be saved as an encoder: ...
    """
    if type(encoder) not in ENCODERS.values():
        raise TypeError(
            f"A {type(encoder).__name__} cannot be saved as an encoder: only "
            f"{', '.join(ENCODERS)} can."
        )
    if isinstance(encoder, ResampledEncoder):
        describe_encoder(encoder.encoder)  # refuses one that is not ours
    return {
        "class": type(encoder).__name__,
        "arguments": copy.deepcopy(encoder.config),
    }


def build_encoder(description: Mapping[str, Any]) -> nn.Module:
    """Builds an encoder, with fresh weights.

    Arguments
    ---------
    description : Mapping
        From `describe_encoder`.

    Returns
    -------
    nn.Module
        The encoder, in training mode.

    Raises
    ------
    ValueError
        If it asks for another class, for arguments that the class does not have, or
        for something to be downloaded.

    Example
    -------
    >>> encoder = MuQEncoder(32, 1, 4, 64, 4)
    >>> build_encoder(describe_encoder(encoder)).config == encoder.config
    True
    >>> build_encoder({"class": "os.system", "arguments": {}})
    Traceback (most recent call last):
    ...
    ValueError: There is no encoder 'os.system': it must be one of MuQEncoder, ...
    """
    if not isinstance(description, Mapping):
        raise ValueError(
            f"An encoder is described by a class and its arguments, got "
            f"{description!r}."
        )
    name = description.get("class")
    if name not in ENCODERS:
        raise ValueError(
            f"There is no encoder {name!r}: it must be one of {', '.join(ENCODERS)}. "
            f"A newer version of this package may know it."
        )
    arguments = copy.deepcopy(dict(description.get("arguments", {})))
    if "source" in arguments:
        raise ValueError(
            f"The description of a {name} names the source {arguments['source']!r}, "
            f"but building an encoder again must not read or download anything."
        )
    if name == ResampledEncoder.__name__ and "encoder" in arguments:
        arguments["encoder"] = build_encoder(arguments["encoder"])
    try:
        return ENCODERS[name](**arguments)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"The arguments {', '.join(arguments)} do not build a {name}: "
            f"{type(error).__name__} {error}."
        ) from error
