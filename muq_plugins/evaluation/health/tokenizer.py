"""Has the tokenizer learned codes that are worth predicting?"""

import math

import numpy as np
import torch

from muq_plugins.evaluation.health.verdict import (
    NOT_VALIDATED,
    Verdict,
    finite_list,
    name_codebooks,
    non_finite_verdicts,
    worst_first,
)
from muq_plugins.evaluation.run_files import select

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


def tokenizer_verdicts(
    rows: list[dict], code_counts: torch.Tensor | np.ndarray | None = None
) -> list[Verdict]:
    """Judge the training of a tokenizer."""
    rows = select(rows, stage="tokenizer")
    verdicts = non_finite_verdicts(rows)
    valid = select(rows, kind="valid")
    if not valid:
        return [*verdicts, Verdict("warning", NOT_VALIDATED)]
    size = _codebook_size(valid[-1])
    if code_counts is not None:
        size = code_counts.shape[1]
        verdicts += _sample_verdicts(int(code_counts.sum(1).min()), size)
    verdicts += _usage_verdicts(valid[-1], size)
    verdicts += _error_verdicts(
        finite_list(valid[-1], "reconstruction_error_per_level")
    )
    return worst_first(verdicts)


def _codebook_size(row: dict) -> float:
    """V as a row tells it, which holds the dead codes and the share of the others."""
    for used, dead in zip(
        finite_list(row, "usage"), finite_list(row, "dead_codes"), strict=False
    ):
        if dead:
            return dead / (1 - used)
    return 0.0  # no dead code anywhere, so V is unknown and perplexity not judged


def _sample_verdicts(frames: int, size: int) -> list[Verdict]:
    needed = FRAMES_PER_CODE * size
    if frames >= needed:
        return []
    return [
        Verdict(
            "warning",
            f"only {frames} frames were counted for {size} codes: low usage may be the "
            f"fault of the small sample. Validate on at least {needed} frames.",
        )
    ]


def _usage_verdicts(row: dict, size: float) -> list[Verdict]:
    usage = finite_list(row, "usage")
    perplexity = finite_list(row, "perplexity") or [math.inf] * len(usage)
    verdicts = []
    for index, (used, effective) in enumerate(zip(usage, perplexity, strict=True)):
        if used < COLLAPSED_USAGE or effective < COLLAPSED_PERPLEXITY * size:
            verdicts.append(
                Verdict(
                    "problem",
                    f"{name_codebooks([index])} collapsed: {used:.1%} of its codes are "
                    f"used, perplexity {effective:.1f}. Check the feature statistics "
                    "(such as mean and std of a log-mel), the replacement of unused "
                    "codes and the learning rate.",
                )
            )
        elif used < HEALTHY_USAGE:
            verdicts.append(
                Verdict(
                    "warning",
                    f"{name_codebooks([index])} uses {used:.1%} of its codes, less "
                    f"than {HEALTHY_USAGE:.0%}. Train longer, or on more varied music.",
                )
            )
    if usage and not verdicts:
        verdicts.append(
            Verdict(
                "good", f"every codebook uses at least {min(usage):.1%} of its codes"
            )
        )
    return verdicts


def _error_verdicts(errors: list[float]) -> list[Verdict]:
    """What each codebook adds, whether residual or side by side with the others."""
    verdicts = []
    for codebook in range(1, len(errors)):
        before, after = errors[codebook - 1], errors[codebook]
        if before - after < MIN_ERROR_FALL * errors[0]:
            verdicts.append(
                Verdict(
                    "warning",
                    f"codebook {codebook} does not lower the reconstruction error "
                    f"({before:.4f} before it, {after:.4f} after). Train longer, or "
                    "use fewer codebooks.",
                )
            )
    if errors and not verdicts:
        verdicts.append(
            Verdict(
                "good",
                f"the reconstruction error falls with every codebook, from "
                f"{errors[0]:.3f} with nothing decoded to {errors[-1]:.3f} with all of "
                f"them",
            )
        )
    return verdicts
