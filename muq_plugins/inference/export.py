"""MuQ as an ONNX file: waveforms in, hidden states or latents out, at any length.

The log-mel spectrogram is part of the file, so that nothing has to be computed in the
same way a second time in another language.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio import functional as AF

from muq_plugins.errors import UserError, needs
from muq_plugins.files import atomic
from muq_plugins.inference.mulan import MuQMuLan
from muq_plugins.inference.muq import MuQ
from muq_plugins.lobes import AudioTower, MuQEncoder
from muq_plugins.lobes.int8 import ONLY, is_int8
from muq_plugins.lobes.lengths import length_mask
from muq_plugins.lobes.mel import LogMel

# What each choice of hidden states is called in the file, and its axes.
OUTPUTS = {
    "last": ("last_hidden_state", ("batch", "frames", "width")),
    "all": ("hidden_states", ("states", "batch", "frames", "width")),
}
LATENTS = ("latents", ("batch", "latent_width"))

# Any from 18 to 22 does: up to 17 the exporter has to convert, and from 23 on it writes
# Attention operators, whose masks onnxruntime does not broadcast.
OPSET = 18

# Weights beyond this size get a file of their own: one ONNX file cannot exceed 2 GB,
# and readers need room for the graph beside the weights.
MAX_EMBEDDED_BYTES = 2**30


def export_onnx(
    model: MuQ | MuQMuLan | MuQEncoder,
    path: str | Path,
    hidden_states: str = "last",
    wav_lens: bool = False,
    int8: bool = False,
) -> Path:
    """Writes a model of audio with its log-mel spectrogram as an ONNX file.

    The input is ``wavs`` (batch, samples), float32 at the model's sample rate; both
    axes are dynamic, and a clip needs more samples than half a window of the
    spectrogram (1025 for the paper's). The output is ``last_hidden_state`` (batch,
    frames, width) or ``hidden_states`` (num_layers + 1, batch, frames, width), equal
    to the model's own within float32 rounding. The file's metadata tell
    ``sample_rate``, ``frame_rate``, ``layers`` and ``width``. Weights of more than a
    gigabyte lie in ``<name>.onnx.data`` beside the file and move with it.

    Of a MuQ-MuLan it is the audio tower: the output is ``latents`` (batch,
    latent_width), a unit vector for each clip. The metadata also tell ``latent_width``
    and ``clip_seconds``: `MuQMuLan.embed_audio` cuts recordings into such clips, and
    averages.

    ``int8`` stores the weights of the linear maps in 8 bits and multiplies them by
    inputs that are rounded as they come, with one scale for a batch: a smaller file,
    and hidden states that differ by about one percent (far more on an x86 processor
    without VNNI, where sums overflow in onnxruntime). The metadata say ``int8`` as
    ``precision``. Convolutions stay as they are: in 8 bits onnxruntime is slower.

    The spectrum is two real matrix products with a rotation between them (Cooley and
    Tukey, 1965): complex numbers and FFTs are what runtimes support worst, and all
    cosines and sines of a window would be 17 MB. For the empty bands of pure synthetic
    tones, where an FFT gives nothing but its rounding errors, it gives others.
    """
    tower = model.mods.audio if isinstance(model, MuQMuLan) else None
    encoder = model.mods.encoder if isinstance(model, MuQ) else model
    encoder = encoder if tower is None else tower.encoder
    path = Path(path)
    _check(encoder, path, hidden_states)
    if tower is not None and hidden_states != "last":
        raise UserError(
            f"hidden_states is {hidden_states!r}, but a MuQ-MuLan gives one vector to "
            f"a clip: leave it out."
        )
    if int8:
        needs("Exporting in int8", "export", "onnxruntime")
    name, axes = OUTPUTS[hidden_states] if tower is None else LATENTS
    graph = _Graph(encoder, hidden_states == "all", tower)
    batch = torch.export.Dim("batch")
    samples = torch.export.Dim("samples", min=encoder.features.min_samples)
    device = next(encoder.parameters()).device
    inputs = {"wavs": torch.zeros(2, encoder.sample_rate, device=device)}
    shapes = {"wavs": {0: batch, 1: samples}}
    if wav_lens:
        inputs["wav_lens"] = torch.tensor([1.0, 0.5], device=device)
        shapes["wav_lens"] = {0: batch}
    with torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            graph.eval(),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=[name],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    _describe(program.model, encoder, axes)
    if tower is not None:
        program.model.metadata_props.update(
            latent_width=str(tower.latent_width), clip_seconds=str(model.clip_seconds)
        )
    if int8:  # weights that a step takes from others would stay as they are
        from onnxscript.optimizer import fold_constants

        limits = {"input_size_limit": 2**40, "output_size_limit": 2**40}
        fold_constants(program.model, **limits)
    size = sum(tensor.nbytes for tensor in graph.state_dict().values())
    _save(program, path, size, int8)
    return path


class _Graph(nn.Module):
    """What a MuQEncoder or its tower computes, with nothing that depends on values."""

    def __init__(
        self, encoder: MuQEncoder, every_state: bool, tower: AudioTower | None
    ):
        super().__init__()
        self.mel = _FactoredLogMel(encoder.features)
        self.conv = encoder.conv
        self.conformer = encoder.conformer
        self.every_state = every_state
        self.above = nn.ModuleList()
        if tower is not None:
            self.layer = tower.layer
            self.above.extend([tower.projection, tower.transformer, tower.to_latents])

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        lengths = None
        if wav_lens is not None:
            lengths = torch.round(wav_lens.double() * wavs.shape[1]).long()
        mel = self.mel(wavs, lengths)
        if lengths is not None:
            lengths = lengths // self.mel.hop_length
        hidden, lengths = self.conv(mel, lengths)
        states = self.conformer(hidden, lengths)
        mask = length_mask(lengths, hidden.shape[1], hidden.device)
        if self.above:
            projection, transformer, to_latents = self.above
            return to_latents(transformer(projection(states[self.layer]), mask), mask)
        out = torch.stack(states) if self.every_state else states[-1]
        return out if mask is None else torch.where(mask[..., None], out, 0.0)


class _FactoredLogMel(nn.Module):
    """`LogMel` by matrix products, all of the audio at once.

    Of a window, sample ``columns * i + j`` is in row i and column j. What the columns
    have at frequency p of ``rows`` ones is turned by ``p * j``; what that has, along j,
    at frequency q of ``columns`` ones is the spectrum at ``p + rows * q``. Audio is
    real: half of the p say all, and mel bands know which of p and q are theirs.
    """

    def __init__(self, features: LogMel):
        super().__init__()
        size = self.n_fft = features.n_fft
        self.hop_length = features.hop_length
        self.floor = features.floor
        self.register_buffer("window", features.window)
        self.register_buffer("mean", features.mean)
        self.register_buffer("std", features.std)
        half = range(1, math.isqrt(size) + 1)
        self.rows = max(rows for rows in half if size % rows == 0)
        columns = size // self.rows
        kept, device = self.rows // 2 + 1, features.window.device
        for name, first, second, whole in (
            ("down", kept, self.rows, self.rows),
            ("turn", kept, columns, size),
            ("along", columns, columns, columns),
        ):
            products = torch.outer(torch.arange(first), torch.arange(second))
            # Whole turns are taken off first: exact, however large the product.
            angles = (products % whole).double() * (2 * math.pi / whole)
            self.register_buffer(f"{name}_cos", angles.cos().float().to(device))
            self.register_buffer(f"{name}_sin", angles.sin().float().to(device))
        found = torch.arange(kept)[:, None] + self.rows * torch.arange(columns)
        found = torch.minimum(found, size - found).flatten()
        # Frequencies that are there twice count once.
        places = {int(place): at for at, place in enumerate(found)}
        bands = torch.zeros(len(found), features.filterbank.shape[1], device=device)
        order = [places[place] for place in range(len(features.filterbank))]
        bands[order] = features.filterbank
        self.register_buffer("filterbank", bands)

    def forward(self, wavs: Tensor, lengths: Tensor | None) -> Tensor:
        padded = _reflect(wavs, lengths, self.n_fft // 2)
        frames = wavs.shape[1] // self.hop_length
        # Pieces that windows share are looked up whole: 16 samples of 240 and 2048.
        piece = math.gcd(self.hop_length, self.n_fft)
        used = padded[:, : (frames - 1) * self.hop_length + self.n_fft]
        pieces = used.unflatten(1, (-1, piece))
        starts = torch.arange(frames, device=wavs.device) * (self.hop_length // piece)
        inside = torch.arange(self.n_fft // piece, device=wavs.device)
        windows = pieces[:, starts[:, None] + inside].flatten(2) * self.window
        windows = windows.unflatten(2, (self.rows, -1))
        cosine, sine = self.down_cos @ windows, self.down_sin @ windows
        real = cosine * self.turn_cos - sine * self.turn_sin
        minus = cosine * self.turn_sin + sine * self.turn_cos
        cosine, sine = self.along_cos, self.along_sin
        power = (real @ cosine - minus @ sine).square()
        power = power + (real @ sine + minus @ cosine).square()
        decibels = AF.amplitude_to_DB(
            power.flatten(2) @ self.filterbank,
            multiplier=10.0,
            amin=1e-10,
            db_multiplier=0.0,
        )
        if self.floor is not None:
            decibels = decibels.clamp(min=self.floor)
        return (decibels - self.mean) / self.std


def _reflect(wavs: Tensor, lengths: Tensor | None, pad: int) -> Tensor:
    """Reflects both ends of every clip, with no check that looks at the lengths."""
    if lengths is None:
        return F.pad(wavs, (pad, pad), mode="reflect")
    positions = torch.arange(-pad, wavs.shape[1] + pad, device=wavs.device)
    last = lengths[:, None] - 1
    # What comes beyond the reflection is in no frame of the clip's own.
    return wavs.gather(1, (last - (last - positions.abs()).abs()).clamp(min=0))


def _check(encoder: nn.Module, path: Path, hidden_states: str) -> None:
    """Refuses what cannot be exported, before anything takes time."""
    needs("Exporting to ONNX", "export", "onnx", "onnxscript")
    if not isinstance(encoder, MuQEncoder):
        raise UserError(
            f"Only a MuQEncoder can be exported, not a {type(encoder).__name__}."
        )
    if path.suffix != ".onnx":
        raise UserError(f"{path} must end in .onnx, so that runtimes recognise it.")
    if hidden_states not in OUTPUTS:
        raise UserError(
            f"hidden_states must be one of {', '.join(OUTPUTS)}, got {hidden_states!r}."
        )
    if any(module.training for module in encoder.modules()):
        raise UserError(
            "The model is in training mode, which would put its dropout into the "
            "file: call eval() on it first."
        )
    if is_int8(encoder):
        raise UserError(ONLY)
    dtypes = {parameter.dtype for parameter in encoder.parameters()}
    if dtypes != {torch.float32}:
        raise UserError(
            f"The model must be float32, but has {', '.join(sorted(map(str, dtypes)))}:"
            f" call float() on it first."
        )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Mutes remarks about packages and axes that are none of the user's business."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="# The axis name")
            yield
    finally:
        logger.setLevel(level)


def _describe(model, encoder: MuQEncoder, axes: tuple[str, ...]) -> None:
    """Puts into the file what its users need, and takes out what they do not."""
    # The exporter writes each operator's line of source code, with its path.
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    output = model.graph.outputs[0]
    for axis, name in enumerate(axes):
        if not isinstance(output.shape[axis], int):
            output.shape[axis] = name
    model.metadata_props.update(
        sample_rate=str(encoder.sample_rate),
        frame_rate=str(encoder.frame_rate),
        layers=str(len(encoder.conformer.layers)),
        width=str(encoder.width),
    )


def _save(program, path: Path, size: int, int8: bool) -> None:
    """Writes the file, and the weights beside it if they are too large for it."""
    beside = size > MAX_EMBEDDED_BYTES
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(path.name + ".data")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        program.save(str(Path(folder) / path.name), external_data=beside)
        if int8:
            whole, folder = Path(folder, path.name), Path(folder, "int8")
            beside = size > 4 * MAX_EMBEDDED_BYTES
            _quantize(whole, folder / path.name, beside)
        # An older file must not be found beside newer weights.
        path.unlink(missing_ok=True)
        data.unlink(missing_ok=True)
        for whole in [data, path] if beside else [path]:
            with atomic(whole) as partial:
                os.rename(Path(folder) / whole.name, partial)


def _quantize(source: Path, path: Path, beside: bool) -> None:
    """Writes a file again, with linear maps in 8 bits."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source, load_external_data=False)
    # What the spectrogram loses, everything after it has lost.
    spectrogram = [
        node.name
        for node in model.graph.node
        if any(name.startswith("mel.") for name in node.input)
    ]
    path.parent.mkdir()
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it advises what the exporter has done
    try:
        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=spectrogram,
            use_external_data_format=beside,
        )
    finally:
        logger.setLevel(level)
    rounded = onnx.load(path, load_external_data=False)
    facts = {prop.key: prop.value for prop in model.metadata_props}
    onnx.helper.set_model_props(rounded, facts | {"precision": "int8"})
    onnx.save(rounded, path)
