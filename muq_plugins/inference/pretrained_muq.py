"""MuQ as an encoder of other recipes, in the place of SpeechBrain's HuBERT or MERT.

One line of a YAML file changes::

    wav2vec2: !new:muq_plugins.PretrainedMuQ
        source: !ref <wav2vec2_hub>
        save_path: !ref <wav2vec2_folder>
        output_norm: True
        freeze: True
        input_sample_rate: 16000
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from muq_plugins.errors import UserError, needs
from muq_plugins.inference.muq import MuQ
from muq_plugins.lobes.encoders.base import EncoderOutput
from muq_plugins.lobes.encoders.muq import MuQEncoder
from muq_plugins.lobes.finite import check_wavs
from muq_plugins.lobes.lengths import normalize_clips, resample_clips

# Queries and values of the attention, as in the paper that proposed LoRA.
DEFAULT_TARGETS = ("linear_q", "linear_v")


class PretrainedMuQ(nn.Module):
    """A trained MuQ encoder with the interface of SpeechBrain's HuBERT and MERT.

    What is frozen runs as at inference: without gradients, without dropout and with
    fixed batch statistics, also after ``train()``. Padding never influences the
    output when ``wav_lens`` are given. Attributes of the Encoder contract:
    ``sample_rate`` (what the encoder hears), ``frame_rate`` and ``width``.

    Arguments
    ---------
    source : str or Path
        Whatever `muq_plugins.MuQ.from_pretrained` takes: a hub id, an official
        folder, or a folder of ours.
    save_path : str or Path or None
        Folder for downloads.
    output_norm : bool
        Normalise the output over all frames and dimensions of each clip, as
        SpeechBrain's wrappers do; here only over the clip's own frames.
    freeze : bool
        Train nothing of the encoder.
    freeze_feature_extractor : bool
        Train nothing of the convolutional front end.
    apply_spec_augment : bool
        Only False: MuQ has no embedding for masked frames.
    output_all_hiddens : bool
        Return all hidden states instead of the last.
    input_sample_rate : int
        Rate of the waveforms that `forward` gets, in Hz. A rate other than the
        encoder's is resampled on the device. A wrong value cannot be noticed.
    frozen_layers : int
        Number of conformer layers that are not trained, counted from the front
        end, which is then not trained either.
    output_weighted_sum : bool
        Return a sum of all hidden states with learned weights (softmax, equal at
        the beginning), which are trained even if the encoder is frozen.
    lora : Mapping or None
        Arguments of ``peft.LoraConfig``, such as ``{r: 8}``: only low-rank
        adapters of the encoder are trained, by default of queries and values.

    Raises
    ------
    ValueError
        If options contradict each other, or the model is no `MuQEncoder`.

    Example
    -------
    >>> from muq_plugins.inference.muq import save_muq
    >>> from muq_plugins.lobes import MuQEncoder
    >>> encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> folder = save_muq(getfixture("tmp_path") / "inference", encoder)
    >>> lobe = PretrainedMuQ(folder, save_path=None, input_sample_rate=16000)
    >>> lobe(torch.randn(2, 16000), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 25, 32])
    """

    def __init__(
        self,
        source: str | Path,
        save_path: str | Path | None = None,
        output_norm: bool = False,
        freeze: bool = False,
        freeze_feature_extractor: bool = False,
        apply_spec_augment: bool = False,
        output_all_hiddens: bool = False,
        input_sample_rate: int = 24000,
        frozen_layers: int = 0,
        output_weighted_sum: bool = False,
        lora: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if apply_spec_augment:
            raise UserError(
                "apply_spec_augment is not available: MuQ has no embedding for masked "
                "frames. Set it to False and augment the waveforms, for example with "
                "speechbrain.augment.time_domain.DropChunk and DropFreq."
            )
        if output_all_hiddens and output_weighted_sum:
            raise UserError(
                "output_all_hiddens and output_weighted_sum exclude each other: the "
                "sum takes the place of the separate hidden states. Choose one."
            )
        if lora is not None and (freeze or frozen_layers):
            raise UserError(
                f"lora trains adapters in a frozen encoder, which freeze: {freeze} "
                f"and frozen_layers: {frozen_layers} contradict. Leave them out; to "
                f"adapt some layers only, give lora the key layers_to_transform."
            )
        if input_sample_rate <= 0:
            raise UserError(
                f"input_sample_rate must be a rate in Hz, got {input_sample_rate}."
            )
        self.encoder = MuQ.from_pretrained(source, cache_dir=save_path).mods.encoder
        if not isinstance(self.encoder, MuQEncoder):
            raise UserError(
                f"PretrainedMuQ freezes and adapts the parts of a MuQEncoder, but "
                f"{source} holds a {type(self.encoder).__name__}: load it with "
                f"muq_plugins.MuQ.from_pretrained and take its mods.encoder."
            )
        num_layers = self.encoder.num_layers
        if not 0 <= frozen_layers <= num_layers:
            raise UserError(
                f"frozen_layers must lie between 0 and {num_layers}, the number of "
                f"layers of the model in {source}, got {frozen_layers}."
            )
        self.output_norm = output_norm
        self.freeze = freeze
        self.freeze_feature_extractor = freeze_feature_extractor
        self.output_all_hiddens = output_all_hiddens
        self.input_sample_rate = input_sample_rate
        self.frozen_layers = frozen_layers
        self.lora = lora
        self.sample_rate = self.encoder.sample_rate
        self.frame_rate = self.encoder.frame_rate
        self.width = self.encoder.width
        weights = nn.Parameter(torch.zeros(num_layers + 1))
        self.layer_weights = weights if output_weighted_sum else None

        self.encoder.requires_grad_(True)  # from_pretrained gives it frozen
        for part in self._frozen_parts():
            part.requires_grad_(False)
        if lora is not None:
            add_lora(self.encoder, lora)
        self.train()

    @property
    def model(self) -> SimpleNamespace:
        """The names that recipes for SpeechBrain's wrappers use beyond the call.

        Some call ``wav2vec2.model.feature_extractor._freeze_parameters()``.
        """
        front_end = SimpleNamespace(_freeze_parameters=self.freeze_front_end)
        return SimpleNamespace(feature_extractor=front_end)

    def freeze_front_end(self) -> None:
        """Freezes the convolutional front end, as ``freeze_feature_extractor`` does.

        Example
        -------
        >>> from muq_plugins.inference.muq import save_muq
        >>> from muq_plugins.lobes import MuQEncoder
        >>> encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64,
        ...                      conv_channels=4)
        >>> lobe = PretrainedMuQ(save_muq(getfixture("tmp_path") / "x", encoder))
        >>> lobe.freeze_front_end()
        >>> lobe.train().encoder.conv.training
        False
        """
        self.freeze_feature_extractor = True
        self.encoder.conv.requires_grad_(False)
        self.encoder.conv.eval()

    def train(self, mode: bool = True) -> PretrainedMuQ:
        """Puts what is trained in training mode; what is frozen stays as it is.

        Arguments
        ---------
        mode : bool
            False for evaluation mode.

        Returns
        -------
        PretrainedMuQ
            This module.
        """
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        for adapter in lora_modules(self.encoder):
            adapter.train(mode)
        return self

    def forward(self, wav: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Encodes waveforms.

        Arguments
        ---------
        wav : Tensor
            (batch, samples) at `input_sample_rate`, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        Tensor
            (batch, frames, width) at `frame_rate`, zero beyond the end of a clip; with
            ``output_all_hiddens`` (num_layers + 1, batch, frames, width).

        Raises
        ------
        ValueError
            If a clip is too short for one window of the spectrogram.
        """
        # A frozen encoder stores nothing for a backward pass.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            out = self._encode(wav, wav_lens)
        if self.layer_weights is not None:
            shares = self.layer_weights.softmax(0)
            hidden = sum(
                share * state
                for share, state in zip(shares, out.hidden_states, strict=True)
            )
        elif self.output_all_hiddens:
            hidden = torch.stack(out.hidden_states)
        else:
            hidden = out.last_hidden_state
        return normalize_clips(hidden, out.lens) if self.output_norm else hidden

    def _encode(self, wavs: Tensor, wav_lens: Tensor | None) -> EncoderOutput:
        """Runs the encoder on waveforms at `input_sample_rate`."""
        if self.input_sample_rate == self.sample_rate:
            return self.encoder(wavs, wav_lens)
        check_wavs(wavs, wav_lens)
        wavs, wav_lens = resample_clips(
            wavs, wav_lens, self.input_sample_rate, self.sample_rate
        )
        try:
            return self.encoder(wavs, wav_lens)
        except ValueError as error:
            raise ValueError(
                f"{error} (Counted at {self.sample_rate} Hz, after resampling from "
                f"{self.input_sample_rate} Hz.)"
            ) from error

    def _frozen_parts(self) -> list[nn.Module]:
        """Parts of the encoder without training, apart from adapters in them."""
        encoder = self.encoder
        if self.freeze or self.lora is not None:
            return [encoder]
        parts: list[nn.Module] = []
        if self.freeze_feature_extractor or self.frozen_layers:
            parts.append(encoder.conv)
        if self.frozen_layers:
            # The dropout at the input of the lowest layer.
            parts.append(encoder.conformer.dropout)
            parts += encoder.conformer.layers[: self.frozen_layers]
        return parts


def add_lora(encoder: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Puts trainable adapters into linear layers and freezes everything else.

    A new adapter changes nothing: the encoder computes what it did before until
    the adapter is trained.
    """
    if not isinstance(arguments, Mapping):
        raise TypeError(
            f"lora must hold arguments of peft.LoraConfig by name, such as "
            f"{{r: 8}}, but is {arguments!r}."
        )
    needs("LoRA", "lora", "peft")
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    chosen: dict[str, Any] = {"target_modules": list(DEFAULT_TARGETS), **arguments}
    inject_adapter_in_model(LoraConfig(**chosen), encoder)
    adapted = {
        name: layer
        for name, layer in encoder.named_modules()
        if isinstance(layer, LoraLayer)
    }
    # The encoder uses weights of pointwise convolutions directly, which would leave
    # their adapters out without a word.
    refused = [
        name
        for name, layer in adapted.items()
        if not isinstance(layer.get_base_layer(), nn.Linear)
    ]
    if refused:
        raise ValueError(
            f"LoRA adapts linear layers only, but target_modules "
            f"{chosen['target_modules']} also names {', '.join(refused)}. Choose among "
            f"linear_q, linear_k, linear_v, linear_out, intermediate_dense and "
            f"output_dense."
        )


def lora_modules(encoder: nn.Module) -> list[nn.Module]:
    """The modules that `add_lora` has added, without the layers they adapt."""
    return [
        module
        for name, module in encoder.named_modules()
        if name.rpartition(".")[2].startswith("lora_")
    ]


def merge_lora(encoder: nn.Module) -> None:
    """Adds trained adapters to the weights they adapt and takes them out.

    What remains computes the same, and can be saved like any encoder.
    """
    for name, layer in list(encoder.named_modules()):
        if hasattr(layer, "get_base_layer"):
            layer.merge()
            encoder.set_submodule(name, layer.get_base_layer())
