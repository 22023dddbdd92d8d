"""MusicFM's checkpoints: the encoder that MuQ has taken over, with its spectrogram.

A checkpoint is a file such as `pretrained_msd.pt`, with `msd_stats.json` beside it. The
names of its tensors are those of the official MuQ; what else it holds is the window of
the spectrogram and the mel bands, which its code hears through, whatever they are. It
has no settings: sizes are those of its tensors, and everything else is fixed. Facts are
from github.com/minzwon/musicfm at b83ebed (MIT).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from muq_plugins.errors import UserError
from muq_plugins.files import read_json
from muq_plugins.inference.folders import NoModel, load_strictly, read_tensors
from muq_plugins.inference.official import FIXED, MUQ, STATISTICS, Checkpoint, KeyMap
from muq_plugins.lobes.encoders.muq import MuQEncoder

SUFFIX = ".pt"
AGAIN = "download it from huggingface.co/minzwon/MusicFM"
WINDOW, BANDS = "features.window", "features.filterbank"
MUSICFM = KeyMap(
    kind="MusicFM",
    prefix="model.",
    own=(*MUQ.own, "preprocessor_melspec_2048."),
    others={"head": "linear."},
    unused=MUQ.unused,
    renames=(
        (WINDOW, "preprocessor_melspec_2048.mel_stft.spectrogram.window"),
        (BANDS, "preprocessor_melspec_2048.mel_stft.mel_scale.fb"),
    ),
)
# Not read by ours, but it tells the size of a head, and that angles are those of ours.
ROTARY, ROTARY_BASE = "conformer.embed_positions.inv_freq", 10000.0
# Tensors whose first size is a setting.
LAYERS = "conformer.layers."
SIZES = {
    "width": "conv.linear.weight",
    "conv_channels": "conv.conv.0.conv1.weight",
    "ffn_width": f"{LAYERS}0.ffn1.intermediate_dense.weight",
    "conv_kernel_size": f"{LAYERS}0.conv_module.depthwise_conv.weight",
}


class MusicFM(MuQEncoder):
    """A MuQEncoder that hears through the window and mel bands of a checkpoint."""

    def __init__(self, window: Tensor, bands: Tensor, **settings: int):
        super().__init__(**settings, **FIXED)
        self.settings = settings
        heard = hashlib.sha256()
        for name, values in (("window", window), ("filterbank", bands)):
            self.features.get_buffer(name).copy_(values)
            heard.update(values.cpu().numpy().tobytes())
        self.config["spectrogram"] = heard.hexdigest()[:16]

    def untrained(self) -> MusicFM:
        """The same with fresh weights."""
        heard = self.features.window, self.features.filterbank
        return MusicFM(*heard, **self.settings)


def load_musicfm(path: str | Path, trained: bool = True) -> MusicFM:
    """The encoder of a checkpoint, by name and strictly.

    Not trained, it has fresh weights.
    """
    path = Path(path)
    if not path.is_file():
        raise NoModel(f"There is no {path}: {AGAIN}.")
    statistics = _statistics(path)
    checkpoint = MUSICFM.sort(read_tensors(path, "state_dict"), {}, path)
    settings = _settings(checkpoint, path)
    window, bands = checkpoint.own.pop(WINDOW), checkpoint.own.pop(BANDS)
    try:
        encoder = MusicFM(window.float(), bands.float(), **settings)
        encoder.features.set_statistics(*statistics)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is no MusicFM at 25 frames a second: {error}"
        ) from error
    if trained:
        load_strictly(
            *(encoder, checkpoint.own, path),
            optional=lambda name: name.startswith("features."),
            shown_as=MUSICFM.theirs,
        )
    return encoder


def _statistics(path: Path) -> list[float]:
    """Mean and deviation of the log-mel, which are in a file of their own."""
    file = path.with_name(f"{path.stem.removeprefix('pretrained_')}_stats.json")
    if not file.is_file():
        raise NoModel(f"{path} needs {file.name} beside it: {AGAIN}.")
    known = read_json(file, AGAIN)
    try:
        return [float(known[name]) for name in STATISTICS]
    except (KeyError, TypeError, ValueError) as error:
        words = f"{file} does not state {' and '.join(STATISTICS)}: {AGAIN}."
        raise UserError(words) from error


def _settings(checkpoint: Checkpoint, path: Path) -> dict[str, int]:
    """What the shapes of tensors say."""
    tensors = {**checkpoint.own, **checkpoint.unused}
    for name in (*SIZES.values(), ROTARY, WINDOW, BANDS):
        if name not in tensors:
            raise UserError(f"{path} lacks {MUSICFM.theirs(name)}: {AGAIN}.")
    angles = tensors[ROTARY].double()
    places = torch.arange(len(angles)) / len(angles)
    if not torch.allclose(angles, ROTARY_BASE ** -places.double(), rtol=1e-4, atol=0):
        raise UserError(
            f"{path}: {MUSICFM.theirs(ROTARY)} is not of the base {ROTARY_BASE:g}, the "
            "only one that is known here."
        )
    sizes = {key: tensors[name].shape[0] for key, name in SIZES.items()}
    layers = {name.split(".")[2] for name in tensors if name.startswith(LAYERS)}
    sizes["num_layers"] = len(layers)
    sizes["conv_kernel_size"] = tensors[SIZES["conv_kernel_size"]].shape[-1]
    return {**sizes, "num_heads": sizes["width"] // (2 * len(angles))}
