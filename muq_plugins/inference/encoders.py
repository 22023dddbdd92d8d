"""Any encoder by its name: ours, official, MusicFM, MERT, those of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING

from muq_plugins.errors import UserError, given_by_user
from muq_plugins.inference.auto_config import MODEL_TYPE
from muq_plugins.inference.folders import (
    CONFIG,
    PICKLE,
    WEIGHTS,
    NoModel,
    download,
    is_hub_id,
    read_config,
)
from muq_plugins.inference.mulan import MuQMuLan
from muq_plugins.inference.muq import MuQ
from muq_plugins.inference.musicfm import SUFFIX, load_musicfm
from muq_plugins.inference.official_mulan import is_mulan
from muq_plugins.inference.transformers_models import (
    EXTRACTOR,
    MERT,
    load_mert,
    load_transformers,
)
from muq_plugins.lobes import PretrainedSpeechEncoder
from muq_plugins.lobes.encoders.base import Encoder, EncoderOutput
from muq_plugins.lobes.encoders.pretrained_speech import KINDS, each_length
from muq_plugins.lobes.finite import check_wavs


class MuLanVectors(Encoder):
    """The vectors of a MuQ-MuLan: one for each clip of its length, the last completed.

    Their mean is what the model says of a recording. There are no layers to read.
    """

    features = None
    num_layers = 0

    def __init__(self, model: MuQMuLan):
        super().__init__()
        self.model = model
        self.sample_rate, self.width = model.sample_rate, model.latent_width
        self.size = round(model.clip_seconds * model.sample_rate)
        self.frame_rate = model.sample_rate / self.size
        self.min_samples = 1
        self.config = {"mulan": model.fingerprint}

    def untrained(self) -> nn.Module:
        """Refused: what a text tower has learned from is no initialisation."""
        raise UserError("untrained: takes an encoder, not a MuQ-MuLan.")

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> EncoderOutput:
        check_wavs(wavs, wav_lens)
        return each_length(wavs, wav_lens, self._encode)

    def _encode(self, wavs: Tensor) -> list[Tensor]:
        lacking = -wavs.shape[1] % self.size
        if wavs.shape[1] > self.size:
            wavs = torch.cat([wavs, wavs[:, :lacking]], dim=1)
        clips = [self.model.embed_audio(clip) for clip in wavs.split(self.size, dim=1)]
        return [torch.stack(clips, dim=1)]


def load_encoder(
    source: str | Path, device: str | torch.device = "cpu", trained: bool = True
) -> nn.Module:
    """A frozen encoder, of what `MuQ.from_pretrained` takes or of other audio models.

    Those are MusicFM (its file of weights), MERT, CLAP's audio tower, a MuQ-MuLan, and
    models of transformers that turn audio into hidden states frame by frame. No code
    that comes with a model is run. Not trained, a model of transformers needs nothing
    but its files of settings.
    """
    if Path(source).suffix == SUFFIX:
        encoder = load_musicfm(source, trained)
        return encoder.requires_grad_(False).eval().to(device)
    if is_mulan(source):
        return MuLanVectors(MuQMuLan.from_pretrained(source, device))
    place = download(str(source), [CONFIG]) if is_hub_id(source) else Path(source)
    config = read_config(place) if (place / CONFIG).is_file() else {}
    kind = config.get("model_type")
    if kind in (None, MODEL_TYPE):
        return MuQ.from_pretrained(source, device).mods.encoder
    if kind not in MERT and kind not in CONFIG_MAPPING:
        raise UserError(
            f"{source} is a {kind!r} model, which transformers does not know, and code "
            "that comes with a model is not run. An encoder is a MuQ or BEST-RQ model "
            "(a run, a folder or a hub id), MERT, or an audio model of transformers."
        )
    if is_hub_id(source):
        weights = [WEIGHTS, "model-*.safetensors", f"{WEIGHTS}.index.json"] * trained
        place = download(str(source), [CONFIG, EXTRACTOR, *weights])
        if trained and not list(place.glob("*.safetensors")):
            place = download(str(source), [CONFIG, EXTRACTOR, PICKLE])
    with given_by_user():
        if kind in MERT:
            encoder = load_mert(place, config, trained)
        elif kind in KINDS and trained:
            try:
                encoder = PretrainedSpeechEncoder(place, sample_rate=16000)
            except OSError as error:
                raise NoModel(str(error)) from error
        else:
            encoder = load_transformers(place, device, trained)
    return encoder.requires_grad_(False).eval().to(device)
