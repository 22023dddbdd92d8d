"""``muq-plugins inspect-tokenizer``: how a tokenizer does on any audio, as a report."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from muq_plugins.inference.commands.devices import pick_device
from muq_plugins.inference.commands.options import (
    CommandError,
    add_device_argument,
    check_installation,
)

if TYPE_CHECKING:
    from muq_plugins.evaluation.probing.clips import Clip

DESCRIPTION = """\
A report of a trained tokenizer on any audio: how its codes are used (usage, perplexity,
entropy, histograms), how much each codebook lowers the reconstruction error, and a
spectrogram beside what a few codebooks keep of it. Beside it stands what the run of the
tokenizer has measured on its own test part. Writes report.html, report.md and
inspection.json."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what the sub-command takes."""
    parser.add_argument(
        "model",
        metavar="TOKENIZER",
        help="the folder of a tokenizer run, or the tokenizer file that the authors of "
        "MuQ publish",
    )
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="an audio file, a folder, a quoted glob pattern, or a manifest such as "
        "results/corpus-300min/test.json",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", required=True, help="where the report goes"
    )
    parser.add_argument(
        "--max-files",
        metavar="N",
        type=int,
        default=200,
        help="files that are heard at most, evenly chosen (default: %(default)s)",
    )
    add_device_argument(parser)


def run(arguments: Namespace) -> int:
    """Inspects a tokenizer."""
    check_installation()
    if arguments.max_files < 1:
        raise CommandError(f"--max-files {arguments.max_files}: give at least 1.")
    device = pick_device(arguments.device)
    from muq_plugins.evaluation.inspection import inspect_tokenizer, own_test
    from muq_plugins.evaluation.inspection_report import (
        inspection_facts,
        inspection_report,
    )
    from muq_plugins.inference.any_tokenizer import any_tokenizer

    clips, problems = find_clips(arguments.inputs, arguments.max_files)
    try:
        target = any_tokenizer(arguments.model, device)
        found = inspect_tokenizer(target, clips, arguments.out)
        report = inspection_report(
            arguments.out,
            f"{arguments.model} on {', '.join(arguments.inputs)}",
            own_test(arguments.model),
            target.features.features.frame_rate,
        )
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    print("\n".join([*map(str, inspection_facts(found)), f"Report: {report}"]))
    problems += found["skipped"]
    if problems:
        print("Left out:", *problems, sep="\n  ", file=sys.stderr)
    return 1 if problems else 0


def find_clips(sources: list[str], most: int) -> tuple[list[Clip], list[str]]:
    """The clips that files, folders, patterns and manifests stand for."""
    from muq_plugins.data.audio import AudioError, audio_info
    from muq_plugins.data.manifest import load_manifest
    from muq_plugins.evaluation.probing.clips import Clip
    from muq_plugins.inference.commands.inputs import find_inputs

    manifests = [source for source in sources if source.endswith(".json")]
    files = [source for source in sources if source not in manifests]
    clips: list[Clip] = []
    for source in manifests:
        try:
            entries = load_manifest(source, Path(source).parent)
        except (OSError, ValueError) as error:
            raise CommandError(str(error)) from error
        clips += [
            Clip(name, entry["wav"], entry["duration"])
            for name, entry in entries.items()
        ]
    inputs, problems = find_inputs(files) if files else ([], [])
    clips = _evenly([*clips, *inputs], most)
    found = []
    for clip in clips:
        if not isinstance(clip, Clip):
            try:
                clip = Clip(clip.name, clip.path, audio_info(clip.path).duration)
            except AudioError as error:
                problems.append(str(error))
                continue
        found.append(clip)
    return found, problems


def _evenly(items: list, most: int) -> list:
    if len(items) <= most:
        return items
    return [items[index * len(items) // most] for index in range(most)]
