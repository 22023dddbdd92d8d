"""The Objective contract: what is asked, how it is answered, how it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from muq_plugins.lobes.encoders.base import EncoderOutput
from muq_plugins.lobes.masking import Masking
from muq_plugins.lobes.parts import attribute
from muq_plugins.lobes.target import Crops


@dataclass
class StageOutput:
    """What a stage says about a batch.

    Statistics are sums with the weight they were summed over, so that batches,
    and the shares of several processes, add up to exact means.

    Arguments
    ---------
    loss : Tensor
        Scalar to minimise.
    sums : dict
        Name to sum: a scalar, or (N,) per codebook. Detached.
    weights : dict
        Name to the scalar weight of that sum. Detached.
    totals : dict
        Name to what is added up and never divided, such as ``code_counts``: how often
        each entry of each codebook occurred (N, V) int64. Detached.

    Example
    -------
    >>> import torch
    >>> one, counts = torch.ones(()), torch.zeros(8, 1024, dtype=torch.int64)
    >>> out = StageOutput(one, {"loss": one}, {"loss": one}, {"code_counts": counts})
    >>> out.totals["code_counts"].shape
    torch.Size([8, 1024])
    """

    loss: Tensor
    sums: dict[str, Tensor]
    weights: dict[str, Tensor]
    totals: dict[str, Tensor] = field(default_factory=dict)


class Reference(NamedTuple):
    """What a measure is held against: another number of the same row.

    Arguments
    ---------
    name : str
        In a sentence.
    mark : str
        Beside its line in a chart, with a place for the number.

    Example
    -------
    >>> Reference("a counting model", "counts: {:.2f}").mark.format(4.081)
    'counts: 4.08'
    """

    name: str
    mark: str


class Measure(NamedTuple):
    """What a number of a stage means, for whoever shows it.

    Arguments
    ---------
    title : str
        What it is, as the title of a chart; up to a comma, in a sentence.
    unit : str
        Its unit, "share" for a share; empty for none.
    better : int
        -1 if lower is better, +1 if higher is.
    references : mapping
        `Reference` by the name of the number: first what guessing gives, last the best
        that a model reaches which looks at nothing.
    margin : float or None
        How far it must be from the last reference before anything counts as learned;
        None for a measure that does not say what has been learned.
    learned : str
        What a model does that has learned it, in a sentence.
    moving : bool
        Whether what is asked changes as the model learns, so that numbers of different
        steps do not compare.
    limit : float or None
        The worst that it may be; None for any.
    beyond : str
        What has happened if it is worse, in a sentence.
    about : str
        What is asked, and what the references are, for a reader.

    Example
    -------
    >>> Measure("Error of the level, mean over clips", "dB", margin=1.0).better
    -1
    """

    title: str
    unit: str = ""
    better: int = -1
    references: Mapping[str, Reference] = {}
    margin: float | None = None
    learned: str = "predicts music that it does not hear"
    moving: bool = False
    limit: float | None = None
    beyond: str = ""
    about: str = ""


def references_of(row: Mapping[str, Any], measure: Measure) -> dict[str, float]:
    """What a measure is held against, the strictest first, as a row has it."""
    found = {known.name: row.get(k) for k, known in measure.references.items()}
    return {name: x for name, x in reversed(found.items()) if x is not None}


# An untrained model is within 1 % of chance; twice that still is no learning.
CHANCE_MARGIN = 0.02


def is_at_chance(loss: float, chance: float) -> bool:
    """Whether a loss is no better than that of guessing."""
    return loss >= (1 - CHANCE_MARGIN) * chance


def directions(frames: Tensor, total: Tensor, products: Tensor) -> float:
    """Over how many directions frames spread, as a share of their width.

    RankMe (arXiv 2210.02885), the exponential entropy of singular values, here of the
    centred frames: from their number, their sum (width,), and the sum of their outer
    products (width, width).
    """
    frames = frames.clamp(min=1)
    mean = total / frames
    covariance = products / frames - mean.outer(mean)
    singular = torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt()
    shares = singular / singular.sum().clamp(min=torch.finfo(singular.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp()) / len(shares)


@dataclass
class Hearing:
    """A batch, and what the encoder makes of it: once for all objectives that ask.

    Arguments
    ---------
    encoder : nn.Module
        Any module that follows the Encoder contract.
    masking : Masking or None
        What the encoder does not get to hear of the masked batch.
    wavs : Tensor
        Clean waveforms (batch, samples).
    wav_lens : Tensor or None
        Relative lengths (batch,); None when nothing is padded.
    clip_keys : Tensor
        (batch,) int64: the seeds of all that is random.
    crops : Crops or None
        Which crops these are, for targets that look their codes up.

    Example
    -------
    >>> import torch
    >>> from muq_plugins.lobes import BlockMasking, MuQEncoder
    >>> encoder = MuQEncoder(32, 1, num_heads=4, ffn_width=64, conv_channels=4)
    >>> keys = torch.tensor([1, 2])
    >>> hearing = Hearing(encoder, BlockMasking(), torch.randn(2, 24000), None, keys)
    >>> out, mask = hearing.masked
    >>> out.last_hidden_state.shape, mask.shape
    (torch.Size([2, 25, 32]), torch.Size([2, 25]))
    """

    encoder: nn.Module
    masking: Masking | None
    wavs: Tensor
    wav_lens: Tensor | None
    clip_keys: Tensor
    crops: Crops | None = None

    @cached_property
    def masked(self) -> tuple[EncoderOutput, Tensor]:
        """What the encoder makes of the masked batch, and the mask (batch, frames)."""
        return self.masking.encode(
            self.encoder, self.wavs, self.wav_lens, self.clip_keys
        )


class Objective(nn.Module):
    """The Objective contract.

    An objective says what is asked about a batch, answers it from hidden states, and
    scores the answer: ``out = objective(hearing)``, a `StageOutput`. It listens to
    the masked batch by ``hearing.masked``, which is computed once for all objectives,
    or has ``hearing.encoder`` listen to something else. What it declares about itself
    is all that logs, verdicts, figures and reports know of it: ``measures``, and in
    `summary` what chance and a model that looks at nothing would reach.

    Example
    -------
    >>> import torch
    >>> class Loudness(Objective):
    ...     measures = {"error": Measure("Error of the level", "dB")}
    ...
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.head = nn.Linear(width, 1)
    ...
    ...     def forward(self, hearing):
    ...         level = hearing.wavs.square().mean(1, keepdim=True).log10() * 10
    ...         out, mask = hearing.masked
    ...         error = (self.head(out.last_hidden_state.mean(1)) - level).abs().mean()
    ...         clips = torch.tensor(float(len(level)))
    ...         sums = {"loss": error.detach() * clips, "error": error.detach() * clips}
    ...         return StageOutput(error, sums, dict.fromkeys(sums, clips))
    >>> from muq_plugins.lobes import BlockMasking, MuQEncoder, Pretraining
    >>> encoder = MuQEncoder(32, 1, num_heads=4, ffn_width=64, conv_channels=4)
    >>> stage = Pretraining(BlockMasking(), encoder, {"loudness": Loudness(32)})
    >>> sorted(stage(torch.randn(2, 24000)).sums)
    ['error', 'loss']
    """

    measures: Mapping[str, Measure] = {}
    listens_to_masked = True  # whether it asks about the masked batch
    fewest_clips = 1  # that a batch must have
    frozen: tuple[str, ...] = ()  # parts that stay in evaluation mode

    def train(self, mode: bool = True) -> Objective:
        """Leaves the `frozen` parts in evaluation mode whatever is asked."""
        super().train(mode)
        for name in self.frozen:
            getattr(self, name).eval()
        return self

    def check(self, encoder: nn.Module, masking: Masking | None) -> None:
        """Refuses parts that do not fit together.

        Arguments
        ---------
        encoder : nn.Module
            Any module that follows the Encoder contract.
        masking : Masking or None
            What the encoder does not get to hear; None for nothing.

        Raises
        ------
        ValueError
            Names both parts and what differs.
        """

    def forward(self, hearing: Hearing) -> StageOutput:
        """Asks, answers, scores.

        Arguments
        ---------
        hearing : Hearing
            The batch.

        Returns
        -------
        StageOutput
            With ``loss`` among its sums.
        """
        raise NotImplementedError

    def summary(self, means: dict, totals: dict[str, Tensor]) -> dict:
        """What chance, or a model that looks at nothing, reaches on unseen clips.

        Arguments
        ---------
        means : dict
            Name to number or list of numbers: the sums by their weights.
        totals : dict
            As in `StageOutput`, of all batches.

        Returns
        -------
        dict
            Name to number, list of numbers or text.
        """
        return {}

    def after_update(self, encoder: nn.Module) -> None:
        """Follows an update of the optimizer.

        Arguments
        ---------
        encoder : nn.Module
            As it is now.
        """


def frames_that_count(
    hearing: Hearing, asked: Tensor, inside: Tensor, visible_weight: float
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Hidden states, what is asked, and which are of which kind, frame by frame.

    Of what is asked (batch, frames, ...) the masked frames, or all of them if visible
    ones count. Kinds are boolean (frames,), by their prefix: which are masked and, if
    they count, which are not; those beyond the clips are of neither kind. How many
    frames there are follows from the mask alone: no device need be asked.
    """
    out, mask = hearing.masked
    hidden = out.last_hidden_state
    # A clip may end inside its last frame, which not all parts round alike.
    frames = min(asked.shape[1], mask.shape[1], hidden.shape[1])
    mask = mask[:, :frames].flatten()
    of_frames = [part[:, :frames].flatten(0, 1) for part in (hidden, asked, inside)]
    if not visible_weight:
        chosen = mask.nonzero()[:, 0].to(hidden.device, non_blocking=True)
        hidden, asked, inside = (part.index_select(0, chosen) for part in of_frames)
        return hidden, asked, {"": inside}
    hidden, asked, inside = of_frames
    masked = mask.to(hidden.device, non_blocking=True)
    return hidden, asked, {"": inside & masked, "visible_": inside & ~masked}


def weighted_loss(
    losses: Tensor, kinds: dict[str, Tensor], visible_weight: float
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The loss of frames, with its sum and weight for a `StageOutput`."""
    counted = torch.where(kinds[""], 1.0, 0.0)
    if visible_weight:
        counted = torch.where(kinds["visible_"], visible_weight, counted)
    total, weight = (losses * counted).sum(), counted.sum()
    # By chance nothing may be scored: then there is nothing to learn, but the graph
    # must stay whole for the processes that did score something.
    loss = total / weight.clamp(min=torch.finfo(weight.dtype).tiny)
    return loss, {"loss": total.detach()}, {"loss": weight}


def check_equal(name: str, unit: str, *parts: nn.Module) -> None:
    """Refuses parts that do not fit together, or do not say it."""
    first, expected = parts[0], attribute(parts[0], name)
    for other in parts[1:]:
        found = attribute(other, name)
        if expected != found:
            raise ValueError(
                f"{name} differs: {type(first).__name__} has {expected:g} {unit}, "
                f"{type(other).__name__} has {found:g} {unit}. Change one of the two "
                f"in the YAML, or resample explicitly between them."
            )
