"""A learned sum of MuQ's hidden states, in the place of ``WeightedSSLModel``.

One line of a YAML file changes::

    weighted_ssl_model: !new:muq_plugins.WeightedMuQ
        hub: !ref <ssl_hub>
        save_path: !ref <ssl_folder>
        layernorm: True
        freeze: True
        input_sample_rate: 16000
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.inference.pretrained_muq import PretrainedMuQ


class WeightedMuQ(PretrainedMuQ):
    """A learned sum of all hidden states, with the interface of ``WeightedSSLModel``.

    It takes the place of ``speechbrain.integrations.huggingface.weighted_ssl``'s in
    benchmarks of speech and music representations (MP3S): the encoder is frozen or
    trained, the weights of the sum are always trained.

    Arguments
    ---------
    hub : str or Path
        Whatever `muq_plugins.MuQ.from_pretrained` takes: a hub id, an official
        folder, or a folder of ours.
    save_path : str or Path
        Folder for downloads; empty for that of the hub.
    layernorm : bool
        Normalise each hidden state over its dimensions before the sum.
    freeze : bool
        Train nothing of the encoder.
    **options : dict
        Further arguments of `PretrainedMuQ`, such as ``input_sample_rate``.

    Example
    -------
    >>> import torch
    >>> from muq_plugins.inference.muq import save_muq
    >>> from muq_plugins.lobes import MuQEncoder
    >>> encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> folder = save_muq(getfixture("tmp_path") / "inference", encoder)
    >>> lobe = WeightedMuQ(folder, layernorm=True, freeze=True)
    >>> lobe(torch.randn(2, 24000)).shape, lobe.num_layers, lobe.weights.shape
    (torch.Size([2, 25, 32]), 3, torch.Size([3]))
    """

    def __init__(
        self,
        hub: str | Path,
        save_path: str | Path = "",
        layernorm: bool = False,
        freeze: bool = False,
        **options: Any,
    ):
        super().__init__(
            hub, save_path, freeze=freeze, output_weighted_sum=True, **options
        )
        self.layernorm = layernorm

    @property
    def weights(self) -> nn.Parameter:
        """The trained weights (num_layers,), before the softmax."""
        return self.layer_weights

    @property
    def num_layers(self) -> int:
        """Number of hidden states, the front end's included."""
        return len(self.encoder.conformer.layers) + 1

    def _weighted_sum(self, states: Sequence[Tensor]) -> Tensor:
        """The sum of hidden states that are normalised first, if so wanted."""
        if self.layernorm:
            states = [F.layer_norm(state, state.shape[-1:]) for state in states]
        return super()._weighted_sum(states)
