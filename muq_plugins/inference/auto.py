"""Our encoders as models of transformers, for its Auto classes and pipelines.

What they load is a folder of `muq_plugins.inference.hub`. It is read as everywhere
here, strictly and as data; transformers only gives the forms.
"""

from __future__ import annotations

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
from muq_plugins.inference.auto_config import MuQPluginsConfig
from muq_plugins.lobes.parts import build

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


class MuQPluginsModel(PreTrainedModel):
    """An encoder: waveforms and their mask in, hidden states out."""

    config_class = MuQPluginsConfig
    base_model_prefix = ""
    main_input_name = "input_values"
    _no_split_modules: list[str] = []

    def __init__(self, config: MuQPluginsConfig, encoder: nn.Module | None = None):
        super().__init__(config)
        self.encoder = build(config.encoder) if encoder is None else encoder

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
        encoder = MuQ.from_pretrained(source, "cpu", revision, cache_dir).mods.encoder
        config = config or cls.config_class.from_pretrained(source, revision=revision)
        model = cls(config, encoder.requires_grad_()).eval()
        if isinstance(dtype, str):
            dtype = None if dtype == "auto" else getattr(torch, dtype)
        return model.to(device=place, dtype=dtype)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Writes a folder that `from_pretrained` and `MuQ.from_pretrained` load."""
        from muq_plugins.inference.hub import save_transformers

        heard = getattr(self.config, "trained_on", "")
        save_transformers(folder, self.encoder, heard)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple:
        """Encodes (batch, samples); the mask is 1 where a clip has samples."""
        lens = None
        if attention_mask is not None:
            lens = attention_mask.double().cpu().mean(dim=1)
        out = self.encoder(input_values, lens)
        states = out.hidden_states if output_hidden_states else None
        found = BaseModelOutput(
            last_hidden_state=out.last_hidden_state, hidden_states=states
        )
        return found.to_tuple() if return_dict is False else found


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
        """A batch of waveforms (samples,) or paths, or of one of them.

        Waveforms must be at `sampling_rate`, files are read at it.
        """
        one = isinstance(raw_speech, (str, Path)) or np.ndim(raw_speech[0]) == 0
        if one and not isinstance(raw_speech, (str, Path)):
            one = not isinstance(raw_speech[0], (str, Path))
        clips = [raw_speech] if one else list(raw_speech)
        is_file = [isinstance(clip, (str, Path)) for clip in clips]
        if not all(is_file) and sampling_rate not in (None, self.sampling_rate):
            raise UserError(
                f"The model hears {self.sampling_rate} Hz, got waveforms at "
                f"{sampling_rate} Hz: resample them, or give the paths of files."
            )
        waves = [
            self._read(clip) if file else np.asarray(clip, np.float32)
            for clip, file in zip(clips, is_file, strict=True)
        ]
        return self.pad(
            BatchFeature({"input_values": waves}),
            padding=padding,
            return_tensors=return_tensors,
            **options,
        )

    def _read(self, path: str | Path) -> np.ndarray:
        from muq_plugins.data.audio import read_audio

        return read_audio(path, sample_rate=self.sampling_rate).numpy()
