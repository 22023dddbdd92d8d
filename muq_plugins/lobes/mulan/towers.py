"""Towers: clips or texts in, unit vectors of one space out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.batch_norm import batch_norms
from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.linear import Linear
from muq_plugins.lobes.mulan.latent_transformer import LatentTransformer
from muq_plugins.lobes.mulan.text_models import (
    frozen_parts,
    load_text_model,
    readable_tokens,
    tokenize,
)


class AudioModel(Protocol):
    """What embeds audio files of any length, each as (latent_width,)."""

    fingerprint: str
    latent_width: int

    def space(self, loudness: float | None = None) -> Any:
        """What makes vectors comparable, with a ``name``."""

    def embed_file(self, path: str, loudness: float | None = None) -> Tensor:
        """Embeds a file, brought to a loudness in LUFS first if there is one."""


class TextModel(Protocol):
    """What embeds texts, however many, as (texts, latent_width)."""

    def embed_text(self, texts: list[str]) -> Tensor:
        """Embeds texts."""


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
        False freezes the encoder: evaluation mode, and no gradient. True trains what
        of it is not frozen, or all of it if all is. What is on top of it always learns.

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
        elif not any(p.requires_grad for p in encoder.parameters()):
            encoder.requires_grad_()  # `MuQ.from_pretrained` gives it frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> AudioTower:
        """Leaves a frozen encoder and all batch normalisations in evaluation mode."""
        super().train(mode)
        if not self.trainable:
            self.encoder.eval()
        for norm in batch_norms(self.encoder):
            norm.eval()
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
        mask = length_mask(lengths, hidden.shape[1], hidden.device)
        hidden = self.transformer(self.projection(hidden), mask)
        return self.to_latents(hidden, mask)


class TextTower(nn.Module):
    """A text model, averaged over tokens, in the space that audio and text share.

    Arguments
    ---------
    model : nn.Module
        A RoBERTa or XLM-R encoder of the transformers library.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    latent_width : int
        Size of the latents.
    num_layers : int
        Layers of a `LatentTransformer` on top of the model; the paper's has 8.
    num_heads : int
        Attention heads of each of them.
    head_width : int
        Size of each head.
    trainable : str or int
        What of the model learns: "all", "none", or the number of its upper layers.
        The rest is frozen: evaluation mode, and no gradient. What is on top of the
        model always learns.
    max_tokens : int or None
        Texts are cut after so many tokens; None for as many as the model can read.
    average_padding : bool
        Attend to and average the padding above the model as well, as the official
        implementation does. A latent then depends on the longest text of its batch.

    Raises
    ------
    ValueError
        If model and tokenizer do not fit together, or a number is out of range.

    Example
    -------
    >>> from transformers import ByT5Tokenizer, RobertaConfig, RobertaModel
    >>> tokenizer = ByT5Tokenizer(extra_ids=0)  # bytes: needs no vocabulary
    >>> config = RobertaConfig(vocab_size=len(tokenizer), pad_token_id=0,
    ...     hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
    ...     intermediate_size=64)
    >>> tower = TextTower(RobertaModel(config), tokenizer, latent_width=16)
    >>> tower(["a slow piano", "drums"]).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer,
        latent_width: int = 512,
        num_layers: int = 0,
        num_heads: int = 8,
        head_width: int = 64,
        trainable: str | int = "all",
        max_tokens: int | None = None,
        average_padding: bool = False,
    ):
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = readable_tokens(model, tokenizer, max_tokens)
        # All that is needed to build the same tower on the same model again.
        self.config: dict[str, Any] = {
            "latent_width": latent_width,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "head_width": head_width,
            "trainable": trainable,
            "max_tokens": self.max_tokens,
            "average_padding": average_padding,
        }
        width = model.config.hidden_size
        self.transformer = LatentTransformer(width, num_layers, num_heads, head_width)
        self.to_latents = LatentProjection(width, latent_width)
        self.latent_width = latent_width
        self.average_padding = average_padding
        self._frozen = frozen_parts(model, trainable)
        for part in self._frozen:
            part.requires_grad_(False)
        self.train(self.training)

    @classmethod
    def from_folder(
        cls,
        source: str | Path,
        pretrained: bool = True,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        **settings: Any,
    ) -> TextTower:
        """Builds a tower on a model of the Hugging Face hub or of a folder.

        Nothing that is downloaded is executed.

        Arguments
        ---------
        source : str or Path
            Model id, or a folder with config.json and the files of a tokenizer.
        pretrained : bool
            False builds the model of the config with random weights.
        revision : str or None
            Branch, tag or commit on the hub.
        cache_dir : str or Path or None
            Where downloads go; None is the usual place of the hub.
        **settings : Any
            Arguments of `TextTower` besides model and tokenizer.

        Returns
        -------
        TextTower
            The tower, in training mode.

        Raises
        ------
        OSError
            If there is no model or no tokenizer.
        """
        model, tokenizer = load_text_model(source, pretrained, revision, cache_dir)
        return cls(model, tokenizer, **settings).train()

    def train(self, mode: bool = True) -> TextTower:
        """Leaves frozen parts in evaluation mode whatever is asked."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Computes the latents of texts.

        Arguments
        ---------
        texts : sequence of str
            Texts in any language that the model knows.

        Returns
        -------
        Tensor
            Unit vectors (texts, latent_width), float32.

        Raises
        ------
        ValueError
            If there is no text, or one is empty or has lone surrogates.
        """
        return self.encode(*self.tokenize(texts))

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Turns texts into tokens; too long ones are cut, with a warning.

        Arguments
        ---------
        texts : sequence of str
            Texts.

        Returns
        -------
        tokens : Tensor
            (texts, longest) int64, on the device of the model.
        lengths : Tensor
            Own tokens (texts,) int64, on the CPU.

        Raises
        ------
        ValueError
            If there is no text, or one is empty or has lone surrogates.
        """
        tokens, lengths = tokenize(self.tokenizer, texts, self.max_tokens)
        return tokens.to(next(self.model.parameters()).device), lengths

    def encode(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Computes latents from tokens.

        Arguments
        ---------
        tokens : Tensor
            (texts, longest) int64.
        lengths : Tensor
            Own tokens (texts,) int64, on the CPU.

        Returns
        -------
        Tensor
            Unit vectors (texts, latent_width), float32.
        """
        own = torch.arange(tokens.shape[1]) < lengths[:, None]
        mask = own.to(tokens.device)
        trained = any(p.requires_grad for p in self.model.parameters())
        with nullcontext() if trained else torch.no_grad():
            out = self.model(input_ids=tokens, attention_mask=mask.long())
        if self.average_padding or bool(own.all()):
            mask = None
        hidden = self.transformer(out.last_hidden_state, mask)
        return self.to_latents(hidden, mask)


class LatentProjection(nn.Module):
    """Averages a sequence, projects it, and brings it to length 1.

    Computed in single precision, also under autocast: similarities are multiplied by
    a temperature of up to a hundred, which bfloat16 would not survive.
    """

    def __init__(self, width: int, latent_width: int):
        super().__init__()
        self.linear = nn.Linear(width, latent_width)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pools."""
        with torch.autocast(hidden.device.type, enabled=False):
            mean = mean_of_own(precise(hidden), mask)
            latents = self.linear(mean.to(self.linear.weight.dtype))
            return F.normalize(precise(latents), dim=-1)


def mean_of_own(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Averages the positions that are not padding."""
    if mask is None:
        return hidden.mean(dim=1)
    total = torch.where(mask[..., None], hidden, 0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def precise(tensor: Tensor) -> Tensor:
    """Brings numbers to single precision, unless they are better already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
