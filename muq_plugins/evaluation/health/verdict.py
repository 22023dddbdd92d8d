"""A finding about a run in plain words, and the findings that every stage shares."""

from dataclasses import dataclass
from typing import Literal

from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

NOT_VALIDATED = "there is no validation yet: nothing can be said about unseen clips"


@dataclass(frozen=True)
class Verdict:
    """One finding about a run."""

    level: Literal[
        "good",
        "warning",
        "problem",
        "supported",
        "refuted",
        "undecided",
        "unfinished",
    ]
    message: str  # what was found, with the number, and what to do about it

    def __str__(self):
        return f"{self.level}: {self.message}"


def worst_first(verdicts: list[Verdict]) -> list[Verdict]:
    """Sort verdicts: problems, then warnings, then answers and what is good."""
    order = {"problem": 0, "warning": 1}
    return sorted(verdicts, key=lambda verdict: order.get(verdict.level, 2))


def announce(verdicts: list[Verdict]) -> list[Verdict]:
    """Put verdicts into the log, so that nobody has to open a report to see them."""
    for verdict in verdicts:
        is_bad = verdict.level in ("warning", "problem")
        log = logger.warning if is_bad else logger.info
        log(str(verdict))
    return verdicts


def non_finite_verdicts(rows: list[dict]) -> list[Verdict]:
    """Name the first step at which something was not finite."""
    bad = [row for row in rows if row.get("non_finite")]
    if not bad:
        return []
    first = bad[0]
    again = f", and again in {len(bad) - 1} later rows" if len(bad) > 1 else ""
    return [
        Verdict(
            "problem",
            f"not finite at step {first['step']}: {', '.join(first['non_finite'])}"
            f"{again}. Look at the gradient norm before that step; lower the learning "
            "rate, lengthen the warm-up, or train in fp32.",
        )
    ]


def finite_list(row: dict, key: str) -> list[float]:
    """One number per codebook or level of a row."""
    values = row.get(key) or []
    return [] if any(value is None for value in values) else list(values)


def name_codebooks(positions: list[int]) -> str:
    """Name codebooks for a person, who counts from 1."""
    names = [str(position + 1) for position in positions]
    if len(names) == 1:
        return f"codebook {names[0]}"
    return f"codebooks {', '.join(names[:-1])} and {names[-1]}"
