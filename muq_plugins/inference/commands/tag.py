"""``muq-plugins tag``: how well each tag of a list describes audio files."""

from __future__ import annotations

import csv
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from muq_plugins.inference.commands.mulan import MULAN_MODELS, load_mulan, parse_count
from muq_plugins.inference.commands.options import (
    CommandError,
    add_device_argument,
    check_installation,
)

if TYPE_CHECKING:
    from torch import Tensor

    from muq_plugins.inference.commands.inputs import AudioInput
    from muq_plugins.inference.mulan import MuQMuLan

DESCRIPTION = """\
Ranks the tags of a list for each audio file, without any training on them: a score is
the dot product of the latents of the audio and of the tag, from -1 to 1. Scores of
different tags are on one scale only roughly: compare files by one tag rather than tags
of one file."""

SHOWN = 5

# A tag and its score.
Tagged = list[tuple[str, float]]


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what the sub-command takes."""
    parser.add_argument(
        "inputs",
        metavar="FILE",
        nargs="+",
        help="an audio file, a folder (searched to its depths), or a quoted glob "
        "pattern such as 'music/**/*.flac'",
    )
    parser.add_argument(
        "--tags",
        metavar="TEXT_FILE",
        required=True,
        help="the tags, one in each line; what is repeated counts once",
    )
    parser.add_argument("--model", required=True, help=MULAN_MODELS)
    parser.add_argument(
        "--prompts",
        metavar="TEXT_FILE",
        help="sentences such as 'a recording of {tag}', one in each line; the latent "
        "of a tag is their mean (default: the tag alone)",
    )
    parser.add_argument(
        "--top",
        metavar="N",
        type=parse_count,
        help=f"how many tags of each file (default: {SHOWN} in a table, else all)",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON, not a table")
    output.add_argument(
        "--csv", action="store_true", help="print CSV: path, rank, tag, score"
    )
    add_device_argument(parser)


def run(arguments: Namespace) -> int:
    """Prints the tags of the files of a command."""
    check_installation()
    from tqdm import tqdm

    from muq_plugins.inference.commands.inputs import find_inputs
    from muq_plugins.inference.printing import shown
    from muq_plugins.inference.tags import PLACE, embed_tags, read_prompts, read_tags

    inputs, problems = find_inputs(arguments.inputs)
    try:
        tags, repeated = read_tags(arguments.tags)
        prompts = read_prompts(arguments.prompts) if arguments.prompts else [PLACE]
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    for words in repeated:
        print(f"{arguments.tags}: {words}: counted once.", file=sys.stderr)
    model = load_mulan(arguments.model, arguments.device)
    latents = embed_tags(model, tags, prompts)
    # Rows on a terminal show how far it is.
    hidden = True if sys.stdout.isatty() else None
    files = tqdm(inputs, unit="file", disable=hidden)
    results = (
        (shown(item.path), tagged[: arguments.top])
        for item, tagged in tag_files(model, files, tags, latents, problems)
    )
    if arguments.json:
        _print_json(results)
    elif arguments.csv:
        _print_csv(results)
    else:
        _print_table(results, arguments.top or SHOWN)
    if problems:
        print("Could not be used:", *problems, sep="\n  ", file=sys.stderr)
    return 1 if problems else 0


def tag_files(
    model: MuQMuLan,
    inputs: list[AudioInput],
    tags: list[str],
    latents: Tensor,
    problems: list[str],
) -> Iterator[tuple[AudioInput, Tagged]]:
    """Ranks tags for each file."""
    from muq_plugins.data.audio import AudioError
    from muq_plugins.inference.printing import shown

    for item in inputs:
        try:
            latent = model.embed_file(item.path).detach().float().cpu().view(-1)
        except AudioError as error:
            problems.append(shown(str(error)))
            continue
        scores = (latents @ latent).tolist()
        pairs = zip(tags, scores, strict=True)
        # Equal scores stay in the order of the list.
        yield item, sorted(pairs, key=lambda pair: -pair[1])


def _print_json(results: Iterator[tuple[str, Tagged]]) -> None:
    files = [
        {"path": path, "tags": [{"tag": tag, "score": score} for tag, score in tagged]}
        for path, tagged in results
    ]
    print(json.dumps({"files": files}, ensure_ascii=False, indent=1))


def _print_csv(results: Iterator[tuple[str, Tagged]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "rank", "tag", "score"])
    for path, tagged in results:
        for rank, (tag, score) in enumerate(tagged, start=1):
            writer.writerow([path, rank, tag, f"{score:.6f}"])


def _print_table(results: Iterator[tuple[str, Tagged]], top: int) -> None:
    for path, tagged in results:
        print(path)
        for tag, score in tagged[:top]:
            print(f"  {score:7.4f}  {tag}", flush=True)
