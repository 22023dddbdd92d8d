"""A finding about a run in plain words, and the findings that every stage shares.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from dataclasses import dataclass
from typing import Literal

from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

NOT_VALIDATED = "there is no validation yet: nothing can be said about unseen clips"


@dataclass(frozen=True)
class Verdict:
    """One finding about a run.

    Arguments
    ---------
    level : str
        "good", "warning" (worth a look) or "problem" (the result is not usable); or
        the answer to a question, which is neither good nor bad: "supported",
        "refuted", "undecided" or "unfinished".
    message : str
        What was found, with the number, and what to do about it.

    Example
    -------
    >>> print(Verdict("warning", "codebook 3 uses 41% of its codes"))
    warning: codebook 3 uses 41% of its codes
    """

    level: Literal[
        "good",
        "warning",
        "problem",
        "supported",
        "refuted",
        "undecided",
        "unfinished",
    ]
    message: str

    def __str__(self):
        return f"{self.level}: {self.message}"


def worst_first(verdicts: list[Verdict]) -> list[Verdict]:
    """Sort verdicts: problems, then warnings, then answers and what is good.

    Arguments
    ---------
    verdicts : list of Verdict
        Verdicts in any order.

    Returns
    -------
    list of Verdict
        The same verdicts; those of one level keep their order.

    Example
    -------
    >>> [v.level for v in worst_first([Verdict("good", ""), Verdict("problem", "")])]
    ['problem', 'good']
    """
    order = {"problem": 0, "warning": 1}
    return sorted(verdicts, key=lambda verdict: order.get(verdict.level, 2))


def announce(verdicts: list[Verdict]) -> list[Verdict]:
    """Put verdicts into the log, so that nobody has to open a report to see them.

    Arguments
    ---------
    verdicts : list of Verdict
        Verdicts in any order.

    Returns
    -------
    list of Verdict
        The same verdicts.

    Example
    -------
    >>> len(announce([Verdict("warning", "codebook 3 uses 41% of its codes")]))
    1
    """
    for verdict in verdicts:
        is_bad = verdict.level in ("warning", "problem")
        log = logger.warning if is_bad else logger.info
        log(str(verdict))
    return verdicts


def non_finite_verdicts(rows: list[dict]) -> list[Verdict]:
    """Name the first step at which something was not finite.

    Arguments
    ---------
    rows : list of dict
        Rows of one stage, oldest first.

    Returns
    -------
    list of Verdict
        One problem, or none.

    Example
    -------
    >>> row = {"kind": "train", "step": 7, "loss": None, "non_finite": ["loss"]}
    >>> non_finite_verdicts([row])[0].message[:26]
    'not finite at step 7: loss'
    """
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
    """One number per codebook or level of a row.

    Arguments
    ---------
    row : dict
        A row of `metrics.jsonl`.
    key : str
        Name of a list of numbers.

    Returns
    -------
    list of float
        The list; empty if it is missing or a number in it is not finite.

    Example
    -------
    >>> row = {"usage": [0.9, 0.8], "perplexity": [None, 3.0]}
    >>> finite_list(row, "usage"), finite_list(row, "perplexity")
    ([0.9, 0.8], [])
    """
    values = row.get(key) or []
    return [] if any(value is None for value in values) else list(values)


def name_codebooks(positions: list[int]) -> str:
    """Name codebooks for a person, who counts from 1.

    Arguments
    ---------
    positions : list of int
        Positions counted from 0, at least one.

    Returns
    -------
    str
        "codebook 1" or "codebooks 1, 2 and 3".

    Example
    -------
    >>> name_codebooks([0]), name_codebooks([0, 1, 2])
    ('codebook 1', 'codebooks 1, 2 and 3')
    """
    names = [str(position + 1) for position in positions]
    if len(names) == 1:
        return f"codebook {names[0]}"
    return f"codebooks {', '.join(names[:-1])} and {names[-1]}"
