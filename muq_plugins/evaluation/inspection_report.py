"""The report of a tokenizer on any audio, from what `inspect_tokenizer` has written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muq_plugins.evaluation import sections
from muq_plugins.evaluation.facts import usage_fact
from muq_plugins.evaluation.health import announce, tokenizer_verdicts
from muq_plugins.evaluation.inspection import INSPECTION_FILE
from muq_plugins.evaluation.report import Fact, Section, number, write_report
from muq_plugins.evaluation.run_files import FIGURES_FOLDER, load_diagnostics

HERE, THERE = "this audio", "test part of its own training"


def inspection_report(
    folder: str | Path,
    subtitle: str = "",
    own: dict[str, Any] | None = None,
    frame_rate: float = 100.0,
) -> Path:
    """Write the report of an inspection."""
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
    """The numbers that matter, for the top of the report and the terminal."""
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
