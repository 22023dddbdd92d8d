"""``muq-plugins embed``: hidden states of audio files."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from muq_plugins.inference.commands.devices import autocast, pick_device, pick_dtype
from muq_plugins.inference.commands.layers import parse_layers, resolve_layers
from muq_plugins.inference.commands.options import (
    MUQ_MODELS,
    CommandError,
    add_dtype_argument,
    add_file_arguments,
    check_installation,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from muq_plugins.inference.muq import MuQ

DESCRIPTION = """\
Hidden states of audio files, one output file each. An output holds "embedding":
(layers, width), the mean over time, or (layers, frames, width) with "times" in seconds;
"layers"; and "facts", a JSON object with the path, the rates, the model and more. The
same command goes on where it was; what is done is not done again."""

POOLS = ("mean", "frames")
# Windows for audio that is streamed: what the paper's model has been trained on.
WINDOW = 30.0
OVERLAP = 1 / 6  # of a window


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what the sub-command takes."""
    add_file_arguments(parser, MUQ_MODELS)
    parser.add_argument(
        "--layer",
        metavar="N",
        type=parse_layers,
        default=(-1,),
        help='hidden state: 0 is the front end, -1 the last; several as 3,6,-1; "all" '
        "(default: -1)",
    )
    parser.add_argument(
        "--pool",
        choices=POOLS,
        default=POOLS[0],
        help="the mean over time, or every frame (default: %(default)s)",
    )
    add_dtype_argument(parser)


def run(arguments: Namespace) -> int:
    """Embeds the files of a command."""
    check_installation()
    from muq_plugins.inference.commands import running
    from muq_plugins.inference.commands.inputs import find_inputs
    from muq_plugins.inference.commands.records import check_format

    check_format(arguments.format)
    inputs, problems = find_inputs(arguments.inputs)
    embedding = Embedding(
        load_model(arguments.model, arguments.device),
        arguments.model,
        arguments.layer,
        arguments.pool,
        arguments.dtype,
        arguments.batch_seconds,
    )
    return running.run(embedding, inputs, problems, arguments)


def load_model(source: str, device: str | None) -> MuQ:
    """Loads MODEL."""
    check_installation()
    device = pick_device(device)
    from muq_plugins.inference.muq import MuQ

    try:
        return MuQ.from_pretrained(source, device)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error


class Embedding:
    """The work of ``embed``: see `muq_plugins.inference.commands.running.Work`."""

    def __init__(
        self,
        model: MuQ,
        name: str,
        layers: tuple[int, ...] | str,
        pool: str,
        dtype: str,
        batch_seconds: float,
    ):
        from muq_plugins.lobes.parts import encoder_fingerprint

        encoder = model.mods.encoder
        num_states = encoder.num_layers + 1
        self.model = model
        self.layers = resolve_layers(layers, num_states, name)
        self.pool = pool
        self.batch_seconds = batch_seconds
        self.window = min(WINDOW, batch_seconds)
        self.device = str(model.device)
        self.dtype = pick_dtype(dtype, self.device)
        self.sample_rate = encoder.sample_rate
        self.frame_rate = encoder.frame_rate
        self.min_samples = encoder.min_samples
        self.fingerprint = encoder_fingerprint(encoder)
        self.about = {
            "model": name,
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "num_hidden_states": num_states,
        }

    def settings(self, duration: float) -> dict[str, Any]:
        """All that decides what the output for a file of this duration is."""
        streamed = duration > self.batch_seconds
        return {
            "command": "embed",
            "fingerprint": self.fingerprint,
            "layers": self.layers,
            "pool": self.pool,
            "dtype": self.dtype,
            "context": f"windows of {self.window:g} s"
            if streamed
            else "the whole file",
        }

    def batch(self, wavs: Tensor, wav_lens: Tensor) -> list[dict[str, np.ndarray]]:
        """Embeds a padded batch."""
        states, lens = self._encode(wavs, wav_lens)
        results = []
        lengths = (lens * states.shape[2]).round().int().tolist()
        for index, frames in enumerate(lengths):
            hidden = states[:, index, :frames].float()
            if self.pool == "mean":
                hidden = hidden.mean(dim=1)
            results.append(self._arrays(hidden.cpu(), frames))
        return results

    def stream(
        self, blocks: Iterable[Tensor], advance: Callable[[float], None]
    ) -> dict[str, np.ndarray]:
        """Embeds audio in windows, in constant memory if the mean is asked for."""
        import torch

        from muq_plugins.inference.long_audio import embed_windows

        def embed(wav: Tensor) -> Tensor:
            # All layers in one pass: side by side they are one wide hidden state.
            states, _ = self._encode(wav[None], None)
            return states[:, 0].transpose(0, 1).flatten(1).float().cpu()

        chunks = embed_windows(
            embed,
            blocks,
            frame_samples=round(self.sample_rate / self.frame_rate),
            frame_rate=self.frame_rate,
            window=round(self.window * self.frame_rate),
            overlap=round(self.window * OVERLAP * self.frame_rate),
        )
        frames, total, kept = 0, 0.0, []
        for chunk in chunks:
            frames += len(chunk.hidden)
            if self.pool == "mean":
                total = total + chunk.hidden.sum(dim=0, dtype=torch.float64)
            else:
                kept.append(chunk.hidden)
            advance(len(chunk.hidden) / self.frame_rate)
        size = len(self.layers), -1
        if self.pool == "mean":
            return self._arrays((total / frames).float().view(size), frames)
        hidden = torch.cat(kept).unflatten(1, size).transpose(0, 1)
        return self._arrays(hidden, frames)

    def _encode(self, wavs: Tensor, wav_lens: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden states (layers, batch, frames, width) and relative lengths."""
        import torch

        with autocast(self.dtype, self.device):
            out = self.model(wavs, wav_lens)
        return torch.stack(
            [out.hidden_states[layer] for layer in self.layers]
        ), out.lens

    def _arrays(self, hidden: Tensor, frames: int) -> dict[str, np.ndarray]:
        import numpy as np

        arrays = {"embedding": hidden.numpy(), "layers": np.array(self.layers)}
        if self.pool == "frames":
            arrays["times"] = np.arange(frames) / self.frame_rate
        return arrays
