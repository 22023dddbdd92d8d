"""``muq-plugins embed`` and ``export``: what an encoder makes of audio files."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from muq_plugins.errors import UserError, needs
from muq_plugins.inference.cli import options
from muq_plugins.inference.cli.options import load, load_encoder, pick_device, say

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from muq_plugins.inference.muq import MuQ


def embed(
    model: options.MuQModel,
    inputs: options.Inputs,
    out: options.Out,
    layer: options.Layer = "-1",
    pool: Annotated[
        Literal["track", "mean", "frames"],
        typer.Option(
            help="one unit vector of the whole track, as in an index; the mean over "
            "time as it is; or every frame"
        ),
    ] = "track",
    loudness: options.Loudness = None,
    format: options.Format = "npz",
    batch_seconds: options.BatchSeconds = 60.0,
    dtype: options.Dtype = "auto",
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="the inputs are tables (parquet, arrow, a folder of save_to_disk) "
            "with audio in this column; each is written again as parquet, with vectors "
            "of tracks in its place",
        ),
    ] = None,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
) -> int:
    """Hidden states of audio files.

    One output file each below --out, in the same tree, named <file name>.<format>. It
    holds "embedding": (layers, width), or (layers, frames, width) with "times" in
    seconds; "layers"; and "facts", a JSON object with the path, the rates, the model
    and more. Vectors may be compared if the "space" of their facts is the same, and not
    otherwise. The same command goes on where it was; what is done is not done again.
    """
    device = pick_device(device)
    from muq_plugins.data.loudness import check_loudness
    from muq_plugins.inference.cli.work import run_work

    layers = options.parse_layers(layer)
    check_loudness(loudness)
    if dataset is not None:
        needs("--dataset", "parquet", "pyarrow")
        if pool != "track" or layers == options.ALL_LAYERS or len(layers) > 1:
            raise UserError(
                "--dataset gives one vector of a track for each row: leave --pool out "
                "and give one --layer."
            )
        if dtype == "bfloat16":
            raise UserError(
                "--dataset computes in float32 or int8: give --dtype int8 or leave it "
                "out."
            )
    dtype = _pick_dtype(dtype, device)
    if dataset is not None:
        return _embed_dataset(
            model, inputs, dataset, layers[0], loudness, out, device, dtype, overwrite
        )

    def prepare() -> Embedding:
        encoder = load_encoder(model, device, dtype)
        return Embedding(encoder, model, layers, pool, dtype, batch_seconds, loudness)

    return run_work(prepare, inputs, out, format, batch_seconds, overwrite)


def export(
    model: options.MuQModel,
    out: options.Out,
    hidden_states: Annotated[
        Literal["last", "all"], typer.Option(help="what comes out")
    ] = "last",
    wav_lens: Annotated[
        bool,
        typer.Option(
            "--wav-lens", help="a second input for relative lengths of padded clips"
        ),
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="linear maps in 8 bits: smaller, about one percent off"
        ),
    ] = False,
) -> None:
    """A model as an ONNX file.

    Waveforms in, hidden states out, at any length; of a MuQ-MuLan, the latents of
    clips. The log-mel spectrogram is part of it. --out is the file, *.onnx.
    """
    device = pick_device("cpu")
    from muq_plugins.inference.export import export_onnx
    from muq_plugins.inference.mulan import MuQMuLan
    from muq_plugins.inference.muq import MuQ
    from muq_plugins.inference.official_mulan import is_mulan

    def from_pretrained(source: str, device: str) -> MuQ | MuQMuLan:
        kind = MuQMuLan if is_mulan(source) else MuQ
        return kind.from_pretrained(source, device)

    loaded = load(from_pretrained, model, device)
    say(f"Exporting {model} ...")
    path = export_onnx(loaded, out, hidden_states, wav_lens, int8)
    files = [file for file in (path, Path(f"{path}.data")) if file.exists()]
    size = sum(file.stat().st_size for file in files) / 1e6
    say(f"{' and '.join(map(str, files))}: {size:.1f} MB")


def _embed_dataset(
    source: str,
    inputs: list[str],
    column: str,
    layer: int,
    loudness: float | None,
    out: str,
    device: str,
    dtype: str,
    overwrite: bool,
) -> int:
    """Vectors of the audio in a column of tables."""
    from muq_plugins.inference.cli.dataset import embed_tables, find_tables

    tables = find_tables(inputs, column, out)
    model = load_encoder(source, device, dtype)
    [number] = model.find_layers([layer])
    facts = {
        "command": "embed",
        "model": source,
        "fingerprint": model.fingerprint,
        "space": model.space(number, loudness).name,
        "layers": [number],
        "pool": "track",
        "loudness": loudness,
    }

    def embed(path: str) -> np.ndarray:
        return model.embed_track(path, number, loudness).numpy()

    width = model.mods.encoder.width
    return embed_tables(tables, column, embed, width, facts, overwrite)


class Embedding:
    """The work of ``embed``, see `Work`."""

    def __init__(
        self,
        model: MuQ,
        name: str,
        layers: tuple[int, ...] | str,
        pool: str,
        dtype: str,
        batch_seconds: float,
        loudness: float | None = None,
    ):
        import torch

        from muq_plugins.inference.space import (
            FADE_SECONDS,
            TRACK,
            WINDOW_SECONDS,
            Space,
            windows,
        )
        from muq_plugins.lobes import MuQEncoder
        from muq_plugins.lobes.linear import round_weights

        encoder = model.mods.encoder
        num_states = encoder.num_layers + 1
        self.model = model
        every = layers == options.ALL_LAYERS
        self.layers = model.find_layers(range(num_states) if every else layers)
        self.pool = pool
        self.loudness = loudness
        # The vector of a track does not depend on what fits into a batch.
        most = min(WINDOW_SECONDS, batch_seconds)
        self.window = WINDOW_SECONDS if pool == TRACK else most
        self.longest = most if pool == TRACK else batch_seconds
        self.overlap = self.window * FADE_SECONDS / WINDOW_SECONDS
        context = windows(self.window, self.overlap)
        if pool != TRACK:
            context = f"files up to {batch_seconds:g} s whole, others in {context}"
        self.space = Space(
            model.fingerprint,
            tuple(self.layers),
            pool,
            context,
            loudness,
            precision=model.computes_in,
        )
        self.device = str(model.device)
        self.dtype = dtype
        if dtype == "bfloat16" and isinstance(encoder, MuQEncoder):
            round_weights(encoder.conformer, torch.bfloat16)
        self.sample_rate = encoder.sample_rate
        self.frame_rate = encoder.frame_rate
        self.min_samples = encoder.min_samples
        self.about = {
            "model": name,
            "space": self.space.name,
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "num_hidden_states": num_states,
        }

    def settings(self, duration: float) -> dict[str, Any]:
        if self.pool == "track":
            context = self.space.context
        elif duration > self.longest:
            context = f"windows of {self.window:g} s, edges dropped"
        else:
            context = "the whole file"
        return {
            "command": "embed",
            "fingerprint": self.model.fingerprint,
            "layers": self.layers,
            "pool": self.pool,
            "loudness": self.loudness,
            "dtype": self.dtype,
            "context": context,
        }

    def batch(self, wavs: Tensor, wav_lens: Tensor) -> list[dict[str, np.ndarray]]:
        """Embeds a padded batch; outputs are float32."""
        import torch

        with self._precision():
            out = self.model(wavs, wav_lens)
        states = torch.stack([out.hidden_states[layer] for layer in self.layers])
        results = []
        lengths = (out.lens * states.shape[2]).round().int().tolist()
        for index, frames in enumerate(lengths):
            hidden = states[:, index, :frames].float()
            if self.pool != "frames":
                hidden = hidden.mean(dim=1)
            results.append(self._arrays(hidden.cpu()))
        return results

    def stream(self, blocks: Iterable[Tensor]) -> dict[str, np.ndarray]:
        """Embeds audio in windows, in constant memory if the mean is asked for."""
        import torch

        from muq_plugins.data.windows import mean_of_frames

        size = len(self.layers), -1
        chunks = self.model.embed_long(blocks, self.window, self.overlap, self.layers)
        with self._precision():
            if self.pool != "frames":
                return self._arrays(mean_of_frames(chunks).view(size))
            hidden = torch.cat([chunk.hidden for chunk in chunks])
        return self._arrays(hidden.unflatten(1, size).transpose(0, 1))

    def _precision(self) -> AbstractContextManager:
        import torch

        kind, low = self.device.partition(":")[0], self.dtype == "bfloat16"
        return torch.autocast(kind, torch.bfloat16, enabled=low)

    def _arrays(self, hidden: Tensor) -> dict[str, np.ndarray]:
        import numpy as np
        from torch.nn.functional import normalize

        if self.pool == "track":
            hidden = normalize(hidden, dim=1)
        arrays = {"embedding": hidden.float().numpy(), "layers": np.array(self.layers)}
        if self.pool == "frames":
            arrays["times"] = np.arange(hidden.shape[1]) / self.frame_rate
        return arrays


def _pick_dtype(name: str, device: str) -> str:
    """What --dtype auto is on a device; int8 must suit it."""
    import torch

    from muq_plugins.inference.space import INT8

    if name == INT8:
        from muq_plugins.lobes.int8 import check_int8

        if device != "cpu":
            raise UserError(
                f"--dtype int8 is for the CPU, and the device is {device}: give "
                f"--device cpu, or leave --dtype out."
            )
        try:
            check_int8()
        except ValueError as error:
            raise UserError(f"--dtype {error}") from error
    if name != "auto":
        return name
    if not device.startswith("cuda"):
        return "float32"
    with torch.cuda.device(device):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if fast else "float32"
