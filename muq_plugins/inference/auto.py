"""Our encoders as models of transformers, for its Auto classes and pipelines.

What they load is a folder of `muq_plugins.inference.hub`. It is read as everywhere
here, strictly and as data; transformers only gives the forms.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel

from muq_plugins.errors import UserError
from muq_plugins.inference.auto_config import SIZES, MuQPluginsConfig
from muq_plugins.lobes.parts import build, describe

logger = logging.getLogger(__name__)

# Arguments of transformers that say where files come from, or nothing at all here.
IGNORED = (
    "token",
    "proxies",
    "subfolder",
    "force_download",
    "local_files_only",
    "trust_remote_code",
    "attn_implementation",
    "code_revision",
    "adapter_kwargs",
    "use_safetensors",
    "low_cpu_mem_usage",
)
# The same of saving: there is one file of weights, always safetensors.
IGNORED_IN_SAVING = (
    "max_shard_size",
    "safe_serialization",
    "save_original_format",
    "save_peft_format",
    "token",
)


class MuQPluginsModel(PreTrainedModel):
    """An encoder: waveforms and their mask in, hidden states out."""

    config_class = MuQPluginsConfig
    base_model_prefix = ""
    main_input_name = "input_values"
    _no_split_modules: list[str] = []
    # Of the model card that it came with: the licence, and what a person says.
    said: tuple[str | None, str] = (None, "")

    def __init__(self, config: MuQPluginsConfig, encoder: nn.Module | None = None):
        super().__init__(config)
        self.encoder = build(config.encoder) if encoder is None else encoder
        for name, own in SIZES.items():
            asked, has = getattr(config, name), getattr(self.encoder, own)
            if asked not in (0, has):  # 0 is in configs that do not say
                raise UserError(
                    f"The config has {name}={asked!r}, but the encoder that it "
                    f"describes has {has!r}, which nothing can change: leave it out."
                )
            setattr(config, name, has)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        config: MuQPluginsConfig | None = None,
        dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        **others: Any,
    ) -> MuQPluginsModel:
        """Loads a folder or a model on the hub, in evaluation mode."""
        from muq_plugins.inference.folders import find_model
        from muq_plugins.inference.hub import CARD, said_in_card
        from muq_plugins.inference.muq import MuQ

        dtype = others.pop("torch_dtype", dtype)
        for name, value in others.items():
            if name not in IGNORED and not name.startswith("_") and value:
                raise UserError(
                    f"{cls.__name__}.from_pretrained cannot honour {name}={value!r}: "
                    f"leave it out."
                )
        place = device_map.get("") if isinstance(device_map, dict) else device_map
        if place == "auto" or (isinstance(device_map, dict) and place is None):
            raise UserError(
                f"device_map={device_map!r}: the encoder goes to one device, such as "
                f"cuda:0."
            )
        folder = find_model(source, revision, cache_dir, [CARD])
        encoder = MuQ.from_pretrained(folder, "cpu").mods.encoder
        config = config or cls.config_class.from_pretrained(folder)
        model = cls(config, encoder.requires_grad_()).eval()
        model.said = said_in_card(folder)
        if isinstance(dtype, str):
            dtype = None if dtype == "auto" else getattr(torch, dtype)
        return model.to(device=place, dtype=dtype)

    def save_pretrained(
        self,
        folder: str | Path,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        **options: Any,
    ) -> None:
        """Writes a folder that `from_pretrained` and `MuQ.from_pretrained` load.

        Licence, words of the card and remote code are those of where it came from.
        """
        from muq_plugins.inference.folders import load_strictly
        from muq_plugins.inference.hub import save_transformers

        for name, value in options.items():
            if name not in IGNORED_IN_SAVING and value:
                raise UserError(
                    f"{type(self).__name__}.save_pretrained cannot honour "
                    f"{name}={value!r}: leave it out. (To push, load the folder with "
                    f"muq_plugins.MuQ.from_pretrained and call its push_to_hub.)"
                )
        if not is_main_process:
            return
        encoder = self.encoder
        if state_dict is not None:
            encoder = build(describe(encoder))
            tensors = {k.removeprefix("encoder."): v for k, v in state_dict.items()}
            load_strictly(encoder, tensors, "state_dict")
        heard = getattr(self.config, "trained_on", "")
        remote = bool(getattr(self.config, "auto_map", None))
        save_transformers(folder, encoder, heard, *self.said, remote)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple:
        """Encodes (batch, samples); the mask is 1 where a clip has samples."""
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if return_dict is None:
            return_dict = self.config.return_dict
        lens = None
        if attention_mask is not None:
            mask = attention_mask.cpu().double()  # which Apple's GPUs do not have
            if (
                not torch.isin(mask, mask.new_tensor([0, 1])).all()
                or (mask.diff(dim=1) > 0).any()
            ):
                raise UserError(
                    "attention_mask must be ones, and zeros after them where a clip "
                    "is padded: pad at the right, as the feature extractor does."
                )
            lens = mask.mean(dim=1)
        out = self.encoder(input_values, lens)
        states = out.hidden_states if output_hidden_states else None
        found = BaseModelOutput(
            last_hidden_state=out.last_hidden_state, hidden_states=states
        )
        return found if return_dict else found.to_tuple()


# What a clip can be that says its own sampling rate.
KNOWN_RATE = (str, Path, Mapping)


class MuQPluginsFeatureExtractor(SequenceFeatureExtractor):
    """Waveforms or files as a padded batch; the spectrogram is part of the model."""

    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 24000,
        padding_value: float = 0.0,
        **others: Any,
    ):
        others.setdefault("return_attention_mask", True)
        super().__init__(feature_size, sampling_rate, padding_value, **others)

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
        **options: Any,
    ) -> BatchFeature:
        """A batch of clips, or of one of them.

        A clip is a waveform (samples,) at `sampling_rate`, the path of a file, or the
        ``array`` and ``sampling_rate`` of a row of ``datasets``.
        """
        if isinstance(raw_speech, KNOWN_RATE):
            raw_speech = [raw_speech]
        if len(raw_speech) == 0:
            raise UserError("There is no audio: give waveforms, or paths of files.")
        first = raw_speech[0]
        one = np.ndim(first) == 0 and not isinstance(first, KNOWN_RATE)
        clips = [raw_speech] if one else list(raw_speech)
        if sampling_rate is None and not all(isinstance(x, KNOWN_RATE) for x in clips):
            logger.warning(
                "Waveforms came without their sampling_rate: they are taken to be at "
                "%d Hz. Pass it, and any other rate is an error.",
                self.sampling_rate,
            )
        return self.pad(
            BatchFeature(
                {"input_values": [self._hear(x, sampling_rate) for x in clips]}
            ),
            padding=padding,
            return_tensors=return_tensors,
            **options,
        )

    @property
    def pad_token_id(self) -> int:
        """What a pipeline that collects batches asks a tokenizer for."""
        raise UserError(
            "Pipelines of transformers cannot batch music, they would not take its "
            "padding off again: leave batch_size out, or give several clips to the "
            "feature extractor and what it makes of them to the model."
        )

    def _hear(self, clip: Any, rate: int | None) -> np.ndarray:
        if isinstance(clip, (str, Path)):
            from muq_plugins.data.audio import read_audio

            return read_audio(clip, sample_rate=self.sampling_rate).numpy()
        if isinstance(clip, Mapping):
            if not {"array", "sampling_rate"} <= clip.keys():
                raise UserError(
                    f"A clip has the keys {', '.join(map(str, clip))}: it needs array "
                    f"and sampling_rate."
                )
            clip, rate = clip["array"], clip["sampling_rate"]
        if rate not in (None, self.sampling_rate):
            raise UserError(
                f"The model hears {self.sampling_rate} Hz, got waveforms at {rate} Hz: "
                f"resample them, or give the paths of files."
            )
        wave = np.asarray(clip)
        if wave.ndim != 1 or wave.size == 0:
            raise UserError(
                f"A waveform is (samples,), mono and not empty, got {wave.shape}: "
                f"average its channels."
            )
        if wave.dtype.kind != "f":
            raise UserError(
                f"Waveforms are numbers from -1 to 1, got {wave.dtype}: divide 16-bit "
                f"integers by 32768.0."
            )
        return wave.astype(np.float32)
