"""Protocols by name: how a probe is trained, chosen and tested.

Numbers are comparable within a protocol alone. What each one does that a reader would
not expect is a note, which is printed with every result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from muq_plugins.errors import UserError, nearest
from muq_plugins.evaluation.marble.kinds import FrameKind
from muq_plugins.evaluation.marble.task import MUQ, PAPER, MarbleTask, Recipe
from muq_plugins.evaluation.probing.results import MIXTURE
from muq_plugins.evaluation.probing.store import Cutting, Framing

ALL_LAYERS = "all layers"  # a linear map of all of them to one, as v2 has it
# What `corrected` hears of a long recording at once, and what it drops on both sides.
HEARD, CONTEXT = 30.0, 5.0


class Read(NamedTuple):
    """One way to read hidden states."""

    layer: int | str | None  # what a row calls it
    used: list[int]


class Plan(NamedTuple):
    """How one task is done under a protocol."""

    cutting: Cutting | Framing
    recipe: Recipe
    lrs: tuple[float, ...]  # of which validation chooses
    aggregate: str | None  # see `Recipe`
    metric: str  # the primary one
    notes: list[str]

    @property
    def frames(self) -> FrameKind | None:
        """What is read off frames, if anything is."""
        return self.recipe.frames


@dataclass(frozen=True)
class Protocol:
    """What is common to the probes of all tasks."""

    name: str
    words: str  # what it is, in a sentence
    lrs: tuple[float, ...] = ()  # none: that of the task
    standardised: bool = False  # whether layers are, by the training part
    keep_last: bool = False  # whether the last epoch is tested, not the best
    mixes_from: int = 0  # the lowest hidden state of the weighted sum
    hidden_size: int = 512
    dropout: float = 0.2
    notes: tuple[str, ...] = ()

    def plan(self, task: MarbleTask) -> Plan:
        """How a task is done; refuses one that this protocol does not have."""
        if self is CORRECTED:
            recipe = _corrected(task)
        else:
            recipe = task.v1 if self is V1 else task.v2
        if recipe is None:
            others = [V1] * (self is V2 and task.v1 is not None)
            names = " or ".join(one.name for one in (CORRECTED, *others))
            raise UserError(
                f"{task.name} is no task of {self.name}: choose the protocol {names}."
            )
        notes = list(self.notes)
        if recipe.frames is not None:
            recipe.frames.check()
            notes += recipe.frames.notes
            context = CONTEXT if self is CORRECTED else 0.0
            seconds = HEARD if self is CORRECTED else recipe.clip_seconds
            cutting = Framing(seconds, context, task.most_rate, recipe.least)
        else:
            vote = "Every clip is scored by itself: there is no vote in a recording."
            if recipe.aggregate is not None:
                vote = f"A recording is scored by its mean of {recipe.aggregate} (T9)."
            notes.append(vote)
            padded = recipe.least or False
            cutting = Cutting(recipe.clip_seconds, recipe.most_clips, padded)
        if self is V1 and task.differs:
            notes.append(f"Not as in v1: {task.differs}.")
        how = self.lrs or (recipe.lr,), recipe.aggregate, recipe.metric or task.metric
        return Plan(cutting, recipe, *how, notes)

    def reads(self, recipe: Recipe, layers: int) -> list[Read]:
        """What is read of so many hidden states."""
        if layers == 1:
            return [Read(None, [0])]
        every = list(range(layers))
        if self is V2:
            if recipe.layers == "all":
                return [Read(ALL_LAYERS, every)]
            # Chosen by hand for encoders of twelve layers.
            layer = min(recipe.layers, layers - 1)
            return [Read(layer, [layer])]
        singles = [Read(layer, [layer]) for layer in every]
        return [*singles, Read(MIXTURE, every[self.mixes_from :])]

    def not_comparable(self, task: MarbleTask, publisher: str) -> str | None:
        """Why published scores are not to be compared with those of this protocol."""
        if publisher == MUQ:
            return "how its probes were trained and chosen is not published"
        if publisher == PAPER:
            return task.differs if self is V1 else f"it is another protocol, {V1.name}"
        return "it is a protocol of its own: other heads, clips and frame rates"


def _corrected(task: MarbleTask) -> Recipe:
    """How a task is done under the protocol of that name."""
    cut = task.clip_seconds, task.most_clips
    if task.kind != "frames":
        aggregate = "probabilities" if task.kind == "single" else "outputs"
        return Recipe(*cut, max_epochs=100, aggregate=aggregate)
    # Frames are many: an epoch is as much of them as says something new.
    few = {"batch_size": 16, "max_epochs": 30, "patience": 5, "most_updates": 32}
    return Recipe(*cut, aggregate=None, frames=task.frames, **few)


CORRECTED = Protocol(
    "corrected",
    "every layer and a learned mixture of all; layer, learning rate and epoch by "
    "validation; one answer for each recording",
    lrs=(5e-4, 1e-3, 5e-3),
    standardised=True,
)
V1 = Protocol(
    "v1_constrained",
    "the constrained track of the MARBLE paper: every layer and a weighted sum, six "
    "learning rates, the best epoch in validation",
    lrs=(5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2),
    mixes_from=1,
    notes=(
        "The weighted sum leaves out hidden state 0, as in v1 (T6).",
        "Probes are trained in float32; v1 trains in mixed float16.",
    ),
)
V2 = Protocol(
    "v2_as_shipped",
    "what the repository of MARBLE v2 does, its faults included",
    keep_last=True,
    notes=(
        "The last epoch is tested, not the best one, which v2 names best (T1).",
        "One layer, or a linear map of all, chosen by hand, and one learning rate.",
        "The last clip of a recording is heard with silence after it, if it is full to "
        "80 % (10 % for chords).",
        "What stops a training on whole recordings is their score; v2 takes the mean "
        "over its batches of clips, which is another for R², AP and ROC-AUC.",
        "All channels are mixed; v2 takes the first one of GTZAN, GiantSteps and EMO, "
        "and to train on chords any.",
        "The probe is trained in float32 on float16 features; v2 trains in bfloat16.",
    ),
)
#: Every protocol by its name.
PROTOCOLS = {protocol.name: protocol for protocol in (CORRECTED, V1, V2)}


def find_protocol(name: str) -> Protocol:
    """A protocol by its name."""
    if name not in PROTOCOLS:
        raise UserError(
            f"There is no protocol {name!r}; the nearest is "
            f"{nearest(name, PROTOCOLS)!r}. There are: {', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[name]
