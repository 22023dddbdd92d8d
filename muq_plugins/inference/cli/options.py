"""Each option of the command line once, by the same name everywhere.

And what several commands do with them: a device, a model, a list of what went wrong.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from muq_plugins.errors import UserError, given_by_user, shown

if TYPE_CHECKING:
    from muq_plugins.inference.muq import MuQ

ALL_LAYERS = "all"
MUQ_MODELS = (
    "small, which comes with the package, a run folder, a folder in the layout of the "
    "official package, or an id on the Hugging Face hub, such as "
    "OpenMuQ/MuQ-large-msd-iter"
)
MULAN_MODELS = (
    "a run folder of train_mulan.py, a folder in the layout of the official package, "
    "or an id on the Hugging Face hub, such as OpenMuQ/MuQ-MuLan-large"
)
TOKENIZERS = (
    "small, which comes with the package, the folder of a tokenizer run, or the "
    "tokenizer file that the authors of MuQ publish"
)
AUDIO_FILES = (
    "an audio file, a folder (searched to its depths), or a quoted glob pattern such "
    "as 'music/**/*.flac'"
)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds < float("inf"):
        raise typer.BadParameter(
            f"must be a number of seconds, at least 1, got {text!r}"
        )
    return seconds


MuQModel = Annotated[str, typer.Argument(metavar="MODEL", help=MUQ_MODELS)]
Tokenizer = Annotated[str, typer.Argument(metavar="TOKENIZER", help=TOKENIZERS)]
Inputs = Annotated[list[str], typer.Argument(metavar="INPUT", help=AUDIO_FILES)]
Out = Annotated[str, typer.Option(metavar="PATH", help="where the result goes")]
Format = Annotated[
    Literal["npz", "safetensors", "parquet"], typer.Option(help="of the outputs")
]
BatchSeconds = Annotated[
    float,
    typer.Option(
        metavar="S",
        parser=_seconds,
        help="seconds of audio in one batch, padding included; longer files are "
        "streamed in windows",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="make again what is there already, instead of going on"
    ),
]
Layer = Annotated[
    str,
    typer.Option(
        metavar="N",
        help='hidden state: 0 is the front end, -1 the last; several as 3,6,-1; "all"',
    ),
]
Loudness = Annotated[
    float | None,
    typer.Option(
        metavar="LUFS",
        help="bring every file to this loudness first (ITU-R BS.1770), such as -16, by "
        "30 dB at most; vectors depend on the level (default: leave files as they are; "
        "of an index: as it was made)",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda:0, mps, ... (default: a GPU if there is one, else the CPU)",
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    typer.Option(
        help="what the model computes in; auto: bfloat16 on a CUDA GPU that supports "
        "it, else float32; int8: faster on a CPU, vectors in a space of their own "
        "(outputs are float32 always)"
    ),
]
Index = Annotated[
    str,
    typer.Option(metavar="INDEX", help="the folder that `muq-plugins index` has made"),
]
IndexModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="where the model of the index is now, if it has moved since",
    ),
]
MuLanModel = Annotated[str, typer.Option("--model", help=MULAN_MODELS)]
Top = Annotated[int, typer.Option(metavar="N", min=1, help="how many")]
Json = Annotated[bool, typer.Option("--json", help="print JSON, not a table")]


def parse_layers(text: str) -> tuple[int, ...] | str:
    """Reads --layer: an index, several with commas, or "all"."""
    if text == ALL_LAYERS:
        return ALL_LAYERS
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(
            f"--layer must be an index, several such as 3,6,-1, or "
            f'"{ALL_LAYERS}", got {text!r}'
        ) from error


def check_installation() -> None:
    """Says in one line what `doctor` explains, instead of a traceback."""
    try:
        import_module("speechbrain")  # which imports torch and torchaudio
    except Exception as error:  # a broken package can raise anything
        raise UserError(
            f"{error}\nRun `muq-plugins doctor`, which says what to install."
        ) from error


def pick_device(name: str | None) -> str:
    """Checks --device, or chooses one; CUDA devices come with their index."""
    check_installation()
    import torch

    from muq_plugins.inference import models

    device = torch.device(models.pick_device(name))
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device {device}: only cpu, cuda and mps are supported.")
    return f"cuda:{device.index or 0}" if device.type == "cuda" else device.type


def load(from_pretrained: Any, source: str, device: str) -> Any:
    """Loads what a command uses: the one place where a wrong folder is a user's."""
    with given_by_user():
        return from_pretrained(source, device)


def load_encoder(source: str, device: str, dtype: str | None) -> MuQ:
    """An encoder, with its linear maps in 8 bits if a command was asked for that."""
    from muq_plugins.inference.muq import MuQ
    from muq_plugins.inference.space import INT8

    model = load(MuQ.from_pretrained, source, device)
    return model.int8() if dtype == INT8 else model


def say(words: str) -> None:
    """Tells a person, not the program that reads what comes out."""
    print(shown(words), file=sys.stderr)


def report_problems(title: str, problems: list[str], processes: int = 1) -> int:
    """Lists what could not be used; the code that the command ends with.

    Of several processes that may still be at work, torchrun ends all when one has
    another code than 0.
    """
    if problems:
        say("\n  ".join([title, *problems]))
    return 1 if problems and processes == 1 else 0


def count_files(count: int) -> str:
    """Such as "1 file" and "2 files"."""
    return f"{count} file{'s' * (count != 1)}"
