"""MuQ for users: waveforms in, hidden states out; and as a teacher of other models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from muq_plugins.data.audio import duration_for
from muq_plugins.data.loudness import check_loudness
from muq_plugins.data.windows import (
    EDGE_SECONDS,
    FrameChunk,
    embed_windows,
    mean_of_frames,
    read_blocks,
)
from muq_plugins.errors import UserError
from muq_plugins.inference.folders import (
    CONFIG,
    TRAINED_ON,
    find_model,
    load_weights,
    other_kind,
    read_config,
    save_folder,
    trained_on,
)
from muq_plugins.inference.lora import lora_modules
from muq_plugins.inference.models import FrozenModel, at_inference, pick_device
from muq_plugins.inference.official import (
    Checkpoint,
    build_encoder,
    is_official,
    read_official,
    save_official,
)
from muq_plugins.inference.space import (
    FADE_SECONDS,
    FLOAT,
    INT8,
    WINDOW_SECONDS,
    Space,
    track_space,
)
from muq_plugins.lobes.encoders.base import EncoderOutput
from muq_plugins.lobes.encoders.muq import MuQEncoder
from muq_plugins.lobes.features import TeacherFeatures
from muq_plugins.lobes.finite import check_computed
from muq_plugins.lobes.int8 import to_int8
from muq_plugins.lobes.lengths import lengths_on
from muq_plugins.lobes.parts import (
    attribute,
    build,
    describe,
    encoder_fingerprint,
)

# MuQ's own encoder, whose folders hold its arguments only; any other names its class.
MUQ_ENCODER = "muq_encoder"
ENCODER = "encoder"

# What SpeechBrain's from_hparams needs to build the same model from the folder.
HYPERPARAMETERS = """\
# Inference with SpeechBrain: muq_plugins.MuQ.from_hparams(source="this folder")
sample_rate: {sample_rate}
audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
    sample_rate: !ref <sample_rate>
encoder: {encoder}
{arguments}
modules:
    encoder: !ref <encoder>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        encoder: !ref <encoder>
    custom_hooks:
        encoder: !name:muq_plugins.inference.folders.pretrainer_hook
"""


class MuQ(FrozenModel):
    """A trained encoder, in evaluation mode and without gradients.

    Arguments
    ---------
    modules : dict
        ``encoder``: any module that follows the Encoder contract.
    hparams : dict
        ``sample_rate``, and an ``audio_normalizer`` of another kind than usual.
    **kwargs : dict
        Further arguments of SpeechBrain's ``Pretrained``, such as ``run_opts``.

    Example
    -------
    >>> from muq_plugins.lobes import MuQEncoder
    >>> encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> folder = save_muq(getfixture("tmp_path") / "inference", encoder)
    >>> model = MuQ.from_pretrained(folder)
    >>> out = model(torch.randn(1, 24000))
    >>> out.last_hidden_state.shape, len(out.hidden_states)
    (torch.Size([1, 25, 32]), 3)
    """

    HPARAMS_NEEDED = ["sample_rate"]
    MODULES_NEEDED = ["encoder"]

    # What an official checkpoint holds beside the encoder, to be saved again.
    checkpoint: Checkpoint | None = None
    # What it computes in, see `Space`. (SpeechBrain calls its own option `precision`.)
    computes_in: str = FLOAT

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str | torch.device | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
    ) -> MuQ:
        """Loads a model; nothing that comes with it is executed.

        Arguments
        ---------
        source : str or Path
            ``small``, the model that comes with the package, a run folder
            (``results/<experiment>/<seed>``) or its inference folder, a folder in the
            layout of the official package, or the id of a model on the Hugging Face
            hub, such as ``OpenMuQ/MuQ-large-msd-iter``. A folder here wins over a
            model that has the same name.
        device : str, torch.device or None
            Where the model goes; None is a GPU if there is one (CUDA or Apple's), else
            the CPU, as everywhere.
        revision : str or None
            Branch, tag or commit on the hub.
        cache_dir : str, Path or None
            Where downloads are kept; None is the usual place of the hub.

        Returns
        -------
        MuQ
            The model.

        Raises
        ------
        FileNotFoundError
            If there is no trained model.
        ValueError
            If the folder holds something else, or weights that do not fit.
        """
        folder = find_model(source, revision, cache_dir)
        config = read_config(folder)
        checkpoint = None
        if is_official(config):
            checkpoint = read_official(folder, config)
            encoder = build_encoder(checkpoint, folder)
        else:
            encoder = _load_encoder(folder, config)
        model = cls(
            modules={"encoder": encoder},
            hparams={"sample_rate": encoder.sample_rate},
            run_opts={"device": pick_device(device)},
        )
        model.checkpoint, model.trained_on = checkpoint, trained_on(config)
        return model

    @property
    def config(self) -> dict[str, Any]:
        """The settings of the encoder; equal for models that compute alike."""
        return self.mods.encoder.config

    @property
    def sample_rate(self) -> int:
        """Rate of the waveforms, in Hz."""
        return self.mods.encoder.sample_rate

    @property
    def frame_rate(self) -> float:
        """Rate of the hidden states, in Hz."""
        return self.mods.encoder.frame_rate

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all weights and of what comes before them.

        Equal for copies of the model in either layout; computed once, when first read
        or before the weights are converted to another precision.
        """
        return encoder_fingerprint(self.mods.encoder)

    def space(self, layer: int = -1, loudness: float | None = None) -> Space:
        """Names the space that vectors of `embed_track` are in.

        Arguments
        ---------
        layer : int
            Which of the hidden states.
        loudness : float or None
            What `embed_track` is given.

        Returns
        -------
        Space
            Its ``name`` is equal where vectors can be compared, and nowhere else.

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        [number] = self.find_layers([layer])
        return track_space(self.fingerprint, number, loudness, self.computes_in)

    def int8(self) -> MuQ:
        """Computes in 8-bit integers from now on, on a CPU several times as fast.

        Hidden states differ by about one percent (``docs/speed.md``), so vectors are in
        a space of their own. Nothing else can be done with the model afterwards: not
        trained, moved, exported or saved.

        Returns
        -------
        MuQ
            Itself.

        Raises
        ------
        ValueError
            If the model is on another device or its encoder no `MuQEncoder`, or if the
            processor has no fast 8-bit products.

        Example
        -------
        >>> model = MuQ.from_pretrained("small", device="cpu").int8()
        >>> model(torch.zeros(1, 24000)).last_hidden_state.shape
        torch.Size([1, 25, 256])
        """
        if self.computes_in != INT8:
            self.fingerprint  # noqa: B018  (of the weights before they are rounded)
            try:
                to_int8(self.mods.encoder)
            except ValueError as error:
                raise UserError(str(error)) from error
            self.computes_in = INT8
        return self

    def save_pretrained(
        self,
        folder: str | Path,
        layout: str = "official",
        card: str = "",
        license: str | None = None,
        remote_code: bool = False,
    ) -> Path:
        """Writes the model as a folder that this class loads, and another program.

        Arguments
        ---------
        folder : str or Path
            Where; an older one is replaced.
        layout : str
            ``official``: that of the official package; what an official checkpoint
            held beside the encoder is written again. ``transformers``: for the Auto
            classes of transformers, with a model card.
        card : str
            For ``transformers``: Markdown that the model card begins with.
        license : str or None
            For ``transformers``: as the hub writes it, such as ``apache-2.0``.
        remote_code : bool
            For ``transformers``: a file that imports this package, or says how to get
            it, for those who load the folder with ``trust_remote_code`` instead of
            ``import muq_plugins``.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        ValueError
            If the layout cannot hold this encoder, or has no place for the rest.

        Example
        -------
        >>> folder = getfixture("tmp_path") / "mine"
        >>> model = MuQ.from_pretrained("small")
        >>> model = MuQ.from_pretrained(model.save_pretrained(folder, "transformers"))
        >>> from transformers import AutoModel
        >>> AutoModel.from_pretrained(folder).config.hidden_size
        256
        """
        encoder = self.mods.encoder
        if layout == "transformers":
            from muq_plugins.inference.hub import save_transformers

            return save_transformers(
                folder, encoder, self.trained_on, license, card, remote_code
            )
        if layout != "official" or card or license or remote_code:
            raise UserError(
                f"layout={layout!r}: it is official, which has no place for card, "
                f"license and remote_code, or transformers."
            )
        return save_official(folder, encoder, self.checkpoint)

    def push_to_hub(
        self,
        repo_id: str,
        card: str = "",
        license: str | None = None,
        remote_code: bool = False,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Makes the model a repository on the Hugging Face hub, for transformers too.

        Arguments
        ---------
        repo_id : str
            Name of the repository, ``owner/name``; it is made if it is missing.
        card : str
            Markdown that the model card begins with.
        license : str or None
            As the hub writes it, such as ``apache-2.0``.
        remote_code : bool
            See `save_pretrained`.
        private : bool
            Whether a new repository is seen by its owner alone.
        token : str or None
            Of the hub; None is the one that ``hf auth login`` has stored.

        Returns
        -------
        str
            The address of the repository.

        Raises
        ------
        ValueError
            If the hub refuses it or cannot be reached.
        """
        from tempfile import TemporaryDirectory

        from muq_plugins.inference.hub import push_folder, save_transformers

        with TemporaryDirectory() as name:
            folder = save_transformers(
                Path(name, "model"),
                self.mods.encoder,
                self.trained_on,
                license,
                card,
                remote_code,
                repo_id,
            )
            return push_folder(folder, repo_id, private, token)

    @at_inference
    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        mask_padding: bool = True,
        output_hidden_states: bool = True,
    ) -> EncoderOutput:
        """Encodes waveforms.

        Arguments
        ---------
        wavs : Tensor or array
            (batch, samples) at the model's sample rate, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.
        mask_padding : bool
            Keep the padding from influencing a clip's own frames. False is what the
            official code computes: convolutions and attention hear the padding.
        output_hidden_states : bool
            False leaves out all hidden states but the last, as in the official class.

        Returns
        -------
        EncoderOutput
            ``last_hidden_state`` and ``hidden_states``, on the model's device; also as
            ``out[0]`` and ``out["hidden_states"]``.

        Raises
        ------
        ValueError
            If the audio is not of the kind above, or the hidden states are not finite.
        """
        wavs = torch.as_tensor(wavs, device=self.device)  # arrays of numpy as well
        wav_lens = lengths_on(wav_lens, self.device)
        if mask_padding or wav_lens is None:
            out = self.mods.encoder(wavs, wav_lens)
        else:
            out = replace(self.mods.encoder(wavs), lens=wav_lens)
        # What is not finite in one layer is not finite in the last.
        check_computed(out.last_hidden_state, self.mods.encoder)
        return out if output_hidden_states else replace(out, hidden_states=None)

    def embed_file(self, path: str | Path, layer: int = -1) -> Tensor:
        """Computes the hidden states of a file of any length.

        Arguments
        ---------
        path : str or Path
            The audio file, at any sample rate.
        layer : int
            Which of the hidden states, 0 is the front end and -1 the last.

        Returns
        -------
        Tensor
            (frames, width) on the CPU, as `embed_long` gives them out.

        Raises
        ------
        AudioError
            If the file cannot be read to its end.
        ValueError
            If there is no such layer.
        """
        return torch.cat([chunk.hidden for chunk in self.embed_long(path, layer=layer)])

    def embed_track(
        self, path: str | Path, layer: int = -1, loudness: float | None = None
    ) -> Tensor:
        """Computes one vector of a whole file, of any length, in constant memory.

        It is the mean of what `embed_long` gives out, as a unit vector: what
        ``muq-plugins embed`` and ``index`` write, in the space that `space` names.
        ``muq-plugins doctor --stability`` measures what changes it.

        Arguments
        ---------
        path : str or Path
            The audio file, at any sample rate.
        layer : int
            Which of the hidden states, 0 is the front end and -1 the last.
        loudness : float or None
            In LUFS (ITU-R BS.1770), which the file is brought to first, such as -16;
            None leaves it as it is. Hidden states depend on the level.

        Returns
        -------
        Tensor
            (width,) on the CPU.

        Raises
        ------
        AudioError
            If the file cannot be read to its end, or is too short for a frame.
        ValueError
            If there is no such layer, or no music has such a loudness.

        Example
        -------
        >>> import soundfile
        >>> path = str(getfixture("tmp_path") / "noise.wav")
        >>> soundfile.write(path, torch.randn(24000).numpy() / 9, 24000)
        >>> vector = MuQ.from_pretrained("small").embed_track(path)
        >>> vector.shape, round(float(vector.norm()), 4)
        (torch.Size([256]), 1.0)
        """
        check_loudness(loudness)
        encoder = self.mods.encoder
        duration_for(path, encoder.min_samples / encoder.sample_rate)
        blocks = read_blocks(path, encoder.sample_rate, loudness)
        mean = mean_of_frames(self.embed_long(blocks, layer=layer))
        return nn.functional.normalize(mean, dim=0).float()

    @torch.no_grad()
    def embed_long(
        self,
        audio: str | Path | Iterable[Tensor],
        window: float = WINDOW_SECONDS,
        overlap: float = FADE_SECONDS,
        layer: int | Sequence[int] = -1,
    ) -> Iterator[FrameChunk]:
        """Embeds audio of any length in constant memory.

        It is encoded window by window; where two windows overlap, their hidden states
        fade linearly from the first to the second. This is not one pass over all of it:
        layer 0 of a MuQ is the same everywhere (0.4 s of audio beside each window are
        heard and dropped), but the layers above attend to their window and to no more.
        With random weights of 12 layers they differ from one pass by a median of 2 %
        on random chords.
        ``benchmarks/fidelity.py`` measures it for a model and a file.

        Arguments
        ---------
        audio : str, Path or iterable of Tensor
            A file at any sample rate, or blocks (samples,) at the model's rate.
        window : float
            Length of a window, in seconds.
        overlap : float
            What two windows share, in seconds.
        layer : int or sequence of int
            Which of the hidden states, 0 is the front end and -1 the last; several are
            side by side in one wide state.

        Returns
        -------
        Iterator of FrameChunk
            Times in seconds and hidden states (frames, layers * width) on the CPU,
            every frame once, in order.

        Raises
        ------
        AudioError
            If the file cannot be read to its end.
        ValueError
            If there is no such layer, or the windows make no sense.

        Example
        -------
        >>> from muq_plugins.lobes import MuQEncoder
        >>> encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64,
        ...                      conv_channels=4)
        >>> model = MuQ.from_pretrained(save_muq(getfixture("tmp_path"), encoder))
        >>> minute = (torch.randn(24000) for second in range(60))
        >>> chunks = list(model.embed_long(minute, window=10.0, overlap=1.0))
        >>> sum(len(chunk.times) for chunk in chunks), chunks[1].times[0]
        (1500, tensor(9., dtype=torch.float64))
        """
        encoder = self.mods.encoder
        layers = self.find_layers([layer] if isinstance(layer, int) else layer)
        if isinstance(audio, (str, Path)):
            audio = read_blocks(audio, encoder.sample_rate)

        def embed(wav: Tensor) -> Tensor:
            states = self(wav[None]).hidden_states
            return torch.cat([states[number][0] for number in layers], 1).float().cpu()

        yield from embed_windows(
            embed,
            audio,
            frame_samples=round(encoder.sample_rate / encoder.frame_rate),
            frame_rate=encoder.frame_rate,
            window=round(window * encoder.frame_rate),
            overlap=round(overlap * encoder.frame_rate),
            edge=round(EDGE_SECONDS * encoder.frame_rate),
        )

    def find_layers(self, layers: Iterable[int]) -> list[int]:
        """Numbers hidden states from 0, each once, in the order given.

        Arguments
        ---------
        layers : iterable of int
            Hidden states, 0 is the front end and -1 the last.

        Returns
        -------
        list of int
            The same, none of them negative.

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        states = self.mods.encoder.num_layers + 1
        layers = list(layers)
        for layer in layers:
            if not -states <= layer < states:
                raise UserError(
                    f"There is no layer {layer}: the model has {states} hidden states, "
                    f"0 (front end) to {states - 1} (behind the last layer), or "
                    f"-{states} to -1 counted from the end."
                )
        return list(dict.fromkeys(layer % states for layer in layers))


def save_muq(folder: str | Path, encoder: nn.Module, heard: str = "") -> Path:
    """Writes an inference folder for `MuQ.from_pretrained` and ``from_hparams``.

    ``heard`` is what the encoder was trained on, for those who use it. Raises
    TypeError if the encoder is no part, which nobody could build again.
    """
    if lora_modules(encoder):
        raise UserError(
            f"{folder}: the encoder has LoRA adapters, for which a model that is built "
            f"from there has no place. Make them part of its weights first, with "
            f"muq_plugins.inference.lora.merge_lora(encoder)."
        )
    description = describe(encoder)
    if type(encoder) is MuQEncoder:
        config = {"kind": MUQ_ENCODER, "encoder": encoder.config}
        call, arguments = "!new:muq_plugins.lobes.MuQEncoder", encoder.config
    else:
        config = {"kind": ENCODER, "encoder": description}
        call = "!apply:muq_plugins.lobes.encoders.build_encoder"
        arguments = {"description": description}
    if heard:
        config[TRAINED_ON] = heard
    text = yaml.safe_dump(arguments, sort_keys=False)
    hyperparameters = HYPERPARAMETERS.format(
        sample_rate=encoder.sample_rate,
        encoder=call,
        arguments="".join(f"    {line}\n" for line in text.splitlines()).rstrip(),
    )
    return save_folder(
        folder, encoder.state_dict(), config, hyperparameters, loadable="encoder"
    )


def check_encoder(encoder: nn.Module) -> None:
    """Refuses an encoder that could not be saved or probed once it is trained.

    Raises TypeError if it is no part, ValueError if it lacks what its contract names.
    """
    for name in ("num_layers", "min_samples", "features", "config"):
        attribute(encoder, name)
    describe(encoder)


def _load_encoder(folder: Path, config: dict[str, Any]) -> nn.Module:
    """Builds the encoder of a folder from `save_muq` and loads its weights."""
    kind = config.get("kind")
    if kind == MUQ_ENCODER:
        description = {"class": MuQEncoder.__name__, "arguments": config["encoder"]}
    elif kind == ENCODER:
        description = config["encoder"]
    else:
        raise other_kind(
            folder,
            config,
            f"{MUQ_ENCODER} or other {ENCODER}: give the folder of a pre-training run, "
            f"or a checkpoint of the official MuQ package",
        )
    try:
        encoder = build(description)
    except ValueError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from error
    load_weights(encoder, folder)
    return encoder


def teacher_features(source: str | Path, layer: int) -> TeacherFeatures:
    """Loads a teacher, to be used as features of a target or a tokenizer.

    Experiment files call it with ``!apply:``; lobes read no files themselves. The
    source is what `MuQ.from_pretrained` takes; blocks are counted from 1, as in the
    paper. It is on the CPU, and follows the module that it becomes a part of.
    """
    encoder = MuQ.from_pretrained(source, "cpu").mods.encoder
    try:
        return TeacherFeatures(encoder, layer, encoder_fingerprint(encoder))
    except ValueError as error:
        raise UserError(f"The teacher in {source} does not fit. {error}") from error
