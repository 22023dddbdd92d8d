"""``muq-plugins tokenize`` and ``inspect-tokenizer``: codes of audio files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muq_plugins.errors import UserError, given_by_user
from muq_plugins.inference.cli import options
from muq_plugins.inference.cli.options import load, pick_device, report_problems

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from muq_plugins.evaluation.probing.clips import Clip
    from muq_plugins.lobes import Target

INT16_LIMIT = 2**15
# How far deltas of deltas of MFCC reach. Of log-mel, more context changes nothing.
DELTA_FRAMES = 4


def tokenize(
    model: options.Tokenizer,
    inputs: options.Inputs,
    out: options.Out,
    format: options.Format = "npz",
    batch_seconds: options.BatchSeconds = 60.0,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
) -> int:
    """Codes of audio files.

    One output file each below --out, in the same tree, named <file name>.<format>. It
    holds "codes" (frames, codebooks), and "facts", a JSON object with the path,
    frame_rate, num_codebooks, codebook_size and more. Codes are computed in float32;
    those of long files, which are read in pieces, are the codes of the whole file. The
    same command goes on where it was; what is done is not done again.
    """
    device = pick_device(device)
    from muq_plugins.inference.cli.work import run_work
    from muq_plugins.inference.tokenizer import any_tokenizer

    def prepare() -> Tokenizing:
        tokenizer = load(any_tokenizer, model, device)
        return Tokenizing(tokenizer, model, device, batch_seconds)

    return run_work(prepare, inputs, out, format, batch_seconds, overwrite)


def inspect(
    model: options.Tokenizer,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help=f"{options.AUDIO_FILES}; or a manifest such as "
            "results/corpus-300min/test.json",
        ),
    ],
    out: options.Out,
    max_files: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="files that are heard at most, evenly chosen"
        ),
    ] = 200,
    device: options.Device = None,
) -> int:
    """A report of a trained tokenizer on any audio.

    How its codes are used (usage, perplexity, entropy, histograms), how much each
    codebook lowers the reconstruction error, and a spectrogram beside what a few
    codebooks keep of it. Beside it stands what the run of the tokenizer has measured
    on its own test part. Writes report.html, report.md and inspection.json into --out.
    """
    device = pick_device(device)
    from muq_plugins.evaluation.inspection import inspect_tokenizer, own_errors
    from muq_plugins.evaluation.pages.tokenizer import (
        inspection_facts,
        inspection_report,
    )
    from muq_plugins.inference.tokenizer import any_tokenizer

    clips, problems = find_clips(inputs, max_files)
    target = load(any_tokenizer, model, device)
    with given_by_user():
        found = inspect_tokenizer(target, clips, out)
        report = inspection_report(
            out,
            f"{model} on {', '.join(inputs)}",
            own_errors(model),
            target.features.features.frame_rate,
        )
    print("\n".join([*map(str, inspection_facts(found)), f"Report: {report}"]))
    return report_problems("Left out:", problems + found["skipped"])


class Tokenizing:
    """The work of ``tokenize``, see `Work`; any tokenizer of one spectrogram."""

    def __init__(self, tokenizer: Target, name: str, device: str, batch_seconds: float):
        from muq_plugins.lobes.parts import fingerprint

        self.tokenizer = tokenizer
        self.device = device
        self.longest, self.loudness = batch_seconds, None
        self.sample_rate = tokenizer.sample_rate
        self.frame_samples = round(tokenizer.sample_rate / tokenizer.frame_rate)
        mel = getattr(tokenizer.features, "features", None)
        if not hasattr(mel, "n_fft"):
            raise UserError(
                f"{name}: its codes are made of {type(tokenizer.features).__name__}. "
                f"Give a tokenizer of log-mel or MFCC frames."
            )
        # The reach of a frame to either side, which decides its code.
        reach = mel.n_fft // 2 + DELTA_FRAMES * mel.hop_length
        self.context = -(-reach // self.frame_samples)
        self.min_samples = max(mel.n_fft // 2 + 1, self.frame_samples)
        self.piece = round(batch_seconds * tokenizer.frame_rate)
        config = {**tokenizer.features.config, **tokenizer.quantizer.config}
        self.fingerprint = fingerprint(tokenizer, config)
        self.about = {
            "model": name,
            "sample_rate": self.sample_rate,
            "frame_rate": tokenizer.frame_rate,
            "num_codebooks": tokenizer.num_codebooks,
            "codebook_size": tokenizer.codebook_size,
        }

    def settings(self, duration: float) -> dict[str, Any]:
        """Pieces have the codes of the whole, so the duration changes nothing."""
        return {"command": "tokenize", "fingerprint": self.fingerprint}

    def batch(self, wavs: Tensor, wav_lens: Tensor) -> list[dict[str, np.ndarray]]:
        """Tokenizes a padded batch."""
        from muq_plugins.lobes.target import PADDING_CODE

        codes = self._codes(wavs, wav_lens)
        return [
            {"codes": self._small(clip[clip[:, 0] != PADDING_CODE])} for clip in codes
        ]

    def stream(self, blocks: Iterable[Tensor]) -> dict[str, np.ndarray]:
        """Tokenizes audio in pieces, with the same codes as those of the whole.

        Beside each piece is the context that the codes of its frames depend on.
        """
        import torch

        from muq_plugins.data.windows import stream

        size, codes = self.piece, []
        for cut in stream(blocks, self.frame_samples, size, size, self.context):
            due = self._codes(cut.audio[None], None)[0, cut.due - cut.begin :]
            codes.append(due if cut.is_last else due[:size])
        return {"codes": self._small(torch.cat(codes))}

    def _codes(self, wavs: Tensor, wav_lens: Tensor | None) -> Tensor:
        from muq_plugins.lobes.lengths import lengths_on

        wav_lens = lengths_on(wav_lens, self.device)
        return self.tokenizer(wavs.to(self.device), wav_lens).cpu()

    def _small(self, codes: Tensor) -> np.ndarray:
        fits = self.tokenizer.codebook_size <= INT16_LIMIT
        return codes.numpy().astype("int16" if fits else "int32")


def find_clips(sources: list[str], most: int) -> tuple[list[Clip], list[str]]:
    """The clips that files, folders, patterns and manifests stand for, evenly chosen.

    With them comes why others are none.
    """
    from muq_plugins.data.audio import AudioError, audio_info
    from muq_plugins.data.manifest import load_manifest
    from muq_plugins.evaluation.probing.clips import Clip
    from muq_plugins.inference.cli.inputs import find_inputs

    clips: list[tuple[str, str, float | None]] = []
    files = []
    for source in sources:
        if not source.endswith(".json"):
            files.append(source)
            continue
        with given_by_user():
            entries = load_manifest(source, Path(source).parent)
        clips += [
            (name, entries[name]["wav"], entries[name]["duration"]) for name in entries
        ]
    inputs, problems = find_inputs(files) if files else ([], [])
    clips += [(item.name, item.path, None) for item in inputs]
    number, found = min(most, len(clips)), []
    for place in range(number):
        name, path, seconds = clips[place * len(clips) // number]
        try:
            seconds = audio_info(path).duration if seconds is None else seconds
            found.append(Clip(name, path, seconds))
        except AudioError as error:
            problems.append(str(error))
    return found, problems
