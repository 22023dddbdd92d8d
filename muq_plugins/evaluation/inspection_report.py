"""The report of a tokenizer on any audio, from what `inspect_tokenizer` has written.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muq_plugins.evaluation import sections
from muq_plugins.evaluation.facts import usage_fact
from muq_plugins.evaluation.health import announce, tokenizer_verdicts
from muq_plugins.evaluation.inspection import INSPECTION_FILE
from muq_plugins.evaluation.report import Fact, Section, number, write_report
from muq_plugins.evaluation.run_folder import FIGURES_FOLDER, load_diagnostics

HERE, THERE = "this audio", "test part of its own training"


def inspection_report(
    folder: str | Path,
    subtitle: str = "",
    own: dict[str, Any] | None = None,
    frame_rate: float = 100.0,
) -> Path:
    """Write the report of an inspection.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder with ``inspection.json`` and ``diagnostics.npz``.
    subtitle : str
        Which tokenizer, and what it has heard.
    own : dict or None
        What `own_test` gives, to compare with.
    frame_rate : float
        Of the spectrogram, in Hz.

    Returns
    -------
    pathlib.Path
        The HTML page, ``report.html`` in the folder.

    Raises
    ------
    FileNotFoundError
        If nothing was inspected.

    Example
    -------
    >>> import numpy, soundfile
    >>> from muq_plugins.evaluation.inspection import inspect_tokenizer
    >>> from muq_plugins.evaluation.probing.clips import Clip
    >>> from muq_plugins.lobes import LogMel, ResidualVQ, StackedFrames, Target
    >>> folder = getfixture("tmp_path")
    >>> wav = numpy.random.default_rng(0).normal(0, 0.1, 24000)
    >>> soundfile.write(folder / "a.wav", wav, 24000)
    >>> target = Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 16))
    >>> _ = inspect_tokenizer(target, [Clip("a", str(folder / "a.wav"), 1.0)], folder)
    >>> inspection_report(folder).name
    'report.html'
    """
    folder = Path(folder)
    path = folder / INSPECTION_FILE
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: nothing was inspected.")
    found = json.loads(path.read_text(encoding="utf-8"))
    diagnostics = load_diagnostics(folder)
    # What tells whether a training went well tells whether the codes suit this audio.
    row = {"stage": "tokenizer", "kind": "valid", "step": 0, **found}
    row = {name: value for name, value in row.items() if value is not None}
    return write_report(
        folder,
        "Tokenizer on any audio",
        inspection_facts(found),
        announce(tokenizer_verdicts([row], diagnostics["code_counts"])),
        [
            *_levels(found, own, diagnostics, folder / FIGURES_FOLDER, frame_rate),
            sections.codes_section(
                diagnostics["code_counts"], folder / FIGURES_FOLDER, HERE
            ),
            *_skipped(found),
        ],
        subtitle=subtitle,
    )


def inspection_facts(found: dict[str, Any]) -> list[Fact]:
    """The numbers that matter, for the top of the report and the terminal.

    Arguments
    ---------
    found : dict
        What `inspect_tokenizer` gives.

    Returns
    -------
    list of Fact
        Reconstruction error, use of the codes, and what was heard.

    Example
    -------
    >>> found = {"usage": [0.5], "perplexity": [2.0], "num_codebooks": 1}
    >>> found |= {"codebook_size": 4, "clips": 3, "seconds": 9.0, "frames": 225}
    >>> found["reconstruction_error_per_level"] = [0.8, 0.5, 0.4]
    >>> print(*inspection_facts(found)[1:], sep="\\n")
    code usage 50% (1 x 4 codes, perplexity 2)
    heard 3 clips (0.1 minutes, 225 frames)
    """
    facts = []
    if errors := found["reconstruction_error_per_level"]:
        facts.append(
            Fact(
                "Reconstruction error",
                number(errors[-1]),
                f"{number(errors[0])} with nothing decoded, {number(errors[1])} from "
                "the first codebook alone",
            )
        )
    size = (found["num_codebooks"], found["codebook_size"])
    facts.append(usage_fact(found["usage"], found["perplexity"], size))
    minutes = f"{found['seconds'] / 60:.1f} minutes, {found['frames']:,} frames"
    return [*facts, Fact("Heard", f"{found['clips']} clips", minutes)]


def _levels(found, own, diagnostics, folder, frame_rate) -> list[Section]:
    if found["reconstruction_error_per_level"] is None:
        return []
    errors = {HERE: found["reconstruction_error_per_level"]}
    if own is not None and own["reconstruction_error_per_level"]:
        errors[THERE] = own["reconstruction_error_per_level"]
    return [sections.decoding_section(errors, diagnostics, folder, frame_rate)]


def _skipped(found: dict) -> list[Section]:
    if not found["skipped"]:
        return []
    return [Section("What was left out", "\n\n".join(found["skipped"]))]
