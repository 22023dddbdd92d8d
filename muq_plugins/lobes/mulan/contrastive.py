"""What contrastive losses share: each clip must find its own text, and back.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from muq_plugins.lobes.mulan.pairs import check_pairs, negative_pairs
from muq_plugins.lobes.mulan.pooling import precise


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
