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

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from muq_plugins.data.opening import MAX_RATE, MIN_RATE
from muq_plugins.errors import UserError
from muq_plugins.inference.lora import add_lora, lora_modules
from muq_plugins.inference.lora import merge_lora as merge_lora  # where it was before
from muq_plugins.inference.muq import MuQ
from muq_plugins.inference.wrapper_names import (
    ModelView,
    cut_layers,
    explain_misfit,
    read_wrapper_arguments,
)
from muq_plugins.lobes.batch_norm import batch_norms
from muq_plugins.lobes.encoders.base import EncoderOutput
from muq_plugins.lobes.encoders.muq import MuQEncoder
from muq_plugins.lobes.finite import check_wavs
from muq_plugins.lobes.lengths import (
    absolute_lengths,
    length_mask,
    normalize_clips,
    pad_clips,
    resample_clips,
    wav2vec2_frames,
)
from muq_plugins.lobes.linear import is_traced

logger = logging.getLogger(__name__)


class PretrainedMuQ(nn.Module):
    """A trained MuQ encoder with the interface of SpeechBrain's HuBERT and MERT.

    What is frozen runs as at inference: without gradients, without dropout and with
    fixed batch statistics, also after ``train()``. Padding never influences the
    output when ``wav_lens`` are given. Attributes of the Encoder contract:
    ``sample_rate`` (what the encoder hears), ``frame_rate`` (of the output) and
    ``width``; ``model`` has the names that recipes use in transformers' models.

    Arguments
    ---------
    source : str or Path
        Whatever `muq_plugins.MuQ.from_pretrained` takes: ``small``, a hub id, an
        official folder, or a folder of ours.
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
    output_frame_rate : float or None
        Frames per second of the output, 25 (None), 50, 75 or 100: each frame is
        repeated, and there are as many as wav2vec2 gives, whose windows last 1.25
        frames: ``floor(output_frame_rate * seconds - 1.25) + 1``.
    batch_statistics : str
        ``fixed``: batch norms use the statistics of the pre-training also in
        training mode; ``moving``: those of the batch, and follow them.
    pad_short_clips : bool
        Pad clips below 43 ms with silence, instead of refusing them.
    **wrapper_arguments : dict
        What SpeechBrain's wrappers pass on to transformers: ``device`` or
        ``device_map`` (one device), ``dtype`` or ``torch_dtype``, ``revision`` and
        ``attn_implementation: sdpa``; others are refused.

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
        output_frame_rate: float | None = None,
        batch_statistics: str = "fixed",
        pad_short_clips: bool = False,
        **wrapper_arguments: Any,
    ):
        super().__init__()
        place, loading = read_wrapper_arguments(self, wrapper_arguments)
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
        if type(input_sample_rate) is not int or not (
            MIN_RATE <= input_sample_rate <= MAX_RATE
        ):
            raise UserError(
                f"input_sample_rate must be a whole number of Hz, {MIN_RATE} to "
                f"{MAX_RATE}, got {input_sample_rate!r}."
            )
        if batch_statistics not in ("fixed", "moving"):
            raise UserError(
                f"batch_statistics must be fixed (those of the pre-training) or moving "
                f"(those of the batches), got {batch_statistics!r}."
            )
        # An empty save_path is the wrappers' way to say that there is none.
        self.encoder = MuQ.from_pretrained(
            source, device="cpu", cache_dir=save_path or None, **loading
        ).mods.encoder
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
        self.batch_statistics = batch_statistics
        self.pad_short_clips = pad_short_clips
        self.sample_rate = self.encoder.sample_rate
        # At 100 Hz there is one for each frame of the spectrogram: nothing is finer.
        rates = [self.encoder.frame_rate * times for times in range(1, 5)]
        self.frame_rate = output_frame_rate or rates[0]
        if self.frame_rate not in rates:
            raise UserError(
                f"output_frame_rate must be {rates[0]:g} Hz, the rate of the encoder, "
                f"or {', '.join(f'{rate:g}' for rate in rates[1:])}, which repeat its "
                f"frames, got {output_frame_rate}."
            )
        self.repeats = rates.index(self.frame_rate) + 1
        self.width = self.encoder.width
        weights = nn.Parameter(torch.zeros(num_layers + 1))
        self.layer_weights = weights if output_weighted_sum else None

        self.encoder.requires_grad_(True)  # from_pretrained gives it frozen
        for part in self._frozen_parts():
            part.requires_grad_(False)
        if lora is not None:
            add_lora(self.encoder, lora)
        self.encoder.to(dtype=place.pop("dtype", None))
        if lora is not None:
            # In half precision, small updates of what is learned would be lost.
            for adapter in lora_modules(self.encoder):
                adapter.float()
        self.train()
        self.to(**place)

    @property
    def model(self) -> ModelView:
        """The encoder by the names that recipes use in transformers' models."""
        return ModelView(self)

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
        self._hold_modes()
        return self

    def _hold_modes(self) -> None:
        """Evaluation mode for what is frozen, whoever has called ``train()`` on it."""
        for part in self._frozen_parts():
            part.eval()
        if self.batch_statistics == "fixed" and not self.freeze:
            for norm in batch_norms(self.encoder):
                norm.eval()
        if self.lora is not None:
            for adapter in lora_modules(self.encoder):
                adapter.train(self.training)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads weights, or says which options they were saved with.

        Arguments
        ---------
        state_dict : Mapping
            Tensors by name.
        strict : bool
            Refuse names that are missing or too many.
        assign : bool
            Take the tensors themselves instead of copying their values.

        Returns
        -------
        NamedTuple
            ``missing_keys`` and ``unexpected_keys``.

        Raises
        ------
        RuntimeError
            If they do not fit: nothing is loaded then.
        """
        if strict and (misfit := explain_misfit(self, state_dict)):
            raise RuntimeError(misfit)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _load_from_state_dict(self, state_dict, prefix, *others) -> None:
        """Says what does not fit also where torch loads a container of this lobe."""
        own = {
            name[len(prefix) :]: tensor
            for name, tensor in state_dict.items()
            if name.startswith(prefix)
        }
        if misfit := explain_misfit(self, own):
            logger.warning(misfit)
        super()._load_from_state_dict(state_dict, prefix, *others)

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
            If a clip is too short for one window of the spectrogram, unless
            ``pad_short_clips``.
        """
        if not is_traced():
            self._hold_modes()
            layers = self.encoder.conformer.layers
            if len(layers) != self.encoder.num_layers:  # somebody has deleted some
                cut_layers(self, layers)
        # A frozen encoder stores nothing for a backward pass.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            out = self._encode(wav, wav_lens)
        if self.layer_weights is not None:
            hidden = self._weighted_sum(out.hidden_states)
        elif self.output_all_hiddens:
            hidden = torch.stack(out.hidden_states)
        else:
            hidden = out.last_hidden_state
        if self.output_norm:
            hidden = normalize_clips(hidden, out.lens)
        return self._repeat(hidden, wav.shape[1], wav_lens)

    extract_features = forward  # the name that SpeechBrain's DiscreteSSL calls

    def _weighted_sum(self, states: Sequence[Tensor]) -> Tensor:
        """The sum of the hidden states by the learned weights."""
        shares = self.layer_weights.softmax(0)
        return sum(share * state for share, state in zip(shares, states, strict=True))

    def _repeat(self, hidden: Tensor, samples: int, wav_lens: Tensor | None) -> Tensor:
        """Brings (..., batch, frames, width) to the frame rate of the output."""
        if self.repeats == 1:
            return hidden

        def count(samples: int) -> int:
            return wav2vec2_frames(samples, self.input_sample_rate, self.frame_rate)

        frames = count(samples)
        hidden = hidden.repeat_interleave(self.repeats, dim=-2)[..., :frames, :]
        lengths = absolute_lengths(wav_lens, samples, hidden.shape[-3])
        if lengths is None:
            return hidden
        own = torch.tensor([count(length) for length in lengths.tolist()])
        mask = length_mask(own, frames, hidden.device)
        return torch.where(mask[..., None], hidden, 0)

    def _encode(self, wavs: Tensor, wav_lens: Tensor | None) -> EncoderOutput:
        """Runs the encoder on waveforms at `input_sample_rate`."""
        check_wavs(wavs, wav_lens)
        rate, least = self.input_sample_rate, self.encoder.min_samples
        if self.pad_short_clips:
            at_input = -(-least * rate // self.sample_rate)
            wavs, wav_lens = pad_clips(wavs, wav_lens, at_input)
        if rate != self.sample_rate:
            wavs, wav_lens = resample_clips(wavs, wav_lens, rate, self.sample_rate)
        try:
            return self.encoder(wavs, wav_lens)
        except ValueError as error:
            batch, samples = wavs.shape
            lengths = absolute_lengths(wav_lens, samples, batch)
            words = str(error)
            if (samples if lengths is None else int(lengths.min())) < least:
                words += " The option pad_short_clips: True of this lobe does so."
            if rate != self.sample_rate:
                words += (
                    f" (Counted at {self.sample_rate} Hz, after resampling from {rate} "
                    f"Hz.)"
                )
            raise ValueError(words) from error

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
