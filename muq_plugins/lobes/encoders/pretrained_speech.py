"""A pre-trained speech encoder that goes on training on our targets.

The model is one that SpeechBrain's HuBERT, Wav2Vec2 and WavLM wrappers load.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.encoders.base import (
    Encoder,
    EncoderOutput,
    centre_frames,
    encoder_output,
)
from muq_plugins.lobes.finite import check_wavs, check_weights
from muq_plugins.lobes.lengths import absolute_lengths, resample_clips
from muq_plugins.lobes.parts import part
from muq_plugins.lobes.quantizers.base import private_randomness

# Kinds of models whose convolutions, hidden states and settings are alike.
KINDS = ("hubert", "wav2vec2", "wavlm")


@part
class PretrainedSpeechEncoder(Encoder):
    """HuBERT, wav2vec 2.0 or WavLM as an encoder of music.

    Waveforms are resampled to the 16 kHz that the model knows, padded so that each of
    its 20 ms frames is centred on its samples, and normalised clip by clip where the
    model was trained that way. Follows the Encoder contract with a frame rate of
    50 Hz: `ResampledEncoder` takes it to that of a target.

    In a padded batch the clips of each length are computed apart from the others: the
    group normalisation in most of these models would hear the padding otherwise.

    Arguments
    ---------
    source : str or Path or None
        A model id on the Hugging Face hub or a local folder, as SpeechBrain's wrappers
        take it; None for the untrained model that ``model`` describes.
    save_path : str or Path or None
        Where downloads go; None is the usual place of the hub.
    sample_rate : int
        Rate of the waveforms, in Hz.
    freeze_feature_extractor : bool
        Train nothing of the convolutions over the waveform.
    model : Mapping or None
        Instead of a source, what ``config["model"]`` of such an encoder says: the
        model's settings as transformers writes them, its sample rate, and whether
        waveforms are normalised.

    Raises
    ------
    OSError
        If there is no such model.
    ValueError
        If it is of another kind, or not exactly one of ``source`` and ``model`` is
        given.

    Example
    -------
    >>> settings = {"model_type": "hubert", "hidden_size": 32, "num_hidden_layers": 2,
    ...             "num_attention_heads": 4, "intermediate_size": 64,
    ...             "conv_dim": [8] * 7, "num_conv_pos_embedding_groups": 4}
    >>> model = {"settings": settings, "sample_rate": 16000, "normalise": True}
    >>> encoder = PretrainedSpeechEncoder(model=model).eval()
    >>> out = encoder(torch.randn(2, 24000), torch.tensor([1.0, 0.5]))
    >>> out.last_hidden_state.shape, len(out.hidden_states), encoder.frame_rate
    (torch.Size([2, 50, 32]), 3, 50.0)
    """

    # There is no spectrogram in it.
    features = None

    def __init__(
        self,
        source: str | Path | None = None,
        save_path: str | Path | None = None,
        sample_rate: int = 24000,
        freeze_feature_extractor: bool = False,
        model: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if (source is None) == (model is None):
            raise ValueError(
                "PretrainedSpeechEncoder needs either a source (a model id such as "
                "facebook/hubert-base-ls960, or a local folder) or the description of "
                f"a model, got source {source!r} and model {model!r}."
            )
        if source is not None:
            self.model, self.model_rate, self.normalise = _load(source, save_path)
        else:
            self.model = _build(model["settings"])
            self.model_rate = int(model["sample_rate"])
            self.normalise = bool(model["normalise"])
        settings = self.model.config
        # With a layer left out there would be a hidden state too few; and the masking
        # is ours, on the waveform.
        settings.layerdrop = 0.0
        settings.apply_spec_augment = False
        # Everything needed to build the same encoder again without its source.
        self.config: dict[str, Any] = {
            "sample_rate": sample_rate,
            "freeze_feature_extractor": freeze_feature_extractor,
            "model": {
                "settings": _plain(settings),
                "sample_rate": self.model_rate,
                "normalise": self.normalise,
            },
        }
        self.arguments = self.config  # the settings stand in the place of the source
        self.kernel_sizes = tuple(settings.conv_kernel)
        self.strides = tuple(settings.conv_stride)
        self.hop_length = prod(self.strides)  # at the rate of the model
        self.sample_rate = sample_rate
        self.frame_rate = self.model_rate / self.hop_length
        self.width = settings.hidden_size
        self.num_layers = settings.num_hidden_layers
        self.min_samples = round(sample_rate / self.frame_rate)
        self.requires_grad_()

    def requires_grad_(self, requires_grad: bool = True) -> PretrainedSpeechEncoder:
        """Has all of it learn that is not frozen for good, or nothing."""
        super().requires_grad_(requires_grad)
        # Nothing uses it, and processes would wait for its gradient.
        if hasattr(self.model, "masked_spec_embed"):
            self.model.masked_spec_embed.requires_grad_(False)
        if self.config["freeze_feature_extractor"]:
            self.model.feature_extractor._freeze_parameters()
        return self

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> EncoderOutput:
        check_wavs(wavs, wav_lens)
        wavs, wav_lens = resample_clips(
            wavs, wav_lens, self.sample_rate, self.model_rate
        )
        frames = -(-wavs.shape[1] // self.hop_length)
        return each_length(wavs, wav_lens, self._encode, frames)

    def _encode(self, wavs: Tensor) -> list[Tensor]:
        """Hidden states of clips of one length, at the rate of the model."""
        if self.normalise:
            wavs = F.layer_norm(wavs, wavs.shape[1:])
        wavs = wavs.to(self.model.dtype)
        wavs = centre_frames(wavs, self.kernel_sizes, self.strides)
        # Most releases of transformers draw which layers to drop in evaluation, too.
        with torch.random.fork_rng(devices=[], enabled=not self.training):
            out = self.model(wavs, output_hidden_states=True)
        return [*out.hidden_states[:-1], out.last_hidden_state]


def each_length(
    wavs: Tensor,
    wav_lens: Tensor | None,
    encode: Callable[[Tensor], list[Tensor]],
    frames: int = 0,
) -> EncoderOutput:
    """Encodes the clips of each length apart from the others: none hears padding.

    There are so many ``frames`` at least.
    """
    lengths = absolute_lengths(wav_lens, wavs.shape[1], wavs.shape[0])
    if lengths is None:
        return encoder_output(encode(wavs), None, wav_lens)
    parts, order, heard = [], [], lengths.clone()
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        parts.append(torch.stack(encode(wavs[rows, :length])))
        heard[rows] = parts[-1].shape[2]
        order.append(rows)
    frames = max(frames, int(heard.max()))
    parts = [F.pad(part, (0, 0, 0, frames - part.shape[2])) for part in parts]
    states = torch.cat(parts, dim=1)[:, torch.cat(order).argsort()]
    return encoder_output(states.unbind(), heard, wav_lens)


def _load(source: str | Path, save_path: str | Path | None):
    """The model, its sample rate, and whether it wants normalised waveforms."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2

    try:
        # Building it draws initial weights before they are replaced. SpeechBrain's
        # wrapper is one for all kinds; what it does around the model, normalising over
        # the padding, is done clip by clip here.
        with private_randomness():
            wrapper = Wav2Vec2(str(source), str(save_path or HF_HUB_CACHE))
    except OSError as error:
        raise OSError(
            f"No speech encoder can be loaded from {source}: {error}\nGive a local "
            f"folder with config.json, preprocessor_config.json and weights as source."
        ) from error
    _check(wrapper.model.config, source)
    check_weights(wrapper.model.state_dict(), source)
    rate = wrapper.feature_extractor.sampling_rate
    return wrapper.model.float(), rate, bool(wrapper.normalize_wav)


def _build(settings: Mapping[str, Any]) -> nn.Module:
    """A model with random weights."""
    from transformers import AutoConfig, AutoModel

    kind = settings.get("model_type")
    if kind not in KINDS:
        raise ValueError(
            f"A speech encoder must be one of {', '.join(KINDS)}, got {kind!r}."
        )
    # Settings may come from a file: nothing else in it may reach transformers, where
    # some names fetch code.
    unknown = settings.keys() - settings_of(kind) - {"model_type"}
    if unknown:
        raise ValueError(
            f"{', '.join(sorted(unknown))} are no settings of a {kind} model in the "
            f"installed version of transformers."
        )
    config = AutoConfig.for_model(**settings)
    _check(config, "the given settings")
    return AutoModel.from_config(config).float()


def settings_of(kind: str) -> set[str]:
    """Names of the settings that a kind of model has of its own."""
    from transformers import AutoConfig, PretrainedConfig

    return AutoConfig.for_model(kind).to_dict().keys() - PretrainedConfig().to_dict()


def _check(config, source: str | Path) -> None:
    """Refuses models that do not give one frame for each step of the convolutions."""
    if config.model_type not in KINDS or getattr(config, "add_adapter", False):
        adapter = " with an adapter" if getattr(config, "add_adapter", False) else ""
        raise ValueError(
            f"{source} is a {config.model_type} model{adapter}: give one of "
            f"{', '.join(KINDS)} without an adapter."
        )


def _plain(config) -> dict[str, Any]:
    """All settings of a model, as JSON holds them, and not where it came from."""
    own = settings_of(config.model_type)
    settings = json.loads(config.to_json_string(use_diff=False))
    settings = {name: settings[name] for name in sorted(settings) if name in own}
    return {"model_type": config.model_type, **settings}
