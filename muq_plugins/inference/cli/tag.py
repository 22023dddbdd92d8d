"""``muq-plugins tag``: how well each tag of a list describes audio files."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from muq_plugins.errors import UserError, shown
from muq_plugins.inference.cli import options
from muq_plugins.inference.cli.options import load, pick_device, report_problems, say

SHOWN = 5

# A tag and its score.
Tagged = list[tuple[str, float]]


def tag(
    inputs: options.Inputs,
    tags: Annotated[
        str,
        typer.Option(
            metavar="TEXT_FILE",
            help="the tags, one in each line; what is repeated counts once",
        ),
    ],
    model: options.MuLanModel,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT_FILE",
            help="sentences such as 'a recording of {tag}', one in each line; the "
            "latent of a tag is their mean (default: the tag alone)",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help=f"how many tags of each file (default: {SHOWN} in a table, else all)",
        ),
    ] = None,
    as_json: options.Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="print CSV: path, rank, tag, score")
    ] = False,
    device: options.Device = None,
) -> int:
    """Which tags of a list describe audio files.

    Ranks the tags for each audio file, without any training on them: a score is the
    dot product of the latents of the audio and of the tag, from -1 to 1. Scores of
    different tags are on one scale only roughly: compare files by one tag rather than
    tags of one file.
    """
    if as_json and as_csv:
        raise UserError("--json and --csv: give one of them.")
    device = pick_device(device)
    from tqdm import tqdm

    from muq_plugins.data.audio import AudioError
    from muq_plugins.inference.cli.inputs import find_inputs
    from muq_plugins.inference.mulan import MuQMuLan
    from muq_plugins.inference.tags import PLACE, embed_tags, read_prompts, read_tags

    found, problems = find_inputs(inputs)
    words, repeated = read_tags(tags)
    sentences = read_prompts(prompts) if prompts else [PLACE]
    for line in repeated:
        say(f"{tags}: {line}: counted once.")
    mulan = load(MuQMuLan.from_pretrained, model, device)
    say(f"The model was trained on: {mulan.trained_on}.")
    latents = embed_tags(mulan, words, sentences)
    # Rows on a terminal show how far it is.
    hidden = True if sys.stdout.isatty() else None

    def results() -> Iterator[tuple[str, Tagged]]:
        """The tags of each file that can be used, the best first."""
        for item in tqdm(found, unit="file", disable=hidden):
            try:
                latent = mulan.embed_file(item.path).detach().float().cpu().view(-1)
            except AudioError as error:
                problems.append(str(error))
                continue
            pairs = zip(words, (latents @ latent).tolist(), strict=True)
            # Equal scores stay in the order of the list.
            yield item.path, sorted(pairs, key=lambda pair: -pair[1])[:top]

    if as_json:
        _print_json(results())
    elif as_csv:
        _print_csv(results())
    else:
        _print_table(results(), top or SHOWN)
    return report_problems("Could not be used:", problems)


def _print_json(results: Iterator[tuple[str, Tagged]]) -> None:
    files = [
        {"path": path, "tags": [{"tag": tag, "score": score} for tag, score in tagged]}
        for path, tagged in results
    ]
    # ASCII, since file names that are not UTF-8 have no other way to be written.
    print(json.dumps({"files": files}, indent=1))


def _print_csv(results: Iterator[tuple[str, Tagged]]) -> None:
    sys.stdout.reconfigure(errors="surrogateescape")  # names as the disk has them
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "rank", "tag", "score"])
    for path, tagged in results:
        for rank, (tag, score) in enumerate(tagged, start=1):
            writer.writerow([path, rank, tag, f"{score:.6f}"])


def _print_table(results: Iterator[tuple[str, Tagged]], top: int) -> None:
    for path, tagged in results:
        print(shown(path))
        for tag, score in tagged[:top]:
            print(f"  {score:7.4f}  {tag}", flush=True)
