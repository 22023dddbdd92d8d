"""Our models on public leaderboards: mteb (MAEB) and X-ARES.

> import mteb
> from muq_plugins.inference.leaderboards import mteb_model
> mteb.evaluate(mteb_model("results/muq_mulan/1234"), mteb.get_tasks(["GTZANGenre"]))

Whole recordings are heard, piece by piece, each at its own length: silence that fills a
batch up is never heard.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from muq_plugins.data.windows import SHORTEST_SECONDS
from muq_plugins.errors import UserError, needs
from muq_plugins.inference.encoders import load_encoder
from muq_plugins.inference.mulan import MuQMuLan
from muq_plugins.inference.official_mulan import is_mulan
from muq_plugins.lobes.lengths import resample_clips
from muq_plugins.lobes.parts import encoder_fingerprint

# An encoder hears so much at once of a longer recording.
PIECE_SECONDS = 30.0


class RecordingEncoder(nn.Module):
    """One vector for a recording of any length: the mean over its frames of a layer."""

    def __init__(self, encoder: nn.Module, layer: int = -1):
        super().__init__()
        self.encoder, self.layer = encoder, layer
        states = encoder.num_layers + 1
        if not -states <= layer < states:
            raise UserError(f"There is no layer {layer}: there are {states} states.")
        self.sample_rate, self.latent_width = encoder.sample_rate, encoder.width

    @property
    def fingerprint(self) -> str:
        """What tells this model from all others."""
        return f"{encoder_fingerprint(self.encoder)}-{self.layer}"

    @torch.no_grad()
    def frames(self, wav: Tensor) -> Tensor:
        """Hidden states (frames, width) of a recording (samples,), on its device.

        A last piece that is too short for a frame is dropped unless it is all.
        """
        rate, device = self.sample_rate, next(self.encoder.parameters()).device
        pieces = list(wav.split(round(PIECE_SECONDS * rate)))
        shortest = round(SHORTEST_SECONDS * rate)
        if len(pieces) > 1 and len(pieces[-1]) < shortest:
            pieces.pop()
        pieces[-1] = F.pad(pieces[-1], (0, max(0, shortest - len(pieces[-1]))))
        states = [
            self.encoder(piece[None].to(device)).hidden_states[self.layer][0]
            for piece in pieces
        ]
        return torch.cat(states).float()

    def embed_audio(self, wavs: Tensor) -> Tensor:
        """Vectors (batch, width) of recordings of one length."""
        return torch.stack([self.frames(wav).mean(0) for wav in wavs])


def load_recording_model(
    source: str | Path, device: str | torch.device = "cpu", layer: int | None = None
) -> MuQMuLan | RecordingEncoder:
    """A model of music and text, or a layer of any of `load_encoder`."""
    if not is_mulan(source):
        encoder = load_encoder(source, device)
        return RecordingEncoder(encoder, -1 if layer is None else layer)
    if layer is not None:
        raise UserError(
            f"{source} is a MuQ-MuLan, which has one latent: give no layer."
        )
    return MuQMuLan.from_pretrained(source, device)


class MtebModel:
    """What `mteb` evaluates, without the queries and prompts of language models."""

    def __init__(self, model: MuQMuLan | RecordingEncoder, meta: Any):
        self.model, self.mteb_model_meta = model, meta

    def encode(
        self,
        inputs: DataLoader,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """Vectors (rows, width) of audio or texts; of both, their sum."""
        inputs.collate_fn = list  # recordings have lengths of their own
        return torch.stack([self._row(row) for rows in inputs for row in rows])

    def _row(self, row: dict[str, Any]) -> Tensor:
        vectors = []
        if "audio" in row:
            audio = row["audio"]
            wav = _mono(torch.as_tensor(audio["array"]).float())
            rates = int(audio["sampling_rate"]), self.model.sample_rate
            wavs, _ = resample_clips(wav[None], None, *rates)
            vectors.append(self.model.embed_audio(wavs)[0])
        if "text" in row:
            if not isinstance(self.model, MuQMuLan):
                raise UserError(
                    "This model knows no texts: give a MuQ-MuLan, or choose tasks of "
                    "audio alone."
                )
            vectors.append(self.model.embed_text([row["text"]])[0])
        return torch.stack(vectors).sum(0).cpu()

    def similarity(self, one: Any, other: Any) -> Tensor:
        """Similarities (rows of one, rows of the other)."""
        return self._vectors(one) @ self._vectors(other).T

    def similarity_pairwise(self, one: Any, other: Any) -> Tensor:
        """Similarities of the first rows, the second rows, and so on."""
        return (self._vectors(one) * self._vectors(other)).sum(-1)

    def _vectors(self, vectors: Any) -> Tensor:
        """A MuQ-MuLan compares latents as they are, an encoder their directions."""
        vectors = torch.as_tensor(vectors).float()
        vectors = vectors[None] if vectors.dim() == 1 else vectors
        is_mulan = isinstance(self.model, MuQMuLan)
        return vectors if is_mulan else F.normalize(vectors, dim=-1)


def mteb_model(
    source: str | Path,
    name: str | None = None,
    device: str | torch.device = "cpu",
    layer: int | None = None,
) -> MtebModel:
    """A model for `mteb.evaluate`, under a name such as organisation/model."""
    needs("A model for mteb", "mteb", "mteb")
    from mteb.models import ModelMeta
    from mteb.models.model_meta import ScoringFunction

    model = load_recording_model(source, device, layer)
    is_mulan = isinstance(model, MuQMuLan)
    weights = sum(weight.numel() for weight in model.parameters())
    about = {
        "name": name or f"muq_plugins/{Path(str(source)).name}",
        "revision": model.fingerprint,  # the cache of mteb tells models apart by it
        "n_parameters": weights,
        "embed_dim": model.latent_width,
        "modalities": ["audio", "text"] if is_mulan else ["audio"],
        "framework": ["PyTorch"],
        "similarity_fn_name": ScoringFunction("dot" if is_mulan else "cosine"),
        "use_instructions": False,
    }
    return MtebModel(model, ModelMeta.create_empty(about))


class ForXares(nn.Module):
    """The base of an encoder for X-ARES, which wants a class without arguments.

    > class MyEncoder(ForXares):
    >     def __init__(self):
    >         super().__init__("results/muq/1234")

    X-ARES tells no lengths and takes the mean over all frames. What a recording ends
    with in exact zeros is taken for the filling of its batch: it is not heard, and its
    frames are the mean of the others, so that the mean is that of the recording.
    """

    def __init__(self, source: str | Path, layer: int = -1):
        super().__init__()
        encoder = load_encoder(source)
        self.recordings = RecordingEncoder(encoder, layer)
        self.sampling_rate = encoder.sample_rate
        self.output_dim = encoder.width
        self.hop_size_in_ms = 1000 / encoder.frame_rate

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        """Hidden states (batch, frames, output_dim) of audio (batch, samples)."""
        audio = audio[None] if audio.dim() == 1 else audio
        frames = [self.recordings.frames(wav[: _heard(wav)]) for wav in audio]
        seconds = audio.shape[1] / self.sampling_rate
        count = max(1, round(1000 * seconds / self.hop_size_in_ms))
        return torch.stack([_filled(some, count) for some in frames])


def _heard(wav: Tensor) -> int:
    """Samples before the zeros at the end; all of silence."""
    sounding = wav.nonzero()
    return int(sounding[-1]) + 1 if len(sounding) else len(wav)


def _filled(frames: Tensor, count: int) -> Tensor:
    """So many frames, the last of them the mean of all."""
    lacking = max(0, count - len(frames))
    mean = frames.mean(0, keepdim=True).expand(lacking, -1)
    return torch.cat([frames[:count], mean])


def _mono(wav: Tensor) -> Tensor:
    """(samples,) of channels in either order."""
    if wav.dim() == 1:
        return wav
    return wav.mean(int(wav.shape[0] > wav.shape[1]))
