"""How well the nearest items answer queries: text to music, music to text, or examples.

Ties are settled by the mean over all orders of the items that tie, in closed form
(McSherry and Najork, "Computing information retrieval performance measures efficiently
in the presence of tied scores", ECIR 2008). So a model that gives everything the same
similarity scores exactly chance, whatever the order of the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from muq_plugins.evaluation.intervals import Estimate, draws, interval

RECALL_AT = (1, 5, 10, 100)
DEPTH = 10


class RetrievalScores(NamedTuple):
    """Scores of one direction of retrieval."""

    # share of the queries with a relevant item among the first 1, 5, 10 and 100
    recall_at_1: Estimate
    recall_at_5: Estimate
    recall_at_10: Estimate
    recall_at_100: Estimate
    # mean average precision of the first 10 items; a query counts 1 if they are all
    # relevant, or all that are relevant come first
    map_at_10: Estimate
    mean_average_precision: Estimate  # the same over all items
    # median over the queries of the rank of the first relevant item, from 1
    median_rank: Estimate
    chance: dict[str, float]  # the same numbers if all similarities were equal
    queries: int  # how many were scored
    items: int  # how many could be found
    # rows of the queries that no item is relevant to; they are not scored
    without_answer: list[int]
    # the same numbers of each query, and its "group", which two models pair by
    per_query: dict[str, list]


# Of these, in the order in which `query_scores` gives them.
NAMES = RetrievalScores._fields[: len(RECALL_AT) + 3]


def retrieval_scores(
    similarities: np.ndarray,
    relevant: np.ndarray,
    groups: Sequence | None = None,
) -> RetrievalScores:
    """Recall, median rank and mean average precision, with intervals over groups."""
    near, relevant = np.asarray(similarities, float), np.asarray(relevant, bool)
    bad = ~np.isfinite(near).all(axis=1)
    if bad.any():
        raise ValueError(
            f"Similarities of query {int(bad.argmax())} are not finite numbers: check "
            "the model that made them."
        )
    answerable = relevant.any(axis=1)
    if not answerable.any():
        raise ValueError(
            "No query has a relevant item: nothing can be scored. Check that texts and "
            "recordings are of the same clips."
        )
    rows = np.flatnonzero(answerable)
    found = np.array([query_scores(near[row], relevant[row]) for row in rows])
    same = np.zeros(near.shape[1])
    chance = np.array([query_scores(same, relevant[row]) for row in rows])
    groups = np.arange(len(near)) if groups is None else np.asarray(groups)
    *names, rank = NAMES
    return _scores(
        found,
        {
            **{name: float(chance[:, i].mean()) for i, name in enumerate(names)},
            rank: float(np.median(chance[:, -1])),
        },
        *(groups[rows], near.shape[1], np.flatnonzero(~answerable).tolist()),
    )


def pooled(several: Sequence[RetrievalScores]) -> RetrievalScores:
    """The queries of several at once: the mean of all, if they have as many each.

    Queries of one group are drawn together, whichever of the several they are in.
    """
    if len(several) == 1:
        return several[0]
    queries = [one.queries for one in several]
    by_query = [list(one.per_query.values()) for one in several]
    group, *found = (np.concatenate(column) for column in zip(*by_query, strict=True))
    chance = {
        name: float(np.average([one.chance[name] for one in several], weights=queries))
        for name in NAMES
    }
    items = max(one.items for one in several)
    return _scores(np.stack(found, axis=1), chance, group, items, [])


def _scores(
    found: np.ndarray,
    chance: dict[str, float],
    groups: np.ndarray,
    items: int,
    without_answer: list[int],
) -> RetrievalScores:
    """Means and intervals of what `query_scores` says of each query."""
    weights = draws(groups)
    means = weights @ found / weights.sum(axis=1, keepdims=True)
    names, ranks = NAMES[:-1], found[:, -1]
    by_query = found.round(6).T.tolist()
    return RetrievalScores(
        *(interval(found[:, i].mean(), means[:, i]) for i in range(len(names))),
        interval(np.median(ranks), _weighted_median(ranks, weights)),
        chance,
        len(found),
        items,
        without_answer,
        {
            "group": groups.tolist(),
            **dict(zip([*names, "rank"], by_query, strict=True)),
        },
    )


def query_scores(similarities: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Scores of one query, each the mean over all orders of the items that tie."""
    order = np.argsort(-similarities, kind="stable")
    hits = relevant[order]
    ends = np.append(np.flatnonzero(np.diff(similarities[order])) + 1, len(hits))
    sizes = np.diff(ends, prepend=0)
    totals = hits.cumsum()[ends - 1]
    in_tie = np.diff(totals, prepend=0)
    # Of every position: its tie's start, size and relevant items, and its place in it.
    tie = np.repeat(np.arange(len(ends)), sizes)
    start = (ends - sizes)[tie]
    size, inside, before = sizes[tie], in_tie[tie], (totals - in_tie)[tie]
    position = np.arange(1, len(hits) + 1)
    place = position - start
    share = inside / size
    # If this position is relevant, so many of the tie's earlier ones are, on average.
    earlier = (place - 1) * (inside - 1) / np.maximum(size - 1, 1)
    gains = share * (before + earlier + 1) / position
    precision = [gains[:DEPTH].sum() / min(totals[-1], DEPTH), gains.sum() / totals[-1]]
    first = int(np.flatnonzero(in_tie)[0])
    begin, size, inside = ends[first] - sizes[first], sizes[first], in_tie[first]
    recall = [_hit(k - begin, size, inside) for k in RECALL_AT]
    return np.array([*recall, *precision, begin + (size + 1) / (inside + 1)])


def _hit(drawn: int, size: int, relevant: int) -> float:
    """Chance that some of `relevant` of `size` items are among the first `drawn`."""
    if drawn <= 0:
        return 0.0
    if drawn > size - relevant:
        return 1.0
    step = np.arange(drawn)
    return float(1 - np.prod((size - relevant - step) / (size - step)))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of (rows,) under each of (samples, rows) numbers of copies."""
    order = np.argsort(values)
    values, counts = values[order], weights[:, order].cumsum(axis=1)
    total = counts[:, -1:]
    lower = (counts >= np.floor((total + 1) / 2)).argmax(axis=1)
    upper = (counts >= np.floor((total + 2) / 2)).argmax(axis=1)
    return (values[lower] + values[upper]) / 2
