"""``muq-plugins tokenize``: Mel-RVQ codes of audio files."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from muq_plugins.inference.commands.devices import pick_device
from muq_plugins.inference.commands.options import (
    CommandError,
    add_file_arguments,
    check_installation,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from muq_plugins.inference.mel_rvq import MelRVQ

DESCRIPTION = """\
Codes of audio files, one output file each. An output holds "codes" (frames, codebooks),
and "facts", a JSON object with the path, frame_rate, num_codebooks, codebook_size and
more. Codes are computed in float32; those of long files, which are read in pieces, are
the codes of the whole file. The same command goes on where it was; what is done is not
done again."""

INT16_LIMIT = 2**15


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what the sub-command takes."""
    add_file_arguments(
        parser,
        "the folder of a tokenizer run, or the tokenizer file that the authors of MuQ "
        "publish",
    )


def run(arguments: Namespace) -> int:
    """Tokenizes the files of a command."""
    check_installation()
    from muq_plugins.inference.commands import running
    from muq_plugins.inference.commands.inputs import find_inputs
    from muq_plugins.inference.commands.records import check_format

    check_format(arguments.format)
    inputs, problems = find_inputs(arguments.inputs)
    device = pick_device(arguments.device)
    from muq_plugins.inference.mel_rvq import MelRVQ

    try:
        tokenizer = MelRVQ.from_pretrained(arguments.model, device)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    work = Tokenizing(tokenizer, arguments.model, device, arguments.batch_seconds)
    return running.run(work, inputs, problems, arguments)


class Tokenizing:
    """The work of ``tokenize``: see `muq_plugins.inference.commands.running.Work`."""

    def __init__(self, tokenizer: MelRVQ, name: str, device: str, batch_seconds: float):
        from muq_plugins.lobes.parts import fingerprint

        self.tokenizer = tokenizer
        self.device = device
        self.sample_rate = tokenizer.sample_rate
        self.frame_samples = round(tokenizer.sample_rate / tokenizer.frame_rate)
        # Reach of a spectrogram's frame to either side, in samples.
        self.reach = tokenizer.features.features.n_fft // 2
        self.min_samples = max(self.reach + 1, self.frame_samples)
        self.piece = round(batch_seconds * tokenizer.frame_rate)
        self.fingerprint = fingerprint(tokenizer, tokenizer.features.config)
        self.about = {
            "model": name,
            "sample_rate": self.sample_rate,
            "frame_rate": tokenizer.frame_rate,
            "num_codebooks": tokenizer.num_codebooks,
            "codebook_size": tokenizer.codebook_size,
        }

    def settings(self, duration: float) -> dict[str, Any]:
        """All that decides what the output for a file is."""
        return {"command": "tokenize", "fingerprint": self.fingerprint}

    def batch(self, wavs: Tensor, wav_lens: Tensor) -> list[dict[str, np.ndarray]]:
        """Tokenizes a padded batch."""
        from muq_plugins.lobes.target import PADDING_CODE

        codes = self.tokenizer(wavs, wav_lens).cpu()
        return [
            {"codes": self._small(clip[clip[:, 0] != PADDING_CODE])} for clip in codes
        ]

    def stream(
        self, blocks: Iterable[Tensor], advance: Callable[[float], None]
    ) -> dict[str, np.ndarray]:
        """Tokenizes audio in pieces."""
        import torch

        kept = []
        for codes in tokenize_pieces(
            lambda wav: self.tokenizer(wav[None])[0].cpu(),
            blocks,
            self.frame_samples,
            self.piece,
            context=-(-self.reach // self.frame_samples),
        ):
            kept.append(codes)
            advance(len(codes) * self.frame_samples / self.sample_rate)
        return {"codes": self._small(torch.cat(kept))}

    def _small(self, codes: Tensor) -> np.ndarray:
        fits = self.tokenizer.codebook_size <= INT16_LIMIT
        return codes.numpy().astype("int16" if fits else "int32")


def tokenize_pieces(
    tokenize: Callable[[Tensor], Tensor],
    blocks: Iterable[Tensor],
    frame_samples: int,
    piece: int,
    context: int,
) -> Iterator[Tensor]:
    """Codes of a stream, the same as those of the whole."""
    import torch

    buffer, start = torch.zeros(0), 0  # `start` is the frame at which it begins
    done = 0  # frames given out
    for block in blocks:
        buffer = torch.cat([buffer, block])
        # A piece is cut once there is audio beyond its context: the rest is never
        # too short for the spectrogram.
        while len(buffer) > (size := (done - start + piece + context) * frame_samples):
            yield tokenize(buffer[:size])[done - start :][:piece]
            done += piece
            keep = max(0, done - context)
            buffer, start = buffer[(keep - start) * frame_samples :], keep
    yield tokenize(buffer)[done - start :]
