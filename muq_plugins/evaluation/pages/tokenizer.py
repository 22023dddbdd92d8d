"""Has the tokenizer learned codes that are worth predicting? Of a run, on any audio."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from muq_plugins.evaluation.figures.lines import Panel, level_lines, line_charts
from muq_plugins.evaluation.figures.values import spectrograms
from muq_plugins.evaluation.inspection import INSPECTION_FILE
from muq_plugins.evaluation.page import (
    Fact,
    Page,
    Part,
    Verdict,
    number,
    write_page,
)
from muq_plugins.evaluation.pages.run import (
    CODES,
    OPTIMISATION,
    Counted,
    Run,
    code_use,
    curves,
    finite_list,
    judgeable,
    music,
    name_codebooks,
    training_time,
    usage_fact,
)
from muq_plugins.evaluation.run_files import load_diagnostics, select
from muq_plugins.files import read_json
from muq_plugins.lobes.stages import TokenizerTraining

TEMPLATE = "tokenizer.md.j2"
# Below a tenth of its codes, or an effective number of codes (perplexity) below a
# twentieth, a codebook carries next to no information: at V = 256 that is 13 codes.
COLLAPSED_USAGE = 0.10
COLLAPSED_PERPLEXITY = 0.05
# What this project asks of a finished tokenizer in every codebook, on unseen clips.
HEALTHY_USAGE = 0.60
# A codebook that takes away less than this share of the undecoded error is one that
# could be left out.
MIN_ERROR_FALL = 0.001
# With this many frames per code all but exp(-10) of evenly used codes turn up; with
# fewer, low usage may be the fault of the small sample.
FRAMES_PER_CODE = 10
ERRORS = "reconstruction_error_per_level"
HERE, THERE = "this audio", "test part of its own training"


def sample_size(counts: np.ndarray | None) -> Iterator[Verdict]:
    """Whether enough frames were counted to say which codes are never used."""
    if counts is None:
        return
    frames, needed = int(counts.sum(1).min()), FRAMES_PER_CODE * counts.shape[1]
    if frames < needed:
        yield Verdict(
            "warning",
            f"only {frames} frames were counted for {counts.shape[1]} codes: low usage "
            "may be the fault of the small sample. Use more or longer unseen clips, or "
            f"more windows of them: at least {needed} frames.",
        )


def use_of_codes(
    row: Mapping[str, Any], counts: np.ndarray | None
) -> Iterator[Verdict]:
    """Whether every codebook uses its codes."""
    size = _codebook_size(row) if counts is None else counts.shape[1]
    there = 1.0  # share of evenly used codes that turn up in so small a sample
    if counts is not None:
        there = 1 - math.exp(-int(counts.sum(1).min()) / size)
    usage = finite_list(row, "usage")
    perplexity = finite_list(row, "perplexity") or [math.inf] * len(usage)
    all_used = bool(usage)
    for index, (used, effective) in enumerate(zip(usage, perplexity, strict=True)):
        name = name_codebooks([index])
        few = effective < COLLAPSED_PERPLEXITY * size * there
        all_used = all_used and not few and used >= HEALTHY_USAGE * there
        if few or used < COLLAPSED_USAGE * there:
            yield Verdict(
                "problem",
                f"{name} collapsed: {used:.1%} of its codes are used, perplexity "
                f"{effective:.1f}. Check the feature statistics (such as mean and std "
                "of a log-mel) and how the quantizer was trained.",
            )
        elif used < HEALTHY_USAGE * there:
            yield Verdict(
                "warning",
                f"{name} uses {used:.1%} of its codes, less than {HEALTHY_USAGE:.0%}. "
                "Train longer, or on more varied music.",
            )
    if all_used:
        words = f"every codebook uses at least {min(usage):.1%} of its codes"
        yield Verdict("good", words)


def gain_of_codebooks(row: Mapping[str, Any]) -> Iterator[Verdict]:
    """What each codebook adds, whether residual or side by side with the others."""
    errors = finite_list(row, ERRORS)
    gains = -np.diff(errors)
    idle = np.flatnonzero(gains < MIN_ERROR_FALL * errors[0]) if errors else []
    for before in idle:
        yield Verdict(
            "warning",
            f"codebook {before + 1} does not lower the reconstruction error "
            f"({errors[before]:.4f} before it, {errors[before + 1]:.4f} after). Train "
            "longer, or use fewer codebooks.",
        )
    if errors and not len(idle):
        yield Verdict(
            "good",
            f"the reconstruction error falls with every codebook, from {errors[0]:.3f} "
            f"with nothing decoded to {errors[-1]:.3f} with all of them",
        )


def judged(run: Run) -> Iterator[Verdict]:
    """Sample, use and gain of the codes of a run."""
    if run.valid:
        yield from sample_size(run.code_counts)
        yield from use_of_codes(run.final, run.code_counts if run.test else None)
        yield from gain_of_codebooks(run.final)


def earlier_verdicts(run: Run) -> Iterator[Verdict]:
    """What is to be known of the tokenizers that another stage stands on."""
    for tokenizer in run.earlier:
        for verdict in TOKENIZER.verdicts_of(tokenizer):
            name = "tokenizer" if len(run.earlier) == 1 else tokenizer.name
            yield verdict._replace(message=f"{name}: {verdict.message}")


def error_fact(errors: list[float | None] | None, part: str = "") -> Iterator[Fact]:
    """What the codes lose of the features."""
    if errors:
        first = f"{number(errors[1])} from the first codebook alone"
        note = f"{part}{number(errors[0])} with nothing decoded, {first}"
        yield Fact("Reconstruction error", number(errors[-1]), note)


class Levels(NamedTuple):
    """Errors after 0..N codebooks, by what they were measured on, and an example."""

    errors: dict[str, list[float]]
    arrays: dict[str, np.ndarray]
    frame_rate: float = 100.0
    compared: bool = False  # with other audio, rather than with the first validation
    name: str = ""  # of one tokenizer of several

    @property
    def decoded(self) -> dict[str, np.ndarray]:
        """Reconstructions of the example, by what they were decoded from."""
        if "reconstructions" not in self.arrays:
            return {}
        levels = self.arrays["reconstruction_levels"].tolist()
        names = [f"{level} codebook{'s' if level > 1 else ''}" for level in levels]
        return dict(zip(names, self.arrays["reconstructions"], strict=True))


def _levels_figure(levels: Levels, path: Path) -> None:
    panel = Panel(
        "Reconstruction error by number of codebooks decoded",
        level_lines(levels.errors),
        xlabel="codebooks decoded (0: nothing)",
        ylabel="mean |error| of the features",
        legend="lower left",
        from_zero=True,
    )
    line_charts([panel], path, height=3.4)


def _example_figure(levels: Levels, path: Path) -> None:
    mel = levels.arrays["mel"]
    spectrograms(mel, levels.decoded, path, levels.frame_rate)


LEVEL_FIGURES = {
    "error_by_level": _levels_figure,
    "mel_reconstruction": _example_figure,
}


def run_levels(run: Run, name: str = "") -> list[Levels]:
    """The levels of a run that was validated: its last and its first validation."""
    if not run.valid.get(ERRORS):
        return []
    rows = [row for row in select(run.rows, kind="valid") if row.get(ERRORS)]
    errors = {f"last validation, step {rows[-1]['step']}": rows[-1][ERRORS]}
    if len(rows) > 1:
        errors[f"first validation, step {rows[0]['step']}"] = rows[0][ERRORS]
    return [Levels(errors, run.arrays, name=name)]


def earlier_levels(run: Run) -> list[Levels]:
    """The levels of all tokenizers that a pre-training stands on."""
    several = len(run.earlier) > 1
    named = [(it, it.name if several else "") for it in run.earlier]
    return [levels for it, name in named for levels in run_levels(it, name)]


LEVELS = Part("levels", LEVEL_FIGURES, each=run_levels, template=TEMPLATE)

LOSS = {
    "tokenizer_loss": curves(
        *TokenizerTraining.measures, height=3, legend="upper right"
    )
}
TOKENIZER = Page(
    title="Tokenizer training",
    template=TEMPLATE,
    facts=(
        lambda run: error_fact(run.final.get(ERRORS), f"{run.part}; "),
        code_use,
        music,
        training_time,
    ),
    verdicts=(judgeable, judged),
    parts=(Part("loss", LOSS), LEVELS, CODES, OPTIMISATION),
)


class Inspection(NamedTuple):
    """What `inspect_tokenizer` has found, and errors on the run's own test part."""

    found: dict[str, Any]
    arrays: dict[str, np.ndarray]
    own: Sequence[float] = ()
    frame_rate: float = 100.0

    @property
    def levels(self) -> list[Levels]:
        """Errors here and there, if codes can be decoded."""
        if not self.found[ERRORS]:
            return []
        errors = {HERE: self.found[ERRORS]}
        if self.own:
            errors[THERE] = self.own
        return [Levels(errors, self.arrays, self.frame_rate, compared=True)]


def inspection_facts(found: dict[str, Any]) -> list[Fact]:
    """The numbers that matter, for the top of the report and the terminal."""
    size = (found["num_codebooks"], found["codebook_size"])
    minutes = f"{found['seconds'] / 60:.1f} minutes, {found['frames']:,} frames"
    return [
        *error_fact(found[ERRORS]),
        usage_fact(found["usage"], found["perplexity"], size),
        Fact("Heard", f"{found['clips']} clips", minutes),
    ]


# What tells whether a training went well tells whether the codes suit other audio.
INSPECTION = Page(
    title="Tokenizer on any audio",
    template=TEMPLATE,
    facts=(lambda it: inspection_facts(it.found),),
    verdicts=(
        lambda it: sample_size(it.arrays["code_counts"]),
        lambda it: use_of_codes(it.found, it.arrays["code_counts"]),
        lambda it: gain_of_codebooks(it.found),
    ),
    parts=(
        Part("levels", LEVEL_FIGURES, each=lambda it: it.levels),
        CODES._replace(each=lambda it: [Counted(it.arrays["code_counts"], HERE)]),
        Part("skipped", each=lambda it: list(filter(None, [it.found["skipped"]]))),
    ),
)


def inspection_report(
    folder: str | Path,
    subtitle: str = "",
    own: Sequence[float] = (),
    frame_rate: float = 100.0,
) -> Path:
    """Write the report of an inspection, from what `inspect_tokenizer` has written."""
    path = Path(folder) / INSPECTION_FILE
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: nothing was inspected.")
    found = read_json(path, "inspect the tokenizer again")
    subject = Inspection(found, load_diagnostics(folder), own, frame_rate)
    return write_page(folder, INSPECTION, subject, subtitle, settings="")


def _codebook_size(row: Mapping[str, Any]) -> float:
    """V as a row tells it, which holds the dead codes and the share of the others."""
    for used, dead in zip(
        finite_list(row, "usage"), finite_list(row, "dead_codes"), strict=False
    ):
        if dead:
            return dead / (1 - used)
    return 0.0  # no dead code anywhere, so V is unknown and perplexity not judged
