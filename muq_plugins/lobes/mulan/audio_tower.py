"""The audio tower: clips in, latents out.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.linear import Linear
from muq_plugins.lobes.mulan.latent_transformer import LatentTransformer
from muq_plugins.lobes.mulan.pooling import LatentProjection


class AudioTower(nn.Module):
    """An encoder, averaged over time, in the space that audio and text share.

    A latent depends on its clip alone: padding is neither attended to nor averaged,
    and batch normalisation uses its running statistics in training too, as it must
    where a batch is computed in chunks.

    Arguments
    ---------
    encoder : nn.Module
        Any module that follows the Encoder contract.
    latent_width : int
        Size of the latents.
    width : int or None
        Size between the encoder and the latents; None for that of the encoder.
    num_layers : int
        Layers of a `LatentTransformer` between them; the paper's model has none.
    layer : int
        Which of the hidden states is used; -1 is the last. Training the encoder needs
        ``--find_unused_parameters`` with several processes if it is another one, as
        the layers above have no gradient.
    trainable : bool
        False freezes the encoder: evaluation mode, and no gradient. What is on top
        of it always learns.

    Raises
    ------
    ValueError
        If the encoder has no such layer.

    Example
    -------
    >>> from muq_plugins.lobes import MuQEncoder
    >>> encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> tower = AudioTower(encoder, latent_width=16)
    >>> tower(torch.randn(2, 24000), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent_width: int = 512,
        width: int | None = None,
        num_layers: int = 0,
        layer: int = -1,
        trainable: bool = True,
    ):
        super().__init__()
        if not -encoder.num_layers - 1 <= layer <= encoder.num_layers:
            raise ValueError(
                f"layer is {layer}, but {type(encoder).__name__} has "
                f"{encoder.num_layers} layers: give 0 (the front end) to "
                f"{encoder.num_layers}, or -1 for the last one."
            )
        width = encoder.width if width is None else width
        # All that is needed to build the same tower on the same encoder again.
        self.config: dict[str, Any] = {
            "latent_width": latent_width,
            "width": width,
            "num_layers": num_layers,
            "layer": layer,
            "trainable": trainable,
        }
        self.encoder = encoder
        self.projection = Linear(encoder.width, width)
        self.transformer = LatentTransformer(width, num_layers)
        self.to_latents = LatentProjection(width, latent_width)
        self.layer = layer
        self.trainable = trainable
        self.sample_rate = encoder.sample_rate
        self.frame_rate = encoder.frame_rate
        self.latent_width = latent_width
        if not trainable:
            encoder.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> AudioTower:
        """Sets the mode of all that may change its mode.

        Arguments
        ---------
        mode : bool
            Training or evaluation.

        Returns
        -------
        AudioTower
            This tower.
        """
        super().train(mode)
        if not self.trainable:
            self.encoder.eval()
        for part in self.encoder.modules():
            if isinstance(part, _BatchNorm):
                part.eval()
        return self

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Computes the latents of clips.

        Arguments
        ---------
        wavs : Tensor
            (batch, samples) at `sample_rate`, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        Tensor
            Unit vectors (batch, latent_width), float32.
        """
        with nullcontext() if self.trainable else torch.no_grad():
            out = self.encoder(wavs, wav_lens)
        hidden = out.hidden_states[self.layer]
        lengths = absolute_lengths(out.lens, hidden.shape[1], hidden.shape[0])
        mask = length_mask(lengths, hidden.shape[1])
        hidden = self.transformer(self.projection(hidden), mask)
        return self.to_latents(hidden, mask)
