"""The contrastive losses.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.mulan.contrastive import ContrastiveLoss
from muq_plugins.lobes.mulan.pairs import own_pairs
from muq_plugins.lobes.mulan.pooling import precise
from muq_plugins.lobes.parts import part


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
        """Computes the loss from similarities; see `ContrastiveLoss.compare`.

        Arguments
        ---------
        logits : Tensor
            (pairs, pairs).
        negatives : Tensor
            Boolean (pairs, pairs).

        Returns
        -------
        Tensor
            Scalar.
        """
        return softmax_losses(logits, negatives | own_pairs(logits)).mean()

    def chance_per_pair(self, negatives: Tensor) -> Tensor:
        """One among the negatives and itself.

        Arguments
        ---------
        negatives : Tensor
            How many negatives each pair has (n,) float64.

        Returns
        -------
        Tensor
            (n,) float64.
        """
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
        """Computes the loss from similarities; see `ContrastiveLoss.compare`.

        Arguments
        ---------
        logits : Tensor
            (pairs, pairs).
        negatives : Tensor
            Boolean (pairs, pairs).

        Returns
        -------
        Tensor
            Scalar.
        """
        counted = self.counts(negatives.sum(1))
        # An empty sum has no logarithm: such a pair is compared with itself, which
        # gives a loss and a gradient of zero.
        alone = own_pairs(logits) & ~counted[:, None]
        losses = softmax_losses(logits, negatives | alone)
        return losses.sum() / counted.sum().clamp(min=1)

    def chance_per_pair(self, negatives: Tensor) -> Tensor:
        """One against the negatives.

        Arguments
        ---------
        negatives : Tensor
            How many negatives each pair has (n,) float64.

        Returns
        -------
        Tensor
            (n,) float64.
        """
        return negatives.log()

    def counts(self, negatives: Tensor) -> Tensor:
        """Those that have negatives.

        Arguments
        ---------
        negatives : Tensor
            How many negatives each pair has (n,).

        Returns
        -------
        Tensor
            Boolean (n,).
        """
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
        """Computes the loss from similarities; see `ContrastiveLoss.compare`.

        Arguments
        ---------
        logits : Tensor
            (pairs, pairs).
        negatives : Tensor
            Boolean (pairs, pairs).

        Returns
        -------
        Tensor
            Scalar: the sum over clips and texts, per pair.
        """
        own = own_pairs(logits)
        logits = logits + precise(self.bias)
        losses = -F.logsigmoid(torch.where(own, logits, -logits))
        return torch.where(own | negatives, losses, 0).sum() / len(logits)

    def chance_per_pair(self, negatives: Tensor) -> Tensor:
        """All logits are the same, and the bias is at its best for the batch.

        Arguments
        ---------
        negatives : Tensor
            How many negatives each pair has (n,) float64.

        Returns
        -------
        Tensor
            (n,) float64.
        """
        mean = negatives.mean()
        # Of 1 + mean decisions a pair, one is a yes: the entropy of that share.
        return (1 + mean).log() + negatives * torch.log1p(1 / mean.clamp(min=1e-300))


def softmax_losses(logits: Tensor, candidates: Tensor) -> Tensor:
    """Minus the own logit plus the log-sum-exp of the candidates, both ways.

    Arguments
    ---------
    logits : Tensor
        (pairs, pairs).
    candidates : Tensor
        Boolean (pairs, pairs), symmetric, at least one a row.

    Returns
    -------
    Tensor
        (pairs,): the mean of both directions.

    Example
    -------
    >>> softmax_losses(torch.zeros(2, 2), torch.ones(2, 2).bool())
    tensor([0.6931, 0.6931])
    """
    masked = logits.masked_fill(~candidates, -math.inf)
    both = 0.5 * (masked.logsumexp(dim=1) + masked.logsumexp(dim=0))
    return both - logits.diagonal()
