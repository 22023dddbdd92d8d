"""``muq-plugins release``: a finished run as a folder that others can be given."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muq_plugins.errors import UserError
from muq_plugins.inference.cli import options
from muq_plugins.inference.cli.options import say

if TYPE_CHECKING:
    from torch import Tensor

CARD = "README.md"
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
            help="Markdown that the model card begins with: what it is, its licence",
        ),
    ],
    out: options.Out,
) -> None:
    """A finished run as a folder to give away, at half its size.

    --out is the folder. It holds the encoder, and the tokenizer that the run has
    trained, with weights in float16, which are computed with in float32 again; the log
    of the training (metrics.jsonl); and a model card (README.md): what --card says,
    hashes of the weights, and the report of the run.
    """
    options.check_installation()
    from muq_plugins.evaluation.page import MARKDOWN_FILE
    from muq_plugins.evaluation.run_files import METRICS_FILE
    from muq_plugins.inference.folders import (
        WEIGHTS,
        find_folder,
        read_config,
        read_tensors,
        save_folder,
    )

    folder, report = Path(run), Path(run, MARKDOWN_FILE)
    parts = {".": find_folder(folder, "MuQ model")}
    if (folder / "tokenizer").is_dir():
        parts["tokenizer"] = find_folder(folder / "tokenizer", "tokenizer")
    for path in (Path(card), report, folder / METRICS_FILE):
        if not path.is_file():
            raise UserError(f"There is no {path}, which goes into the folder.")

    def save(part: str, where: Path, write_more=None) -> None:
        tensors = halved(read_tensors(parts[part] / WEIGHTS))
        config = read_config(parts[part])
        save_folder(where, tensors, config, write_more=write_more)

    def write_more(unfinished: Path) -> None:
        for part in parts.keys() - {"."}:
            save(part, unfinished / part)
        shutil.copy(folder / METRICS_FILE, unfinished)
        files = [str(Path(part, WEIGHTS)) for part in parts]
        text = write_card(
            Path(card).read_text(encoding="utf-8"),
            {name: unfinished / name for name in files},
            report.read_text(encoding="utf-8"),
        )
        (unfinished / CARD).write_text(text, encoding="utf-8")

    save(".", Path(out), write_more)
    files = [path for path in Path(out).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    say(f"{out}: {size:.2f} MB. Read {CARD} before you give it away.")


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


def write_card(words: str, weights: dict[str, Path], report: str) -> str:
    """The model card: words of a person, hashes, and the report without pictures."""
    lines = ["| file | bytes | SHA-256 |", "|---|---:|---|"]
    for name, path in weights.items():
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        lines.append(f"| `{name}` | {len(content):,} | `{digest}` |")
    report = PICTURE.sub("", report).replace("# ", "## ", 1)
    return "\n".join([words.rstrip(), "", "## Files", "", *lines, "", report])
