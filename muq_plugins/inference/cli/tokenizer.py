"""``muq-plugins tokenize``, ``detokenize``, ``inspect-tokenizer``: codes of audio."""

from __future__ import annotations

from collections.abc import Iterable
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muq_plugins.errors import UserError, given_by_user
from muq_plugins.inference.cli import options
from muq_plugins.inference.cli.options import (
    count_files,
    load,
    pick_device,
    report_problems,
    say,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from muq_plugins.evaluation.probing.clips import Clip
    from muq_plugins.lobes import Target

INT16_LIMIT = 2**15
# How far deltas of deltas of MFCC reach. Of log-mel, more context changes nothing.
DELTA_FRAMES = 4

Teacher = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="of a tokenizer of latents: the model that gives them, "
        f"{options.MUQ_MODELS}",
    ),
]


def tokenize(
    model: options.Tokenizer,
    inputs: options.Inputs,
    out: options.Out,
    teacher: Teacher = None,
    window: Annotated[
        float,
        typer.Option(
            metavar="S", help="with --teacher: seconds that are labelled at once"
        ),
    ] = 30.0,
    context: Annotated[
        float,
        typer.Option(
            metavar="S",
            help="with --teacher: seconds heard beside it",
        ),
    ] = 1.0,
    flatten: Annotated[
        bool,
        typer.Option(
            "--flatten",
            help="one sequence of tokens of one vocabulary, for a language model",
        ),
    ] = False,
    format: options.Format = "npz",
    batch_seconds: options.BatchSeconds = 60.0,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
) -> int:
    """Codes of audio files.

    One output file each below --out, in the same tree, named <file name>.<format>. It
    holds "codes" (frames, codebooks), or with --flatten "tokens": the codes of each
    frame one after another, those of each codebook raised by its offset. "facts", a
    JSON object, says the path, frame_rate, num_codebooks, codebook_size, offsets,
    vocabulary_size, tokens and bits per second, and more. Codes are computed in
    float32; those of long files, which are read in pieces, are the codes of the whole
    file. What a teacher says depends on what it hears: its windows are part of the
    facts. The same command goes on where it was; what is done is not done again.
    """
    device = pick_device(device)
    from muq_plugins.inference.cli.work import run_work

    def prepare() -> Tokenizing:
        tokenizer = _hearing(model, device, teacher)
        seconds = (window, context)
        return Tokenizing(tokenizer, model, device, batch_seconds, seconds, flatten)

    return run_work(prepare, inputs, out, format, batch_seconds, overwrite)


def _hearing(model: str, device: str, teacher: str | None) -> Target:
    """A tokenizer that can make codes of audio."""
    from muq_plugins.inference.tokenizer import AbsentTeacher, any_tokenizer

    with given_by_user():
        tokenizer = any_tokenizer(model, device, teacher)
    if isinstance(tokenizer.features, AbsentTeacher):
        raise tokenizer.features.refuse(model)
    return tokenizer


def detokenize(
    model: options.Tokenizer,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="CODES", help="outputs of tokenize, or their folder"),
    ],
    out: options.Out,
    codebooks: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="decode the first N only (default: all)"),
    ] = None,
    device: options.Device = None,
) -> int:
    """What codes stand for: latents, or log-mel frames.

    For each output of tokenize, one of the same name below --out with "latents"
    (frames, size): what the quantizer makes of the codes. Of a tokenizer of latents
    these are the latents of its teacher's layer, as far as the codes keep them; the
    teacher is not needed. Codes of another tokenizer are refused.
    """
    device = pick_device(device)
    import torch

    from muq_plugins.inference.cli.outputs import (
        FORMATS,
        find_records,
        read_arrays,
        read_facts,
        write_record,
    )
    from muq_plugins.inference.tokenizer import any_tokenizer

    files: list[tuple[Path, Path]] = []
    for name in inputs:
        top = Path(name)
        found = list(find_records(top)) if top.is_dir() else [top]
        known_format = top.is_dir() or top.suffix[1:] in FORMATS
        if not found or not found[0].is_file() or not known_format:
            raise UserError(f"{name}: there are no outputs of `muq-plugins tokenize`.")
        files += [
            (path, path.relative_to(top if top.is_dir() else top.parent))
            for path in found
        ]
    tokenizer = load(any_tokenizer, model, device)
    own, levels = fingerprint_of(tokenizer), tokenizer.num_codebooks
    if codebooks is not None and codebooks > levels:
        raise UserError(f"--codebooks {codebooks}: {model} has {levels}.")
    known = [read_facts(path) for path, _ in files]
    own_facts = {"command": "detokenize", "codebooks": codebooks or levels}
    targets = [_beside(Path(out, place)) for _, place in files]
    if same := {path.resolve() for path in targets} & {x.resolve() for x, _ in files}:
        raise UserError(f"{min(same)} would be lost: give another --out.")
    for (path, _), facts, target in zip(files, known, targets, strict=True):
        if facts.get("command") != "tokenize":
            raise UserError(f"{path} is no output of `muq-plugins tokenize`.")
        if facts["fingerprint"] != own:
            raise UserError(
                f"{path} has codes of {facts['model']} ({facts['fingerprint']}), and "
                f"{model} is {own}: give the tokenizer that made them."
            )
        if target.is_file() and read_facts(target) != {**facts, **own_facts}:
            raise UserError(f"{target} was made of other codes: give another --out.")
    for (path, _), facts, target in zip(files, known, targets, strict=True):
        arrays = read_arrays(path)
        if "tokens" in arrays:
            tokens = arrays["tokens"].astype("int64").reshape(-1, levels)
            codes = torch.from_numpy(tokens) - torch.tensor(facts["offsets"])
        else:
            codes = torch.from_numpy(arrays["codes"].astype("int64"))
        codes = codes[None, :, :codebooks].to(device)
        with torch.no_grad(), given_by_user():
            latents = tokenizer.quantizer.decode(codes)[0].float().cpu().numpy()
        write_record(target, {**facts, **own_facts}, {"latents": latents})
    say(f"{out}: {count_files(len(files))}.")
    return 0


def _beside(output: Path) -> Path:
    """Where latents go: parquet has no form for them here."""
    return output.with_suffix(".npz") if output.suffix == ".parquet" else output


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
    teacher: Teacher = None,
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
    from muq_plugins.evaluation.runs import check_no_run

    check_no_run(out, "--out")
    clips, problems = find_clips(inputs, max_files)
    target = _hearing(model, device, teacher)
    with given_by_user():
        found = inspect_tokenizer(target, clips, out)
        report = inspection_report(
            out,
            f"{model} on {', '.join(inputs)}",
            own_errors(model),
            # That of the spectrogram, of which several frames have one code.
            getattr(target.features, "features", target).frame_rate,
        )
    print("\n".join([*map(str, inspection_facts(found)), f"Report: {report}"]))
    return report_problems("Left out:", problems + found["skipped"])


class Tokenizing:
    """The work of ``tokenize``, see `Work`; any tokenizer of one spectrogram."""

    def __init__(
        self,
        tokenizer: Target,
        name: str,
        device: str,
        batch_seconds: float,
        windows: tuple[float, float] = (30.0, 1.0),
        flatten: bool = False,
    ):
        from muq_plugins.data.labels.windows import LabelWindows
        from muq_plugins.lobes.features import TeacherFeatures

        self.flatten = flatten
        self.tokenizer = tokenizer
        self.device = device
        self.longest, self.loudness = batch_seconds, None
        self.sample_rate = tokenizer.sample_rate
        self.frame_samples = round(tokenizer.sample_rate / tokenizer.frame_rate)
        self.windows = None
        mel = getattr(tokenizer.features, "features", None)
        if isinstance(tokenizer.features, TeacherFeatures):
            # Each window alone, as labels are: no digit depends on a batch.
            self.longest = 0.0
            self.windows = LabelWindows.in_seconds(tokenizer, *windows)
            least = tokenizer.features.min_samples
            self.min_samples = max(self.frame_samples, least)
        elif hasattr(mel, "n_fft"):
            # The reach of a frame to either side, which decides its code.
            reach = mel.n_fft // 2 + DELTA_FRAMES * mel.hop_length
            self.context = -(-reach // self.frame_samples)
            self.min_samples = max(mel.min_samples, self.frame_samples)
        else:
            raise UserError(
                f"{name}: its codes are made of {type(tokenizer.features).__name__}. "
                f"Give a tokenizer of log-mel or MFCC frames, or of latents."
            )
        self.piece = round(batch_seconds * tokenizer.frame_rate)
        self.fingerprint = fingerprint_of(tokenizer)
        levels, size = tokenizer.num_codebooks, tokenizer.codebook_size
        rate = levels * tokenizer.frame_rate
        self.about = {
            "model": name,
            "sample_rate": self.sample_rate,
            "frame_rate": tokenizer.frame_rate,
            "num_codebooks": levels,
            "codebook_size": size,
            "offsets": [level * size for level in range(levels)],
            "vocabulary_size": levels * size,
            "tokens_per_second": rate,
            "bits_per_second": round(rate * log2(size), 3),
        }

    def settings(self, duration: float) -> dict[str, Any]:
        """Pieces have the codes of the whole, so the duration changes nothing."""
        settings: dict[str, Any] = {"command": "tokenize"}
        settings["fingerprint"] = self.fingerprint
        # None, as in outputs from before there was a choice.
        settings["flattened"] = self.flatten or None
        for name in ("window_frames", "context_frames"):
            settings[name] = getattr(self.windows, name, None)
        return settings

    def batch(self, wavs: Tensor, wav_lens: Tensor) -> list[dict[str, np.ndarray]]:
        """Tokenizes a padded batch."""
        from muq_plugins.lobes.target import PADDING_CODE

        codes = self._codes(wavs, wav_lens)
        return [self._arrays(clip[clip[:, 0] != PADDING_CODE]) for clip in codes]

    def stream(self, blocks: Iterable[Tensor]) -> dict[str, np.ndarray]:
        """Tokenizes audio in pieces, with the same codes as those of the whole.

        Beside each piece is the context that the codes of its frames depend on.
        """
        import torch

        from muq_plugins.data.windows import stream

        if self.windows is not None:
            return self._arrays(self._labels(torch.cat(list(blocks))))
        size, codes = self.piece, []
        for cut in stream(blocks, self.frame_samples, size, size, self.context):
            due = self._codes(cut.audio[None], None)[0, cut.due - cut.begin :]
            codes.append(due if cut.is_last else due[:size])
        return self._arrays(torch.cat(codes))

    def _labels(self, wav: Tensor) -> Tensor:
        """The codes of a whole recording, as a training that stores labels has them."""
        import torch

        found = []
        for span in self.windows.spans(len(wav)):
            begin, end = self.windows.heard(len(wav), span)
            offset = span[0] - begin // self.frame_samples
            frames = span[1] - span[0]
            found.append(self.windows.compute(wav[begin:end], offset, frames)[0])
        return torch.cat(found)

    def _codes(self, wavs: Tensor, wav_lens: Tensor | None) -> Tensor:
        from muq_plugins.lobes.lengths import lengths_on

        wav_lens = lengths_on(wav_lens, self.device)
        return self.tokenizer(wavs.to(self.device), wav_lens).cpu()

    def _arrays(self, codes: Tensor) -> dict[str, np.ndarray]:
        import torch

        if self.flatten:
            tokens = codes + torch.tensor(self.about["offsets"])
            return {"tokens": tokens.flatten().numpy().astype("int32")}
        fits = self.tokenizer.codebook_size <= INT16_LIMIT
        return {"codes": codes.numpy().astype("int16" if fits else "int32")}


def fingerprint_of(tokenizer: Target) -> str:
    """A hash of what decides codes, but for the windows that a teacher hears."""
    from muq_plugins.lobes.parts import fingerprint

    config = {**tokenizer.features.config, **tokenizer.quantizer.config}
    return fingerprint(tokenizer, config)


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
