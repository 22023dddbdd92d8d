"""The text tower: texts in, latents out.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from muq_plugins.lobes.mulan.latent_transformer import LatentTransformer
from muq_plugins.lobes.mulan.pooling import LatentProjection
from muq_plugins.lobes.mulan.text_models import (
    frozen_parts,
    load_text_model,
    readable_tokens,
)
from muq_plugins.lobes.mulan.tokens import tokenize


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
        """Sets the mode of all that is not frozen.

        Arguments
        ---------
        mode : bool
            Training or evaluation.

        Returns
        -------
        TextTower
            This tower.
        """
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
