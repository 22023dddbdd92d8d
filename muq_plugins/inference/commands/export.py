"""``muq-plugins export``: a model for other runtimes."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from muq_plugins.inference.commands.options import MUQ_MODELS, CommandError

DESCRIPTION = """\
Writes a model as an ONNX file: waveforms in, hidden states out, at any length. The
log-mel spectrogram is part of it."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what the sub-command takes."""
    parser.add_argument("model", metavar="MODEL", help=MUQ_MODELS)
    parser.add_argument("path", metavar="OUT", help="the file to write, *.onnx")
    parser.add_argument("--format", choices=("onnx",), default="onnx")
    parser.add_argument(
        "--hidden-states",
        choices=("last", "all"),
        default="last",
        help="what comes out (default: %(default)s)",
    )
    parser.add_argument(
        "--wav-lens",
        action="store_true",
        help="a second input for relative lengths of padded clips",
    )
    parser.add_argument(
        "--opset",
        type=int,
        default=18,
        help="version of the ONNX operators (default: %(default)s)",
    )


def run(arguments: Namespace) -> int:
    """Exports a model."""
    from muq_plugins.inference.commands.embed import load_model

    model = load_model(arguments.model, "cpu")
    from muq_plugins.inference.export import export_onnx

    try:
        path = export_onnx(
            model,
            arguments.path,
            hidden_states=arguments.hidden_states,
            wav_lens=arguments.wav_lens,
            opset=arguments.opset,
        )
    except (ImportError, OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    files = [file for file in (path, Path(f"{path}.data")) if file.exists()]
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{' and '.join(map(str, files))}: {size:.1f} MB", file=sys.stderr)
    return 0
