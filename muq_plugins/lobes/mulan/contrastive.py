"""Contrastive losses: each clip must find its own text among all, and back.

With several processes, among those of all of them: `gather_with_gradient`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.mulan.towers import precise
from muq_plugins.lobes.parts import part


class ContrastiveLoss(nn.Module, ABC):
    """Compares latents of audio and text: temperature, precision and duplicates.

    Similarities are multiplied by a learned temperature, which is clamped: without a
    limit it grows until the loss hears nothing but the hardest negative. Everything is
    computed in single precision, also under autocast.

    Arguments
    ---------
    temperature : float
        What similarities are multiplied by at the start.
    max_temperature : float
        What they are multiplied by at most.

    Raises
    ------
    ValueError
        If the temperature is not between 0 and its limit.

    Example
    -------
    >>> from muq_plugins.lobes import InfoNCE
    >>> loss = InfoNCE(temperature=10.0)
    >>> round(loss.temperature().item(), 3)
    10.0
    """

    def __init__(self, temperature: float = 10.0, max_temperature: float = 100.0):
        super().__init__()
        if not 0 < temperature <= max_temperature:
            raise ValueError(
                f"temperature is {temperature}: choose a number above 0 and not above "
                f"max_temperature, which is {max_temperature}."
            )
        # The limit as the parameter holds it: a parameter that is rounded to a little
        # more than the limit would get no gradient there.
        self.max_log_temperature = torch.tensor(math.log(max_temperature)).item()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def temperature(self) -> Tensor:
        """What similarities are multiplied by now.

        Returns
        -------
        Tensor
            Scalar, at most ``max_temperature``.
        """
        log, limit = precise(self.log_temperature), self.max_log_temperature
        # Not clamp(), which gives no gradient at the limit either.
        return torch.where(log > limit, limit, log).exp()

    @torch.no_grad()
    def after_update(self) -> None:
        """Brings the parameter itself back to its limit.

        Beyond the limit it would have no gradient, and would never come back.
        """
        self.log_temperature.clamp_(max=self.max_log_temperature)

    def forward(
        self, audio: Tensor, text: Tensor, identities: Tensor | None = None
    ) -> Tensor:
        """Computes the loss of a batch of pairs.

        Arguments
        ---------
        audio : Tensor
            Latents of the clips (pairs, latent_width), unit vectors.
        text : Tensor
            Latents of their texts (pairs, latent_width).
        identities : Tensor or None
            (pairs, kinds) int64, such as the number of the text and of the piece. Two
            pairs with the same value in any column are not negatives of each other.
            None if all pairs differ.

        Returns
        -------
        Tensor
            Scalar, float32. Pairs without negatives add nothing to it.
        """
        check_pairs(audio, text, identities)
        with torch.autocast(audio.device.type, enabled=False):
            similarities = precise(audio) @ precise(text).T
            negatives = negative_pairs(len(audio), identities, audio.device)
            return self.compare(similarities * self.temperature(), negatives)

    @abstractmethod
    def compare(self, logits: Tensor, negatives: Tensor) -> Tensor:
        """Computes the loss from similarities.

        Arguments
        ---------
        logits : Tensor
            Similarities (pairs, pairs) times the temperature; audio by text.
        negatives : Tensor
            Boolean (pairs, pairs), True where a text is a negative of a clip.

        Returns
        -------
        Tensor
            Scalar.
        """

    @abstractmethod
    def chance_per_pair(self, negatives: Tensor) -> Tensor:
        """The loss of a pair among others that all look alike.

        Arguments
        ---------
        negatives : Tensor
            How many negatives each pair has (n,) float64.

        Returns
        -------
        Tensor
            (n,) float64.
        """

    def chance(self, pairs: int, identities: Tensor | None = None) -> float:
        """The loss when nothing is learned: all similarities are equal.

        Arguments
        ---------
        pairs : int
            Number of pairs in the batch.
        identities : Tensor or None
            As in `forward`; duplicates make a batch easier.

        Returns
        -------
        float
            The loss.

        Example
        -------
        >>> from muq_plugins.lobes import InfoNCE
        >>> round(InfoNCE().chance(100), 3)  # the logarithm of 100
        4.605
        """
        if identities is None:  # all have the same number of negatives
            negatives = torch.tensor([pairs - 1.0], dtype=torch.float64)
        else:
            negatives = negative_pairs(pairs, identities, identities.device)
            negatives = negatives.sum(1).cpu().double()
        per_pair = self.chance_per_pair(negatives)
        counted = per_pair[self.counts(negatives)]
        return counted.mean().item() if len(counted) else 0.0

    def counts(self, negatives: Tensor) -> Tensor:
        """Which pairs the loss is the mean of.

        Arguments
        ---------
        negatives : Tensor
            How many negatives each pair has (n,).

        Returns
        -------
        Tensor
            Boolean (n,): all of them, unless a loss says otherwise.
        """
        return torch.ones_like(negatives, dtype=torch.bool)


@part
class InfoNCE(ContrastiveLoss):
    """Cross-entropy of the own text among all texts, and back (CLIP, arXiv 2103.00020).

    Arguments
    ---------
    temperature : float
        What similarities are multiplied by at the start.
    max_temperature : float
        What they are multiplied by at most.

    Example
    -------
    >>> loss = InfoNCE()
    >>> loss(torch.eye(4), torch.eye(4)) < loss.chance(4)
    tensor(True)
    """

    def compare(self, logits: Tensor, negatives: Tensor) -> Tensor:
        """Computes the loss from similarities; see `ContrastiveLoss.compare`."""
        return softmax_losses(logits, negatives | own_pairs(logits)).mean()

    def chance_per_pair(self, negatives: Tensor) -> Tensor:
        """One among the negatives and itself."""
        return (negatives + 1).log()


@part
class DecoupledContrastive(ContrastiveLoss):
    """InfoNCE without the own pair in its denominators (arXiv 2110.06848).

    The loss of MuQ-MuLan. It has no lower limit: a pair that is told apart perfectly
    goes on pulling. The mean is over the pairs that have negatives.

    Arguments
    ---------
    temperature : float
        What similarities are multiplied by at the start.
    max_temperature : float
        What they are multiplied by at most.

    Example
    -------
    >>> loss = DecoupledContrastive()
    >>> loss(torch.eye(4), torch.eye(4)) < loss.chance(4)
    tensor(True)
    """

    def compare(self, logits: Tensor, negatives: Tensor) -> Tensor:
        """Computes the loss from similarities; see `ContrastiveLoss.compare`."""
        counted = self.counts(negatives.sum(1))
        # An empty sum has no logarithm: such a pair is compared with itself, which
        # gives a loss and a gradient of zero.
        alone = own_pairs(logits) & ~counted[:, None]
        losses = softmax_losses(logits, negatives | alone)
        return losses.sum() / counted.sum().clamp(min=1)

    def chance_per_pair(self, negatives: Tensor) -> Tensor:
        """One against the negatives."""
        return negatives.log()

    def counts(self, negatives: Tensor) -> Tensor:
        """Those that have negatives."""
        return negatives > 0


@part
class SigmoidContrastive(ContrastiveLoss):
    """Each clip and text apart: do they belong together? (SigLIP, arXiv 2303.15343)

    Arguments
    ---------
    temperature : float
        What similarities are multiplied by at the start.
    max_temperature : float
        What they are multiplied by at most.
    bias : float
        What is added to them at the start. Nearly all combinations are negatives,
        which a learned bias says once for all of them.

    Example
    -------
    >>> loss = SigmoidContrastive(bias=-2.0)
    >>> loss(torch.eye(4), torch.eye(4)) < loss.chance(4)
    tensor(True)
    """

    def __init__(
        self,
        temperature: float = 10.0,
        max_temperature: float = 100.0,
        bias: float = -10.0,
    ):
        super().__init__(temperature, max_temperature)
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def compare(self, logits: Tensor, negatives: Tensor) -> Tensor:
        """The sum over clips and texts, per pair; see `ContrastiveLoss.compare`."""
        own = own_pairs(logits)
        logits = logits + precise(self.bias)
        losses = -F.logsigmoid(torch.where(own, logits, -logits))
        return torch.where(own | negatives, losses, 0).sum() / len(logits)

    def chance_per_pair(self, negatives: Tensor) -> Tensor:
        """All logits are the same, and the bias is at its best for the batch."""
        mean = negatives.mean()
        # Of 1 + mean decisions a pair, one is a yes: the entropy of that share.
        return (1 + mean).log() + negatives * torch.log1p(1 / mean.clamp(min=1e-300))


def softmax_losses(logits: Tensor, candidates: Tensor) -> Tensor:
    """Minus the own logit plus the log-sum-exp of the candidates, both ways."""
    masked = logits.masked_fill(~candidates, -math.inf)
    both = 0.5 * (masked.logsumexp(dim=1) + masked.logsumexp(dim=0))
    return both - logits.diagonal()


def own_pairs(logits: Tensor) -> Tensor:
    """Marks each clip's own text."""
    return torch.eye(len(logits), dtype=torch.bool, device=logits.device)


def negative_pairs(
    pairs: int, identities: Tensor | None, device: torch.device | str
) -> Tensor:
    """Marks which texts are negatives of which clips."""
    same = torch.eye(pairs, dtype=torch.bool, device=device)
    if identities is not None:
        for column in identities.to(device).T:
            same |= column[:, None] == column
    return ~same


def check_pairs(audio: Tensor, text: Tensor, identities: Tensor | None) -> None:
    """Refuses what are not pairs."""
    if audio.shape != text.shape or audio.dim() != 2 or len(audio) == 0:
        raise ValueError(
            f"Latents of audio and text have the shapes {tuple(audio.shape)} and "
            f"{tuple(text.shape)}: pairs need one row of the same size in each."
        )
    if identities is not None and (
        identities.dim() != 2 or len(identities) != len(audio)
    ):
        raise ValueError(
            f"identities have the shape {tuple(identities.shape)}: {len(audio)} pairs "
            f"need {len(audio)} rows of one number for each kind of identity."
        )


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Collects the rows of all processes on each of them.

    All processes must call it, with the same number of columns; their numbers of rows
    may differ. The gradient of a process's rows is the sum of those that the losses
    of all processes give them. So if each process computes the same loss of all rows,
    the mean that DistributedDataParallel takes over the processes is the exact
    gradient of that loss.

    Arguments
    ---------
    tensor : Tensor
        This process's rows (rows, columns).

    Returns
    -------
    Tensor
        Rows of all processes in the order of their ranks; without a process group,
        the tensor itself.

    Example
    -------
    >>> gather_with_gradient(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    return _Gather.apply(tensor)


class _Gather(torch.autograd.Function):
    """Gathers rows forwards, and sums their gradients backwards."""

    @staticmethod
    def forward(ctx, tensor):
        count = torch.tensor([len(tensor)], device=tensor.device)
        counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, count)
        ctx.counts = torch.cat(counts).tolist()
        # Collectives want equal shapes: short ones are filled up, and cut again.
        most = max(ctx.counts)
        filled = F.pad(tensor, (0, 0, 0, most - len(tensor))).contiguous()
        parts = [torch.empty_like(filled) for _ in ctx.counts]
        dist.all_gather(parts, filled)
        return torch.cat(
            [part[:rows] for part, rows in zip(parts, ctx.counts, strict=True)]
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.split(ctx.counts)[dist.get_rank()]
