"""``muq-plugins release``: a finished run as a folder that others can be given."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muq_plugins.errors import UserError
from muq_plugins.inference.cli import options
from muq_plugins.inference.cli.options import load, say

if TYPE_CHECKING:
    from torch import Tensor

CARD = "README.md"
# Of the rows of a log, in words; nat and shares of 1.
CURVES = {
    "loss": "loss",
    "cross_entropy": "masked cross-entropy",
    "accuracy": "masked accuracy",
}
# A picture of a report and its caption, which are too large to go along.
PICTURE = re.compile(r"^!\[[^]]*\]\([^)]*\)\n\n\*.*?\*\n\n", re.M | re.S)


def release(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="the folder of a run of train.py")
    ],
    card: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Markdown that the model card begins with: what it is, what it is for",
        ),
    ],
    out: options.Out,
    license: Annotated[
        str | None,
        typer.Option(metavar="ID", help="as the hub writes it, such as apache-2.0"),
    ] = None,
    remote_code: Annotated[
        bool,
        typer.Option(
            "--remote-code",
            help="for trust_remote_code: a file that imports this package or says how "
            "to get it",
        ),
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="also make it a repository on the hub"),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="with --push: for its owner alone")
    ] = False,
) -> None:
    """A finished run as a folder to give away, at half its size.

    --out is the folder. It holds the encoder, and the tokenizer that the run has
    trained, with weights in float16, which are computed with in float32 again; the log
    of the training (metrics.jsonl); and a model card (README.md): what --card says,
    what the model is, hashes of the weights, how it was made, and the report of the
    run. AutoModel of transformers loads it after `import muq_plugins`. A card that was
    edited since is not replaced.
    """
    if private and push is None:
        raise UserError("--private is for --push OWNER/NAME: give both, or none.")
    options.check_installation()
    from muq_plugins.evaluation.page import MARKDOWN_FILE
    from muq_plugins.evaluation.run_files import METRICS_FILE
    from muq_plugins.inference.folders import (
        WEIGHTS,
        find_folder,
        load_strictly,
        read_config,
        read_tensors,
        save_folder,
    )
    from muq_plugins.inference.hub import push_folder, save_transformers
    from muq_plugins.inference.muq import MuQ

    folder, report = Path(run), Path(run, MARKDOWN_FILE)
    find_folder(folder, "MuQ model")
    tokenizer = folder / "tokenizer"
    if tokenizer.is_dir():
        tokenizer = find_folder(tokenizer, "tokenizer")
    for path in (Path(card), report, folder / METRICS_FILE):
        if not path.is_file():
            raise UserError(
                f"There is no {path}, which goes into the folder: give the folder of a "
                f"finished run of `muq-plugins train`, and the file of its card. "
                f"Other models are written by save_pretrained(layout='transformers')."
            )
    try:
        words = Path(card).read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(
            f"{card} is not text in UTF-8 ({error}): save it as such, a model card is."
        ) from error
    model = load(MuQ.from_pretrained, run, "cpu")
    encoder = model.mods.encoder
    tensors = halved(encoder.state_dict())
    load_strictly(encoder, tensors, run)  # its name and hash are those of what is given

    def write_more(unfinished: Path) -> str:
        if tokenizer.is_dir():
            halves = halved(read_tensors(tokenizer / WEIGHTS))
            save_folder(unfinished / "tokenizer", halves, read_config(tokenizer))
        shutil.copy(folder / METRICS_FILE, unfinished)
        return made_by(folder) + PICTURE.sub("", report.read_text("utf-8")).replace(
            "# ", "## ", 1
        )

    save_transformers(
        out,
        encoder,
        model.trained_on,
        license,
        words,
        remote_code,
        push,
        tensors,
        write_more,
        keep_card=True,
    )
    files = [path for path in Path(out).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    say(f"{out}: {size:.2f} MB. Read {CARD} before you give it away.")
    if push is not None:
        say(push_folder(out, push, private))


def made_by(run: Path) -> str:
    """How a run was made and how it went, for a model card."""
    from muq_plugins.evaluation.run_files import HISTORY_FILE, METRICS_FILE
    from muq_plugins.files import read_json_lines

    history = read_json_lines(run / HISTORY_FILE)
    rows = read_json_lines(run / METRICS_FILE)
    commands = dict.fromkeys(row["command"] for row in history if "command" in row)
    music = [row["data"] for row in history if row.get("data")]
    lines = ["## How it was made", ""]
    if commands:
        lines += ["```bash", *commands, "```", ""]
    if music:
        counts = ", ".join(f"{value} {key}" for key, value in music[-1].items())
        lines += [f"Music: {counts}.", ""]
    seen = [row for row in rows if row.get("kind") == "valid" and "loss" in row]
    if seen:
        names = [name for name in CURVES if name in seen[-1]]
        lines += [
            "| updates | hours heard | " + " | ".join(CURVES[x] for x in names) + " |",
            "|---:" * (2 + len(names)) + "|",
        ]
        places = {round(i * (len(seen) - 1) / 7) for i in range(8)}
        for row in (seen[place] for place in sorted(places)):
            hours = row.get("audio_seconds", 0) / 3600
            values = " | ".join(
                f"{row[name]:.3f}" if name in row else "" for name in names
            )
            lines.append(f"| {row['step']:,} | {hours:.1f} | {values} |")
        lines += ["", "Validation, while it was trained.", ""]
    return "\n".join(lines) + "\n"


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in half precision.

    Statistics, biases and gains stay: they are few, and their ranges are wide.
    """
    return {
        name: tensor.half()
        if tensor.is_floating_point() and tensor.dim() > 1
        else tensor
        for name, tensor in tensors.items()
    }
