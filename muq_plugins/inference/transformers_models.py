"""Audio models in the layout of transformers, as encoders: what is compared with ours.

Nothing that comes with a model is run: its kind must be one that transformers itself
knows, and its weights are safetensors, or a pickle of nothing but tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    ClapAudioModel,
    ClapModel,
)

from muq_plugins.errors import UserError
from muq_plugins.inference.folders import (
    CONFIG,
    NoModel,
    find_weights,
    load_strictly,
    read_tensors,
)
from muq_plugins.lobes import PretrainedSpeechEncoder
from muq_plugins.lobes.encoders.base import Encoder, EncoderOutput
from muq_plugins.lobes.encoders.pretrained_speech import each_length, settings_of
from muq_plugins.lobes.finite import check_wavs, check_weights
from muq_plugins.lobes.quantizers.base import private_randomness

EXTRACTOR = "preprocessor_config.json"
# A folder may name attention that is fetched; and this one every model has.
SAFE: dict[str, Any] = {"trust_remote_code": False, "attn_implementation": "eager"}
# Shorter clips are followed by silence up to here, of which the frames are dropped.
SHORTEST_SECONDS = 1.0
# In which the frames are counted.
MEASURED_SECONDS = 8
# Nothing of these is used: of the masking of a training, and of CLAP's other tower.
UNUSED = ("masked_spec_embed",)
CLAP_UNUSED = ("text_model.", "text_projection.", "audio_projection.", "logit_scale")
# A model of MERT is a HubertModel of transformers, class by class and name by name
# (scripts/mert_hf of github.com/yizhilll/MERT at 391062e), unless one of these is set:
# constant-Q bands beside the convolutions, and other residuals with other attention.
MERT = ("mert_model", "music_hubert")
MERT_FLAGS = ("feature_extractor_cqt", "deepnorm")


class TransformersEncoder(Encoder):
    """Any model of transformers that turns audio into hidden states frame by frame.

    Each clip is heard at its own length. The frame rate is counted, since every kind
    has another way to state it.
    """

    features = None

    def __init__(self, model: nn.Module, extractor: Any):
        super().__init__()
        self.model, self.extractor = model.eval(), extractor
        model.config.layerdrop, model.config.apply_spec_augment = 0.0, False
        self.sample_rate = int(extractor.sampling_rate)
        self.config = {"model": _plain(model.config), "extractor": _plain(extractor)}
        self.min_samples = round(SHORTEST_SECONDS * self.sample_rate)
        short, long = (self._measured(times) for times in (1, 2))
        # Exact if a frame is a whole part of the seconds in samples, as is usual.
        self.frame_rate = (long[-1].shape[1] - short[-1].shape[1]) / MEASURED_SECONDS
        self.width, self.num_layers = short[-1].shape[2], len(short) - 1
        if self.frame_rate <= 0:
            raise UserError(
                f"A {model.config.model_type!r} model hears clips of one length only: "
                "it cannot be read frame by frame."
            )

    def untrained(self) -> TransformersEncoder:
        """The same with fresh weights."""
        model = AutoModel.from_config(self.model.config, **SAFE)
        return TransformersEncoder(model.float(), self.extractor)

    @torch.no_grad()
    def _measured(self, times: int) -> list[Tensor]:
        samples = times * MEASURED_SECONDS * self.sample_rate
        try:
            states = self._encode(torch.linspace(-0.1, 0.1, samples)[None])
            if len({state.shape for state in states}) > 1 or states[0].dim() != 3:
                raise ValueError("its hidden states differ in size")
        except (ValueError, TypeError, RuntimeError, AttributeError, KeyError) as error:
            raise UserError(
                f"A {self.model.config.model_type!r} model does not turn audio alone "
                f"into hidden states frame by frame: {error}."
            ) from error
        return states

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> EncoderOutput:
        check_wavs(wavs, wav_lens)
        return each_length(wavs, wav_lens, self._encode)

    def _encode(self, wavs: Tensor) -> list[Tensor]:
        """Hidden states of clips of one length."""
        samples = wavs.shape[1]
        lacking = max(0, self.min_samples - samples)
        wavs = nn.functional.pad(wavs, (0, lacking))
        inputs = _extracted(self.extractor, wavs, self.model.device)
        with private_randomness():  # some draw which layers to drop, even now
            out = self.model(**inputs, output_hidden_states=True)
        states = list(out.hidden_states or ())
        if not states:
            raise ValueError("it gives no hidden states")
        if out.last_hidden_state.shape == states[-1].shape:
            states[-1] = out.last_hidden_state
        if lacking:
            heard = max(1, round(samples * self.frame_rate / self.sample_rate))
            states = [state[:, :heard] for state in states]
        return states


class ClapTower(Encoder):
    """CLAP's audio tower: its last layer, whose mean over the frames CLAP projects.

    It hears ten seconds at a time, and shorter ones over and over, as CLAP does. The
    layers below are of other sizes.
    """

    features = None
    num_layers = 0  # beside the one that is read

    def __init__(self, model: ClapAudioModel, extractor: Any):
        super().__init__()
        self.model, self.extractor = model.eval(), extractor
        self.sample_rate = int(extractor.sampling_rate)
        self.config = {"model": _plain(model.config), "extractor": _plain(extractor)}
        self.min_samples = 1
        self.size = int(extractor.nb_max_samples)
        with torch.no_grad():
            states = self._window(torch.zeros(1, self.size))
        self.frames, self.width = states.shape[1:]
        self.frame_rate = self.frames * self.sample_rate / self.size

    def untrained(self) -> ClapTower:
        """The same with fresh weights."""
        model = ClapAudioModel._from_config(self.model.config, **_SAFE_CLAP)
        return ClapTower(model.float(), self.extractor)

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> EncoderOutput:
        check_wavs(wavs, wav_lens)
        return each_length(wavs, wav_lens, self._encode)

    def _encode(self, wavs: Tensor) -> list[Tensor]:
        """The state of clips of one length."""
        states = []
        for window in wavs.split(self.size, dim=1):
            heard = ceil(self.frames * window.shape[1] / self.size)
            states.append(self._window(window)[:, :heard])
        return [torch.cat(states, dim=1)]

    def _window(self, wavs: Tensor) -> Tensor:
        """(batch, frames, width) of ten seconds at most."""
        inputs = _extracted(self.extractor, wavs, self.model.device)
        # The extractor says of one clip in a batch, by chance, that it is longer.
        inputs["is_longer"] = torch.zeros_like(inputs["is_longer"], dtype=torch.bool)
        out = self.model(**inputs)
        return out.last_hidden_state.mean(dim=2).transpose(1, 2)


_SAFE_CLAP = {"attn_implementation": SAFE["attn_implementation"]}


def load_transformers(
    folder: Path, device: str | torch.device, trained: bool = True
) -> nn.Module:
    """An encoder of a folder that transformers reads without code from elsewhere.

    Not trained, it has fresh weights and needs none in the folder.
    """
    extractor = _of_folder(folder, AutoFeatureExtractor.from_pretrained, EXTRACTOR)
    if getattr(extractor, "sampling_rate", None) is None:
        raise UserError(f"{folder / EXTRACTOR} states no sampling_rate.")
    config = _of_folder(folder, AutoConfig.from_pretrained, CONFIG)
    clap = config.model_type.startswith("clap")
    if not trained:
        with private_randomness():
            if clap:
                config = getattr(config, "audio_config", config)
                model = ClapAudioModel._from_config(config, **_SAFE_CLAP)
            else:
                model = AutoModel.from_config(config, **SAFE)
    else:
        kind = AutoModel
        if clap:
            kind = ClapAudioModel if hasattr(config, "depths") else ClapModel
        model = _with_weights(folder, kind, CLAP_UNUSED if clap else UNUSED)
        model = getattr(model, "audio_model", model) if clap else model
    model = model.float().to(device)
    return (ClapTower if clap else TransformersEncoder)(model, extractor)


def load_mert(folder: Path, config: Mapping[str, Any], trained: bool = True):
    """MERT as the HuBERT that it is; refuses those that are something else."""
    for flag in MERT_FLAGS:
        if config.get(flag):
            raise UserError(
                f"{folder} is a MERT with {flag}, which is no HuBERT: it would need "
                "the code that comes with it, which is not run."
            )
    extractor = _of_folder(folder, AutoFeatureExtractor.from_pretrained, EXTRACTOR)
    rates = {config.get("sample_rate"), extractor.sampling_rate}
    if len(rates) > 1:
        raise UserError(
            f"{folder}: {CONFIG} says {config.get('sample_rate')} Hz and {EXTRACTOR} "
            f"{extractor.sampling_rate} Hz: download it again."
        )
    known = settings_of("hubert")
    settings = {name: value for name, value in config.items() if name in known}
    encoder = PretrainedSpeechEncoder(
        sample_rate=extractor.sampling_rate,
        model={
            "settings": {**settings, "model_type": "hubert"},
            "sample_rate": extractor.sampling_rate,
            "normalise": extractor.do_normalize,
        },
    )
    if trained:
        path = find_weights(folder)
        if not path.is_file():
            raise NoModel(f"No weights in {folder}: download it again.")
        unused = lambda name: name in UNUSED  # noqa: E731
        load_strictly(encoder.model, read_tensors(path), path, optional=unused)
    return encoder


def _of_folder(folder: Path, read: Callable, name: str) -> Any:
    """What a file of settings says, without anything that it would run."""
    try:
        return read(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"{folder / name} cannot be read by transformers: {first} Give a model "
            "with a file of settings of a kind that transformers itself knows; code "
            "that comes with a model is not run."
        ) from error


def _with_weights(folder: Path, kind: Any, unused: tuple[str, ...]) -> nn.Module:
    """A model with all its weights: nothing random takes the place of any."""
    try:
        with private_randomness():
            arguments = {**SAFE, "output_loading_info": True, "dtype": torch.float32}
            model, found = kind.from_pretrained(folder, **arguments)
    except (OSError, ValueError, RuntimeError) as error:
        raise NoModel(f"No model can be loaded from {folder}: {error}") from error
    lacking = [*found["missing_keys"], *(one[0] for one in found["mismatched_keys"])]
    lacking = sorted(x for x in lacking if not x.startswith(unused))
    lacking = [name for name in lacking if not name.endswith(UNUSED)]
    if lacking:
        raise UserError(
            f"{folder} lacks {len(lacking)} of the weights of a "
            f"{type(model).__name__}, the first is {lacking[0]}: download it again."
        )
    check_weights(model.state_dict(), folder, UserError)
    return model


def _extracted(extractor: Any, wavs: Tensor, device: torch.device) -> dict[str, Tensor]:
    """What a model wants of waveforms of one length."""
    every = list(wavs.detach().cpu().numpy())
    inputs = extractor(every, sampling_rate=extractor.sampling_rate)
    arrays = {name: np.stack(values) for name, values in inputs.items()}
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).to(device)
        for name, tensor in tensors.items()
    }


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as JSON holds them, without where they came from."""
    plain = json.loads(json.dumps(settings.to_dict(), default=str))
    left_out = ("transformers_version", "dtype", "architectures")
    return {
        name: value
        for name, value in sorted(plain.items())
        if not name.startswith("_") and name not in left_out
    }
