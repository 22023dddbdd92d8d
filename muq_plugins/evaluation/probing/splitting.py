"""Dealing out whole groups of clips to a training, validation and test part."""

from __future__ import annotations

import numpy as np

from muq_plugins.evaluation.probe import ProbeError

# Share of the clips that a held-out part aims at.
HELD_OUT = 0.2
# Below, validation would take groups that training needs more.
FEWEST_GROUPS_TO_VALIDATE = 5
# Every how many training clips of a class is held out to decide when to stop.
STOPPING_STEP = 5
DRAWS = 1000


def split_groups(
    labels: dict[int, list[str]],
    groups: dict[int, str],
    group_name: str | None,
    seed: int,
) -> dict[int, str]:
    """Deal out groups so that as many classes as possible can be learned and tested.

    A class that only one group has can be either. So, of many random deals, the one is
    taken whose training and test part share most classes, and then the one whose parts
    have the right sizes. Only labels are looked at, no features.
    """
    names = sorted(set(groups.values()))
    if len(names) < 2:
        raise ProbeError(
            f"All {len(labels)} clips have the same {group_name!r}, {names[0]!r}: "
            "there is nothing to hold out for the test. Choose another group, or give "
            "the clips a split column."
        )
    classes = sorted({name for found in labels.values() for name in found})
    number = {name: index for index, name in enumerate(classes)}
    counts = np.zeros((len(names), len(classes)))
    sizes = np.zeros(len(names))
    group_number = {name: index for index, name in enumerate(names)}
    for index, found in labels.items():
        sizes[group_number[groups[index]]] += 1
        for name in found:
            counts[group_number[groups[index]], number[name]] += 1
    rng = np.random.default_rng(seed)
    validates = len(names) >= FEWEST_GROUPS_TO_VALIDATE
    best, best_score = None, (-1, -1, -np.inf)
    for _ in range(DRAWS):
        deal = _deal(rng, sizes, validates)
        train, test = (counts[deal == part].sum(axis=0) for part in (0, 2))
        valid = counts[deal == 1].sum(axis=0)
        shares = np.array([sizes[deal == part].sum() for part in (1, 2)]) / sizes.sum()
        aims = np.array([HELD_OUT if validates else 0, HELD_OUT])
        score = (
            int(((train > 1) & (test > 0)).sum()),
            int(((train > 1) & (valid > 0)).sum()),
            -float(np.abs(shares - aims).sum()),
        )
        if score > best_score:
            best, best_score = deal, score
    if best_score[0] == 0:
        raise ProbeError(
            f"No class has enough clips to be learned from some and tested on others, "
            f"of another {group_name or 'clip'!r}. Choose another group, or add clips."
        )
    part = ("train", "valid", "test")
    return {index: part[best[group_number[groups[index]]]] for index in labels}


def stopping_clips(train: list[int], labels: dict) -> tuple[list[int], list[int]]:
    """Hold out training clips to decide when a training stops."""
    seen: dict[tuple[str, ...], int] = {}
    kept, held_out = [], []
    for index in train:
        key = tuple(labels[index])
        seen[key] = seen.get(key, 0) + 1
        is_turn = seen[key] % STOPPING_STEP == 0
        (held_out if is_turn else kept).append(index)
    if not held_out:
        # So few of each: any of them, which is better than none.
        kept, held_out = train[: -(len(train) // STOPPING_STEP) or None], []
        held_out = train[len(kept) :] or train
    return kept, held_out


def _deal(rng, sizes: np.ndarray, validates: bool) -> np.ndarray:
    """0 (train), 1 (valid) or 2 (test) for every group, in a random order."""
    deal = np.zeros(len(sizes), dtype=int)
    order = rng.permutation(len(sizes))
    for part in (2, 1) if validates else (2,):
        # As many groups as come nearest to the share, and at least one.
        ends = sizes[order].cumsum()
        taken = ends - sizes[order] / 2 <= HELD_OUT * sizes.sum()
        taken[0] = True
        deal[order[taken]] = part
        order = order[~taken]
    return deal
