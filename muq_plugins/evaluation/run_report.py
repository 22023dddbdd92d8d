"""The report of a run, made from the files in its folder and nothing else.

So a report can be made again at any time: after the run, on another machine, or with a
newer version of the figures.
"""

from pathlib import Path

import numpy as np

from muq_plugins.evaluation import sections
from muq_plugins.evaluation.facts import mulan_facts, pretrain_facts, tokenizer_facts
from muq_plugins.evaluation.health import (
    Verdict,
    announce,
    mulan_verdicts,
    pretrain_verdicts,
    probe_verdicts,
    tokenizer_verdicts,
    worst_first,
)
from muq_plugins.evaluation.probe_result import load_probe
from muq_plugins.evaluation.report import Section, write_report
from muq_plugins.evaluation.run_files import (
    FIGURES_FOLDER,
    HYPERPARAMETERS_FILE,
    METRICS_FILE,
    is_validated,
    load_diagnostics,
    read_metrics,
    select,
)
from muq_plugins.evaluation.zero_shot.scores import load_scores


def tokenizer_report(run_folder: str | Path) -> Path:
    """Write the report of a tokenizer's training."""
    run_folder = Path(run_folder)
    rows = _rows(run_folder, "tokenizer")
    diagnostics = load_diagnostics(run_folder)
    code_counts = diagnostics.get("code_counts")
    figures = run_folder / FIGURES_FOLDER
    return write_report(
        run_folder,
        "Tokenizer training",
        tokenizer_facts(rows, code_counts),
        announce(tokenizer_verdicts(rows, code_counts)),
        [
            sections.tokenizer_loss_section(rows, figures),
            *_levels(rows, diagnostics, figures),
            *_codes(code_counts, figures),
            sections.optimisation_section(rows, figures),
        ],
        _hyperparameters(run_folder),
        _name(run_folder),
    )


def pretrain_report(
    run_folder: str | Path, tokenizer_folder: str | Path | None = None
) -> Path:
    """Write the report of a pre-training."""
    run_folder = Path(run_folder)
    rows = _rows(run_folder, "pretrain")
    code_counts = load_diagnostics(run_folder).get("code_counts")
    probe = load_probe(run_folder)
    figures = run_folder / FIGURES_FOLDER
    verdicts = pretrain_verdicts(rows, code_counts) + probe_verdicts(probe)
    parts = [sections.cross_entropy_section(rows, figures)]
    if is_validated(rows, "accuracy_per_codebook"):
        parts.append(sections.prediction_section(rows, code_counts, figures))
    if probe:
        parts += sections.probe_sections(probe, figures)
    parts += _codes(code_counts, figures)
    if tokenizer_folder and (Path(tokenizer_folder) / METRICS_FILE).is_file():
        tokenizer_rows = _rows(Path(tokenizer_folder), "tokenizer")
        tokenizer = load_diagnostics(tokenizer_folder)
        parts += _levels(tokenizer_rows, tokenizer, figures)
        verdicts += [
            Verdict(verdict.level, f"tokenizer: {verdict.message}")
            for verdict in tokenizer_verdicts(
                tokenizer_rows, tokenizer.get("code_counts")
            )
        ]
    parts.append(sections.optimisation_section(rows, figures))
    return write_report(
        run_folder,
        "Pre-training",
        pretrain_facts(rows, code_counts, probe),
        announce(worst_first(verdicts)),
        parts,
        _hyperparameters(run_folder),
        _name(run_folder),
    )


def mulan_report(run_folder: str | Path) -> Path:
    """Write the report of a training of two towers."""
    run_folder = Path(run_folder)
    rows, scores = _rows(run_folder, "mulan"), load_scores(run_folder)
    figures = run_folder / FIGURES_FOLDER
    parts = [sections.contrastive_section(rows, figures)]
    if scores:
        parts = [sections.retrieval_section(scores), *parts]
        parts += sections.tagging_sections(scores)
    parts.append(sections.optimisation_section(rows, figures))
    return write_report(
        run_folder,
        "Music and text",
        mulan_facts(rows, scores),
        announce(mulan_verdicts(rows, scores)),
        parts,
        _hyperparameters(run_folder),
        _name(run_folder),
    )


def headline(run_folder: str | Path) -> list[str]:
    """The lines that matter, for the terminal at the end of a run."""
    run_folder = Path(run_folder)
    rows = read_metrics(run_folder / METRICS_FILE)
    code_counts = load_diagnostics(run_folder).get("code_counts")
    if mulan_rows := select(rows, stage="mulan"):
        facts = mulan_facts(mulan_rows, load_scores(run_folder))
    elif pretrain_rows := select(rows, stage="pretrain"):
        facts = pretrain_facts(pretrain_rows, code_counts, [])
    else:
        facts = tokenizer_facts(select(rows, stage="tokenizer"), code_counts)
    return [str(fact) for fact in facts[:3]]


def _levels(rows: list[dict], diagnostics: dict, figures: Path) -> list[Section]:
    if not is_validated(rows, "reconstruction_error_per_level"):
        return []
    return [sections.levels_section(rows, diagnostics, figures)]


def _codes(code_counts: np.ndarray | None, figures: Path) -> list[Section]:
    return [] if code_counts is None else [sections.codes_section(code_counts, figures)]


def _rows(run_folder: Path, stage: str) -> list[dict]:
    path = run_folder / METRICS_FILE
    rows = select(read_metrics(path), stage=stage)
    if not rows:
        raise ValueError(f"{path} has no rows of the {stage} stage to report on")
    return rows


def _hyperparameters(run_folder: Path) -> str:
    path = run_folder / HYPERPARAMETERS_FILE
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _name(run_folder: Path) -> str:
    """The experiment and the seed: the last two folders of its path."""
    return "/".join(run_folder.resolve().parts[-2:])
