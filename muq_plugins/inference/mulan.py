"""MuQ-MuLan for users: audio and texts in, latents in one space out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from muq_plugins.data.loudness import check_loudness
from muq_plugins.data.windows import read_blocks, stream
from muq_plugins.errors import UserError
from muq_plugins.inference.folders import read_config, trained_on
from muq_plugins.inference.models import FrozenModel, at_inference, pick_device
from muq_plugins.inference.mulan_parts import (
    MuLanParts,
    find_mulan,
    load_mulan,
    mulan_fingerprint,
    save_mulan,
)
from muq_plugins.inference.official import Checkpoint
from muq_plugins.inference.official_mulan import (
    is_official_mulan,
    read_official_mulan,
    save_official_mulan,
)
from muq_plugins.inference.space import Space, latent_space
from muq_plugins.lobes import ContrastiveLoss
from muq_plugins.lobes.finite import check_computed, check_wavs
from muq_plugins.lobes.lengths import absolute_lengths, lengths_on

__all__ = ["MuQMuLan", "save_mulan"]

# What is computed at once; more takes more memory.
TEXTS_AT_ONCE = 64
CLIPS_AT_ONCE = 8


class MuQMuLan(FrozenModel):
    """A trained MuQ-MuLan, in evaluation mode and without gradients.

    The attribute ``mods.text.average_padding`` says whether texts are averaged with
    their padding, as the official class does: then all texts of one call are one
    batch, and a latent depends on the longest of them. By default each latent is that
    of its text alone.

    Arguments
    ---------
    modules : dict
        ``audio``: an `AudioTower`; ``text``: a `TextTower`; and, if its temperature is
        known, ``loss``.
    hparams : dict
        ``sample_rate``, ``clip_seconds``, and an ``audio_normalizer`` of another kind
        than usual.
    **kwargs : dict
        Further arguments of SpeechBrain's ``Pretrained``, such as ``run_opts``.

    Example
    -------
    >>> from transformers import ByT5Tokenizer, RobertaConfig, RobertaModel
    >>> from muq_plugins.lobes import AudioTower, MuQEncoder, TextTower
    >>> tokenizer = ByT5Tokenizer(extra_ids=0)
    >>> config = RobertaConfig(vocab_size=len(tokenizer), pad_token_id=0,
    ...     hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
    ...     intermediate_size=64)
    >>> text = TextTower(RobertaModel(config), tokenizer, latent_width=16)
    >>> audio = AudioTower(MuQEncoder(32, 1, 4, 64, 4), latent_width=16)
    >>> folder = save_mulan(getfixture("tmp_path") / "x", audio, text, clip_seconds=1)
    >>> model = MuQMuLan.from_pretrained(folder)
    >>> music = model.embed_audio(torch.randn(2, 60000))
    >>> texts = model.embed_text(["a slow piano", "drums", "a choir"])
    >>> model.similarity(music, texts).shape
    torch.Size([2, 3])
    """

    HPARAMS_NEEDED = ["sample_rate", "clip_seconds"]
    MODULES_NEEDED = ["audio", "text"]

    # What an official checkpoint holds beside the towers, to be saved again.
    checkpoint: Checkpoint | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str | torch.device | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        audio_model: str | Path | None = None,
        text_model: str | Path | None = None,
    ) -> MuQMuLan:
        """Loads a model; nothing that comes with it is executed.

        Arguments
        ---------
        source : str or Path
            A run folder (``results/<experiment>/<seed>``) or its inference folder, a
            folder in the layout of the official package, or the id of a model on the
            Hugging Face hub, such as ``OpenMuQ/MuQ-MuLan-large``.
        device : str, torch.device or None
            Where the model goes; None is a GPU if there is one (CUDA or Apple's), else
            the CPU, as everywhere.
        revision : str or None
            Branch, tag or commit on the hub.
        cache_dir : str, Path or None
            Where downloads are kept; None is the usual place of the hub.
        audio_model : str, Path or None
            For an official checkpoint: the MuQ whose ``config.json`` it needs, a
            folder or a hub id. None is a folder ``muq`` beside the weights, or else
            the name in its ``config.json``.
        text_model : str, Path or None
            Where config and tokenizer of the text model are. None is a folder beside
            the weights (``text_model`` in ours, ``xlm-roberta`` beside an official
            checkpoint), or else the name in an official ``config.json``.

        Returns
        -------
        MuQMuLan
            The model.

        Raises
        ------
        FileNotFoundError
            If there is no trained model, or a part of it is missing.
        ValueError
            If the folder holds something else, or weights that do not fit.
        """
        folder = find_mulan(source, revision, cache_dir)
        config = read_config(folder)
        checkpoint = None
        if is_official_mulan(config):
            parts, checkpoint = read_official_mulan(
                folder, config, audio_model, text_model, cache_dir
            )
        elif audio_model is not None:
            raise UserError(
                f"{folder} brings the settings of its encoder along: leave "
                f"audio_model={str(audio_model)!r} out."
            )
        else:
            parts = load_mulan(folder, config, text_model)
        model = cls(
            modules=dict(parts.module().items()),
            hparams={
                "sample_rate": parts.audio.sample_rate,
                "clip_seconds": parts.clip_seconds,
            },
            run_opts={"device": pick_device(device)},
        )
        model.checkpoint, model.trained_on = checkpoint, trained_on(config)
        return model

    def save_pretrained(
        self,
        folder: str | Path,
        audio_model: str | None = None,
        text_model: str | None = None,
    ) -> Path:
        """Writes the model in the layout of the official package.

        The official class first loads a MuQ and a text model by their names. For a
        model that was trained here, both are written into the folder, unless names are
        given: then the folder holds each weight once and may be moved.

        Arguments
        ---------
        folder : str or Path
            Where; an older one is replaced.
        audio_model : str or None
            Name of a MuQ of the same size, such as ``OpenMuQ/MuQ-large-msd-iter``.
        text_model : str or None
            Name of a text model of the same size, such as ``xlm-roberta-base``.

        Returns
        -------
        Path
            The folder, for this class and for that of the official package.

        Raises
        ------
        ValueError
            If the official code cannot compute this model.
        """
        parts = MuLanParts(
            self.mods.audio, self.mods.text, self.clip_seconds, self.loss
        )
        return save_official_mulan(
            folder, parts, self.checkpoint, audio_model, text_model
        )

    @property
    def sample_rate(self) -> int:
        """Rate of the waveforms, in Hz."""
        return self.hparams.sample_rate

    @property
    def clip_seconds(self) -> float:
        """Length of the clips that longer audio is cut into."""
        return self.hparams.clip_seconds

    @property
    def latent_width(self) -> int:
        """Size of the latents."""
        return self.mods.audio.latent_width

    @property
    def loss(self) -> ContrastiveLoss | None:
        """What the towers were trained with, if that is known."""
        return self.mods["loss"] if "loss" in self.mods else None

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell this model from all others.

        Equal for copies of it in either layout; computed once, when first read or
        before the weights are converted to another precision, from all weights and
        settings that a latent depends on, and the vocabulary.
        """
        return mulan_fingerprint(self.mods.audio, self.mods.text, self.clip_seconds)

    def space(self, loudness: float | None = None) -> Space:
        """Names the space of the latents.

        Arguments
        ---------
        loudness : float or None
            What `embed_file` is given.

        Returns
        -------
        Space
            Its ``name`` is equal where latents can be compared, and nowhere else.
        """
        return latent_space(self.fingerprint, loudness)

    def forward(
        self,
        wavs: Tensor | None = None,
        wav_lens: Tensor | None = None,
        texts: Sequence[str] | None = None,
    ) -> Tensor:
        """Computes the latents of audio or texts; see `embed_audio`, `embed_text`.

        Arguments
        ---------
        wavs : Tensor or None
            (batch, samples).
        wav_lens : Tensor or None
            Relative lengths (batch,).
        texts : sequence of str or None
            Texts, instead of audio.

        Returns
        -------
        Tensor
            (batch or texts, latent_width).

        Raises
        ------
        ValueError
            If both or none are given.
        """
        if (wavs is None) == (texts is None):
            raise ValueError("Give either wavs or texts, one of them.")
        if texts is not None:
            return self.embed_text(texts)
        return self.embed_audio(wavs, wav_lens)

    @at_inference
    def embed_audio(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Computes the latents of audio of any length.

        A recording is cut into consecutive clips of `clip_seconds`; its start completes
        the last one. The latents of the clips are unit vectors, and their average is
        the result, so it is shorter than 1 where the clips differ. All of this is what
        the official class does, but for recordings under half a clip: those are
        repeated here until the clip is full, and only once there.

        Arguments
        ---------
        wavs : Tensor or array
            (batch, samples) at `sample_rate`, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        Tensor
            (batch, latent_width), float32, on the model's device.

        Raises
        ------
        ValueError
            If the audio has another shape, no samples, or samples that are not finite.
        """
        wavs = torch.as_tensor(wavs)
        wav_lens = lengths_on(wav_lens, wavs.device)
        check_wavs(wavs, wav_lens)
        batch, samples = wavs.shape
        lengths = absolute_lengths(wav_lens, samples, batch)
        sizes = [samples] * batch if lengths is None else lengths.tolist()
        tracks = [wav[:size].float() for wav, size in zip(wavs, sizes, strict=True)]
        for index, wav in enumerate(tracks):
            if len(wav) == 0:
                raise ValueError(f"Recording {index} of {batch} has no samples.")
        return self._average([wav] for wav in tracks)

    @at_inference
    def embed_file(self, path: str | Path, loudness: float | None = None) -> Tensor:
        """Computes the latent of a file of any length in constant memory.

        Arguments
        ---------
        path : str or Path
            The audio file, at any sample rate.
        loudness : float or None
            In LUFS (ITU-R BS.1770), which the file is brought to first, such as -16;
            None leaves it as it is.

        Returns
        -------
        Tensor
            (latent_width,), that of `embed_audio` for the whole file.

        Raises
        ------
        AudioError
            If the file cannot be read to its end, or is empty.
        ValueError
            If no music has such a loudness.
        """
        check_loudness(loudness)
        return self._average([read_blocks(path, self.sample_rate, loudness)])[0]

    @at_inference
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Computes the latents of texts.

        Arguments
        ---------
        texts : sequence of str
            Texts in any language that the model knows. Of one that is longer than the
            model can read, the end is left out, with a warning.

        Returns
        -------
        Tensor
            Unit vectors (texts, latent_width), float32, on the model's device.

        Raises
        ------
        ValueError
            If there is no text, one is empty, or something else than a text.
        """
        tower = self.mods.text
        tokens, lengths = tower.tokenize(texts)
        at_once = len(tokens) if tower.average_padding else TEXTS_AT_ONCE
        parts = []
        for start in range(0, len(tokens), at_once):
            some = lengths[start : start + at_once]
            rows = tokens[start : start + at_once]
            if not tower.average_padding:
                rows = rows[:, : int(some.max())]
            parts.append(tower.encode(rows, some))
        latents = torch.cat(parts)
        check_computed(latents, tower)
        return latents

    def similarity(self, audio: Tensor, text: Tensor) -> Tensor:
        """Compares latents by their dot products.

        Arguments
        ---------
        audio : Tensor
            (audio, latent_width).
        text : Tensor
            (texts, latent_width).

        Returns
        -------
        Tensor
            (audio, texts).

        Raises
        ------
        ValueError
            If one of them has another shape.
        """
        for name, latents in (("audio", audio), ("text", text)):
            if latents.dim() != 2 or latents.shape[1] != self.latent_width:
                raise ValueError(
                    f"Latents of {name} must have the shape (n, {self.latent_width}), "
                    f"got {tuple(latents.shape)}."
                )
        return audio @ text.to(audio).T

    def calc_similarity(self, audio_latents: Tensor, text_latents: Tensor) -> Tensor:
        """Compares latents; the name that `similarity` has in the official class.

        Arguments
        ---------
        audio_latents : Tensor
            (n, latent_width).
        text_latents : Tensor
            (m, latent_width).

        Returns
        -------
        Tensor
            (n, m).
        """
        return self.similarity(audio_latents, text_latents)

    def _average(self, recordings: Iterable[Iterable[Tensor]]) -> Tensor:
        """The latents of recordings that come in blocks."""
        size = round(self.clip_seconds * self.sample_rate)
        clips = (
            (number, clip.audio)
            for number, blocks in enumerate(recordings)
            for clip in stream(blocks, 1, size, size, last="wrapped")
        )
        found: dict[int, list[Tensor]] = {}
        # Clips of several recordings are computed together.
        while batch := list(islice(clips, CLIPS_AT_ONCE)):
            wavs = torch.stack([clip for _, clip in batch]).to(self.device)
            # On the CPU: not every device has double precision.
            for (number, _), latent in zip(
                batch, self.mods.audio(wavs).cpu().double(), strict=True
            ):
                found.setdefault(number, []).append(latent)
        means = [sum(each) / len(each) for each in found.values()]
        latents = torch.stack(means).float()
        check_computed(latents, self.mods.audio)
        return latents.to(self.device)
