"""Options that sub-commands share, and the error that ends a command."""

from __future__ import annotations

import argparse
from importlib import import_module

FORMATS = ("npz", "safetensors", "parquet")
DTYPES = ("auto", "float32", "bfloat16")
MUQ_MODELS = (
    "a run folder, a folder in the layout of the official package, or an id on the "
    "Hugging Face hub, such as OpenMuQ/MuQ-large-msd-iter"
)


class CommandError(Exception):
    """What ends a command; its message is all that the user sees."""

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code


def add_file_arguments(parser: argparse.ArgumentParser, model: str) -> None:
    """Adds what every sub-command takes that makes one output for each audio file."""
    parser.add_argument("model", metavar="MODEL", help=model)
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="an audio file, a folder (searched to its depths), or a quoted glob "
        "pattern such as 'music/**/*.flac'",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        required=True,
        help="where the outputs go: one a file, in the same tree, named "
        "<file name>.<format>",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="of the outputs (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-seconds",
        metavar="S",
        type=parse_batch_seconds,
        default=60.0,
        help="seconds of audio in one batch, padding included; longer files are "
        "streamed in windows (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="make again what is there already, instead of going on",
    )
    add_device_argument(parser)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --device."""
    parser.add_argument(
        "--device", help="cpu, cuda:0, mps, ... (default: a CUDA GPU if there is one)"
    )


def add_dtype_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --dtype."""
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="what the model computes in; auto: bfloat16 on a CUDA GPU that supports "
        "it, else float32 (outputs are float32 always)",
    )


def parse_batch_seconds(text: str) -> float:
    """Reads --batch-seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds, at least 1, got {text!r}"
        )
    return seconds


def check_installation() -> None:
    """Says in one line what `doctor` explains, instead of a traceback."""
    try:
        import_module("speechbrain")  # which imports torch and torchaudio
    except Exception as error:  # a broken package can raise anything
        raise CommandError(
            f"{error}\nRun `muq-plugins doctor`, which says what to install.", code=1
        ) from error
