"""Latents of a frozen encoder as features: what iterative training quantizes.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from muq_plugins.lobes.parts import part


@part(unsaved=("encoder",))
class TeacherFeatures(nn.Module):
    """The output of one block of a frozen encoder (MuQ_iter, arXiv 2501.01108).

    Follows the Features contract. The teacher is used, not owned: it is no submodule,
    so that its weights are neither trained, nor saved again with each tokenizer and
    checkpoint, nor given other log-mel statistics. Instead the ``config`` names it by
    its fingerprint. It always hears audio in evaluation mode, in float32 whatever the
    precision around it, so that codes do not depend on who computes them.

    Blocks are counted from 1 as in the paper: ``layer=10`` is ``hidden_states[10]``,
    the output of the tenth block; ``hidden_states[0]``, what comes out of the front
    end, is no block. (The authors' iterative code takes the entry 9 of that list for
    what the paper calls the tenth layer: ``layer=9`` here.) The latents are taken as
    they are, as the authors do: each block ends with a layer normalisation, so they
    have no scale that would have to be measured.

    Arguments
    ---------
    encoder : nn.Module
        The teacher: any module that follows the Encoder contract. It is frozen and
        put in evaluation mode.
    layer : int
        Block whose output is used, from 1.
    fingerprint : str
        What tells this teacher from others, for ``config``.

    Raises
    ------
    ValueError
        If there is no such block.

    Example
    -------
    >>> from muq_plugins.lobes import MuQEncoder
    >>> encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> features = TeacherFeatures(encoder, layer=1, fingerprint="a1b2")
    >>> feats, lens = features(torch.randn(1, 24000))
    >>> feats.shape, features.config, list(features.state_dict())
    (torch.Size([1, 25, 32]), {'teacher': 'a1b2', 'layer': 1}, [])
    """

    def __init__(self, encoder: nn.Module, layer: int, fingerprint: str):
        super().__init__()
        blocks = encoder.num_layers
        if not 1 <= layer <= blocks:
            raise ValueError(
                f"There is no layer {layer}: the teacher has the blocks 1 to {blocks}. "
                f"Blocks are counted from 1, as in the paper; the front end is none."
            )
        # In a tuple, where nn.Module does not look for submodules.
        self._teacher = (encoder.eval().requires_grad_(False),)
        self.layer = layer
        self.config: dict[str, Any] = {"teacher": fingerprint, "layer": layer}
        self.sample_rate = encoder.sample_rate
        self.frame_rate = encoder.frame_rate
        self.output_size = encoder.width

    def _apply(self, fn: Callable, recurse: bool = True) -> TeacherFeatures:
        """Lets the teacher follow to another device."""
        self._teacher[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Computes the latents.

        Arguments
        ---------
        wavs : Tensor
            Waveforms (batch, samples) at `sample_rate`, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        feats : Tensor
            (batch, frames, width) float32 at `frame_rate`.
        lens : Tensor
            Relative lengths (batch,) in frames.
        """
        with torch.autocast(wavs.device.type, enabled=False):
            out = self._teacher[0](wavs, wav_lens)
        return out.hidden_states[self.layer], out.lens
