"""Stage *mulan*: two towers learn to agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from muq_plugins.lobes.mulan.contrastive import (
    ContrastiveLoss,
    gather_with_gradient,
    negative_pairs,
)
from muq_plugins.lobes.mulan.towers import precise
from muq_plugins.lobes.objectives.base import Measure, Reference, StageOutput


class ContrastiveTraining(nn.Module):
    """Two towers and a contrastive loss.

    In training, the pairs of all processes are negatives of each other, with exact
    gradients; in evaluation each batch stands alone.

    Arguments
    ---------
    audio_tower : nn.Module
        ``latents = audio_tower(wavs, wav_lens)``.
    text_tower : nn.Module
        ``latents = text_tower.encode(*text_tower.tokenize(texts))``.
    loss : ContrastiveLoss
        Compares the latents.
    chunk_size : int or None
        Clips and texts that go through the towers at a time (gradient caching, arXiv
        2101.06983): a big contrastive batch on a small memory. Each chunk is computed
        again in the backward pass. Loss and gradients are those of the whole batch,
        except that dropout draws other numbers. None computes the whole batch at once.

    Raises
    ------
    ValueError
        If the towers do not fit together, or the text tower averages padding, which
        depends on what else is in a chunk.

    Example
    -------
    >>> from muq_plugins.lobes import AudioTower, InfoNCE, MuQEncoder, TextTower
    >>> from transformers import ByT5Tokenizer, RobertaConfig, RobertaModel
    >>> encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64,
    ...     conv_channels=4)
    >>> tokenizer = ByT5Tokenizer(extra_ids=0)  # bytes: needs no vocabulary
    >>> config = RobertaConfig(vocab_size=len(tokenizer), pad_token_id=0,
    ...     hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
    ...     intermediate_size=64)
    >>> stage = ContrastiveTraining(
    ...     AudioTower(encoder, latent_width=16),
    ...     TextTower(RobertaModel(config), tokenizer, latent_width=16),
    ...     InfoNCE(),
    ... )
    >>> out = stage(torch.randn(2, 24000), None, ["a slow piano", "drums"])
    >>> sorted(out.sums)
    ['accuracy', 'chance', 'loss', 'similarity', 'temperature']
    """

    measures = {
        "loss": Measure(
            "Contrastive loss", references={"chance": Reference("chance", "chance")}
        ),
        "accuracy": Measure("Own text found in the batch", "share", better=+1),
    }

    def __init__(
        self,
        audio_tower: nn.Module,
        text_tower: nn.Module,
        loss: ContrastiveLoss,
        chunk_size: int | None = None,
    ):
        super().__init__()
        if audio_tower.latent_width != text_tower.latent_width:
            raise ValueError(
                f"The audio tower has latents of {audio_tower.latent_width} numbers, "
                f"the text tower of {text_tower.latent_width}: give both the same "
                f"latent_width."
            )
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}: give 1 or more, or null.")
        averages = getattr(text_tower, "average_padding", False)
        if chunk_size is not None and averages:
            raise ValueError(
                "With average_padding a latent depends on the other texts, so chunks "
                "cannot equal the whole batch: switch off average_padding, or set "
                "chunk_size to null."
            )
        self.audio_tower = audio_tower
        self.text_tower = text_tower
        self.loss = loss
        self.chunk_size = chunk_size

    @property
    def sample_rate(self) -> int:
        """Of the waveforms that it takes, in Hz."""
        return self.audio_tower.sample_rate

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None,
        texts: Sequence[str],
        identities: Tensor | None = None,
    ) -> StageOutput:
        """Compares a batch of pairs.

        Arguments
        ---------
        wavs : Tensor
            (pairs, samples).
        wav_lens : Tensor or None
            Relative lengths (pairs,); None when nothing is padded.
        texts : sequence of str
            The text of each clip.
        identities : Tensor or None
            (pairs, kinds) int64: pairs that share a value of a column are not
            negatives of each other. All processes must give them, or none.

        Returns
        -------
        StageOutput
            Loss and statistics over the pairs of all processes in training, of this
            batch in evaluation: the loss, what it is by chance, the share of clips
            whose own text is the most similar, the similarity of the own pairs, and
            the temperature.

        Raises
        ------
        ValueError
            If there are not as many texts as clips, or none of either.
        """
        if len(texts) != len(wavs):
            raise ValueError(f"{len(wavs)} clips need as many texts, got {len(texts)}.")
        if len(texts) == 0:
            raise ValueError("The batch has no pairs: leave it out.")
        audio = torch.cat(self._audio_latents(wavs, wav_lens))
        text = torch.cat(self._text_latents(texts))
        if self.training:
            # One exchange for both.
            latents = gather_with_gradient(torch.cat([audio, text], dim=1))
            audio, text = latents.chunk(2, dim=1)
            if identities is not None:
                identities = gather_with_gradient(identities.to(audio.device))
        return self._compare(audio, text, identities)

    def compile(self, **options: Any) -> None:
        """Compiles the audio encoder, nearly all of the work.

        Arguments
        ---------
        **options : Any
            As for ``torch.compile``.
        """
        self.audio_tower.encoder.compile(**options)

    def after_update(self) -> None:
        """Tells the loss that the optimizer has made an update."""
        self.loss.after_update()

    def _audio_latents(self, wavs: Tensor, wav_lens: Tensor | None) -> list[Tensor]:
        """Latents of clips, chunk by chunk."""
        return [
            self._run(
                len(wavs),
                self.audio_tower,
                wavs[part],
                None if wav_lens is None else wav_lens[part],
            )
            for part in self._chunks(len(wavs))
        ]

    def _text_latents(self, texts: Sequence[str]) -> list[Tensor]:
        """Latents of texts, chunk by chunk."""
        tokens, lengths = self.text_tower.tokenize(texts)
        latents = []
        for part in self._chunks(len(texts)):
            longest = int(lengths[part].max())
            latents.append(
                self._run(
                    len(texts),
                    self.text_tower.encode,
                    tokens[part, :longest],
                    lengths[part],
                )
            )
        return latents

    def _chunks(self, size: int) -> list[slice]:
        """Which rows go through a tower together."""
        step = self.chunk_size or size
        return [slice(start, start + step) for start in range(0, size, step)]

    def _run(self, size: int, tower: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """Computes a chunk, without keeping what the backward pass can compute again.

        A batch of one chunk fits in memory as it is.
        """
        chunked = self.chunk_size is not None and self.chunk_size < size
        if chunked and torch.is_grad_enabled():
            return checkpoint(tower, *inputs, use_reentrant=False)
        return tower(*inputs)

    def _compare(
        self, audio: Tensor, text: Tensor, identities: Tensor | None
    ) -> StageOutput:
        """Loss and statistics."""
        loss = self.loss(audio, text, identities)
        pairs = len(audio)
        # Rounded to bfloat16, texts that are nearly alike would be one.
        with torch.no_grad(), torch.autocast(audio.device.type, enabled=False):
            similarities = precise(audio) @ precise(text).T
            negatives = negative_pairs(pairs, identities, audio.device)
            own = similarities.diagonal()
            # The best must be the own text alone: where all are alike, none is found.
            rivals = similarities.masked_fill(~negatives, -torch.inf).amax(dim=1)
            compared = negatives.any(dim=1)
            hits = (own > rivals) & compared
            whole = torch.full((), float(pairs), device=audio.device)
            chance = self.loss.chance(pairs, identities)
            sums = {
                "loss": loss.detach() * whole,
                "chance": whole * chance,
                "accuracy": hits.sum().float(),
                "similarity": own.sum(),
                "temperature": self.loss.temperature() * whole,
            }
        weights = dict.fromkeys(sums, whole) | {"accuracy": compared.sum().float()}
        return StageOutput(loss=loss, sums=sums, weights=weights)
