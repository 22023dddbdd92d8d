"""Trained tokenizers: saved, loaded into a target, or as they are for users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from muq_plugins.errors import UserError
from muq_plugins.inference.folders import (
    CONFIG,
    WEIGHTS,
    NoModel,
    find_folder,
    is_hub_id,
    load_strictly,
    load_weights,
    other_kind,
    packaged,
    read_config,
    read_tensors,
    save_folder,
)
from muq_plugins.inference.models import pick_device
from muq_plugins.inference.muq import teacher_features
from muq_plugins.lobes import LogMel, ResidualVQ, StackedFrames, Target
from muq_plugins.lobes.features import TeacherFeatures
from muq_plugins.lobes.lengths import lengths_on
from muq_plugins.lobes.parts import attribute, build, describe
from muq_plugins.lobes.target import Crops, mark_trained

KIND = "tokenizer"
WEIGHT_FILES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
# A trained weight normalisation has left the point where it was made by far more.
UNTRAINED = 1e-4


class MelRVQ(Target):
    """The trained tokenizer of MuQ: ``codes = mel_rvq(wavs, wav_lens)``.

    Codes are (batch, frames, N) int64, and `PADDING_CODE` beyond the end of a clip.
    Attributes: ``sample_rate``, ``frame_rate``, ``num_codebooks``, ``codebook_size``.

    Arguments
    ---------
    features : StackedFrames
        Stacked log-mel frames.
    quantizer : ResidualVQ
        The quantizer.

    Example
    -------
    >>> from muq_plugins.inference.tokenizer import save_tokenizer
    >>> target = Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 16))
    >>> folder = save_tokenizer(getfixture("tmp_path") / "inference", target, "")
    >>> mel_rvq = MelRVQ.from_pretrained(folder)
    >>> codes = mel_rvq(torch.randn(1, 24000))
    >>> codes.shape, mel_rvq.decode(codes).shape
    (torch.Size([1, 25, 2]), torch.Size([1, 25, 512]))
    """

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: str | torch.device | None = None
    ) -> MelRVQ:
        """Loads a trained tokenizer; nothing that comes with it is executed.

        Arguments
        ---------
        source : str or Path
            ``small``, the tokenizer that comes with the package, the folder of a
            tokenizer run, its inference folder, or the tokenizer file that the authors
            of MuQ publish. A folder here wins over the package's, if it has that name.
        device : str, torch.device or None
            Where it goes; None is a GPU if there is one, else the CPU.

        Returns
        -------
        MelRVQ
            The tokenizer.

        Raises
        ------
        FileNotFoundError
            If there is none: an untrained one never takes its place.
        ValueError
            If it is something else, or was never trained.
        """
        tokenizer = any_tokenizer(source, pick_device(device))
        if not isinstance(tokenizer, cls):
            raise UserError(
                f"{source} holds {type(tokenizer.features).__name__} with "
                f"{type(tokenizer.quantizer).__name__}, not a Mel-RVQ tokenizer: load "
                f"it with muq_plugins.inference.tokenizer.any_tokenizer."
            )
        return tokenizer

    @torch.no_grad()
    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        crops: Crops | None = None,
    ) -> Tensor:
        """Computes the codes (batch, frames, N), on the tokenizer's device."""
        device = next(self.quantizer.parameters()).device
        wavs = torch.as_tensor(wavs, device=device)
        return super().forward(wavs, lengths_on(wav_lens, device), crops)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Turns codes back into stacked, normalised log-mel frames.

        Arguments
        ---------
        codes : Tensor
            (batch, frames, n) int64 without padding; with n < N, the first levels only.

        Returns
        -------
        Tensor
            (batch, frames, stacked size); ``features.unstack`` takes frames apart.
        """
        return self.quantizer.decode(codes)


def save_tokenizer(folder: str | Path, target: Target, hyperparameters: str) -> Path:
    """Writes the inference folder of a tokenizer, with the YAML of its experiment."""
    config = _identity(target)
    try:
        config["parts"] = [describe(target.features), describe(target.quantizer)]
    except TypeError:
        pass  # it is loaded into a target that the experiment makes
    return save_folder(folder, target.state_dict(), config, hyperparameters)


def check_tokenizer(target: nn.Module) -> None:
    """Refuses a target whose quantizer could not be trained apart from it, or saved.

    Raises UserError if it has several views: which of them a tokenizer belongs to,
    nobody says. ValueError if its parts do not say what codes depend on.
    """
    if not isinstance(target, Target):
        raise UserError(
            f"A {type(target).__name__} takes no trained tokenizer: its quantizers are "
            f"used as they are made. Set tokenizer and tokenizer_folder to null, or "
            f"choose a target of one view."
        )
    json.dumps(_identity(target))


def _find_tokenizer(source: str | Path) -> Path:
    """The inference folder of a tokenizer's run, or of a pre-training's first stage."""
    stage = packaged(source) / "tokenizer"
    return find_folder(stage if stage.is_dir() else source, KIND)


def load_tokenizer(target: Target, source: str | Path) -> None:
    """Loads a trained tokenizer into a target, strictly.

    Raises NoModel if there is none, UserError if it does not fit, with the settings
    that differ, and what `check_tokenizer` does.
    """
    check_tokenizer(target)
    folder = _find_tokenizer(source)
    found, expected = read_config(folder), _identity(target)
    differences = [
        f"{key} is {found.get(key)} there, {value} here"
        for key, value in expected.items()
        if found.get(key) != value
    ]
    if differences:
        raise UserError(
            f"The tokenizer in {folder} does not fit this experiment: "
            f"{'; '.join(differences)}. Change the YAML or give another folder."
        )
    load_weights(target, folder)
    mark_trained(target.quantizer)


class AbsentTeacher(nn.Module):
    """In the place of the latents of a teacher that was not given: it cannot hear."""

    def __init__(self, config: dict[str, Any], quantizer: nn.Module):
        super().__init__()
        self.config = config["features_config"]
        self.teacher, self.layer = self.config["teacher"], self.config["layer"]
        self.sample_rate = config["sample_rate"]
        self.frame_rate = config["frame_rate"]
        self.output_size = quantizer.input_size

    def refuse(self, source: str | Path) -> UserError:
        """The error for one who wants codes of audio."""
        return UserError(
            f"{source} quantizes layer {self.layer} of a teacher, the model "
            f"{self.teacher}: give it with --teacher, as the training that "
            f"made the tokenizer was given it."
        )

    def replaced(self, source: str | Path, teacher: str | Path) -> TeacherFeatures:
        """The latents themselves, of the teacher; another one is refused."""
        features = teacher_features(teacher, self.layer)
        if features.config != self.config:
            raise UserError(
                f"{source} was trained on the latents of the model {self.teacher}, and "
                f"--teacher {teacher} is {features.config['teacher']}: codes of "
                f"another model mean nothing."
            )
        return features


def any_tokenizer(
    source: str | Path,
    device: str | torch.device = "cpu",
    teacher: str | Path | None = None,
) -> Target:
    """Loads a trained tokenizer of any kind; nothing that comes with it is executed.

    The source is the folder of a tokenizer run, its inference folder, or the tokenizer
    file that the authors of MuQ publish. The result is a `MelRVQ` if it is one. One of
    the latents of a teacher can decode without it, but hears nothing.
    """
    path = Path(source)
    if path.suffix in WEIGHT_FILES and not path.is_dir():
        if teacher is not None:
            raise _without_teacher(source, StackedFrames, teacher)
        return _read_file(path).to(device)
    _refuse_model(path)
    folder = _find_tokenizer(source)
    config = read_config(folder)
    if config.get("kind") != KIND:
        raise other_kind(folder, config, f"{KIND}: give the folder of a tokenizer run")
    tensors = read_tensors(folder / WEIGHTS)
    try:
        parts = config.get("parts") or _parts_of_before(config, tensors)
        first, second = parts
        quantizer = build(second)
        if first["class"] == TeacherFeatures.__name__:
            features = AbsentTeacher(config, quantizer)
        else:
            features = build(first)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder} holds a tokenizer with features {config.get('features')} and "
            f"quantizer {config.get('quantizer')}, which cannot be built from its "
            f"folder alone: {error}"
        ) from error
    if teacher is not None:
        if not isinstance(features, AbsentTeacher):
            raise _without_teacher(source, type(features), teacher)
        features = features.replaced(source, teacher)
    is_mel_rvq = isinstance(features, StackedFrames) and type(quantizer) is ResidualVQ
    target = (MelRVQ if is_mel_rvq else Target)(features, quantizer)
    load_strictly(target, tensors, folder / WEIGHTS)
    return target.to(device)


def _without_teacher(
    source: str | Path, features: type, teacher: str | Path
) -> UserError:
    """The error for a teacher that nobody needs."""
    return UserError(
        f"{source} makes codes of {features.__name__}, not of the latents of a "
        f"teacher: leave --teacher {teacher} out."
    )


def _identity(target: Target) -> dict[str, Any]:
    """What must be equal for codes to mean the same."""
    return {
        "kind": KIND,
        "features": type(target.features).__name__,
        "features_config": attribute(target.features, "config"),
        "quantizer": type(target.quantizer).__name__,
        "sample_rate": target.sample_rate,
        "frame_rate": target.frame_rate,
        "num_codebooks": target.num_codebooks,
        "codebook_size": target.codebook_size,
        **attribute(target.quantizer, "config"),
    }


def _parts_of_before(config: dict[str, Any], tensors: dict[str, Tensor]) -> list[dict]:
    """The parts of a folder from before folders described them."""
    arguments = dict(config["features_config"])
    if isinstance(inner := arguments.get("features"), dict):
        name = "Mfcc" if "num_coefficients" in inner else "LogMel"
        arguments["features"] = {"class": name, "arguments": inner}
    features = {"class": config["features"], "arguments": arguments}
    prefix, name = "quantizer.", config["quantizer"]
    tensors = {k.removeprefix(prefix): t for k, t in tensors.items() if prefix in k}
    if name == "ResidualVQ":
        sizes = _residual_sizes(tensors)
    elif name == "FiniteScalarQuantization":
        sizes = {key: config[key] for key in ("num_codebooks", "levels")}
        sizes["input_size"] = tensors["in_proj.weight"].shape[1]
    elif name == "KMeans":
        codebook_size, input_size = tensors["centres"].shape
        sizes = {"codebook_size": codebook_size, "input_size": input_size}
    else:
        raise UserError(f"the folder says nothing of the sizes of a {name}.")
    return [features, {"class": name, "arguments": sizes}]


def _residual_sizes(tensors: dict[str, Tensor]) -> dict[str, int]:
    """The sizes of a residual quantizer that its tensors show."""
    first = "quantizers.0.codebook.weight"
    downs = [
        name
        for name in tensors
        if name.startswith("quantizers.0.in_proj.") and name.endswith("weight_v")
    ]
    if first not in tensors or not downs:
        names = ", ".join(sorted(tensors)[:5])
        raise UserError(
            f"There is no residual vector quantizer in it: its tensors are {names}, "
            f"... instead of {first} and so on."
        )
    codebook_size, codebook_dim = tensors[first].shape
    return {
        # In the order of the layers: the first one tells the size of the input.
        "input_size": tensors[sorted(downs)[0]].shape[1],
        "num_codebooks": sum(name.endswith(".codebook.weight") for name in tensors),
        "codebook_size": codebook_size,
        "codebook_dim": codebook_dim,
        "projection_depth": len(downs),
    }


def _read_file(path: Path) -> MelRVQ:
    """The official tokenizer file, whose log-mel is that of the paper."""
    if not path.is_file():
        raise NoModel(
            f"No tokenizer file {path}: check the path. An untrained tokenizer "
            "never takes its place."
        )
    tensors = read_tensors(path)
    try:
        quantizer = ResidualVQ(**_residual_sizes(tensors))
    except UserError as error:
        raise UserError(f"{path} is no tokenizer. {error}") from error
    load_strictly(quantizer, tensors, path)
    if _is_untrained(quantizer):
        raise UserError(
            f"The quantizer in {path} was never trained: all of its weights have "
            "exactly the lengths they were made with. Checkpoints of iterative "
            "training hold such a quantizer, and its codes mean nothing. Take the "
            "tokenizer file that the authors publish."
        )
    return MelRVQ(StackedFrames(LogMel()), quantizer)


def _refuse_model(path: Path) -> None:
    """MuQ models hold a quantizer as well, but not one to tokenize with."""
    is_model = (path / CONFIG).is_file() and "w2v2_config" in read_config(path)
    if is_model or (is_hub_id(path) and path.parts[0] == "OpenMuQ"):
        what = "is a MuQ model" if is_model else "would be a MuQ model (all of OpenMuQ)"
        raise UserError(
            f"{path} {what}, not a tokenizer. After iterative training the "
            "quantizer inside a model is not the one that made its labels, and by the "
            "published settings it was never trained. Take the file of the tokenizer "
            "that the authors publish, or the folder of a tokenizer run."
        )


def _is_untrained(quantizer: ResidualVQ) -> bool:
    """Whether every weight is as long as it was made.

    Weight normalisation starts with lengths that equal the norms of the directions.
    Training changes both, each on its own. (The weight decay that unfrozen official
    tokenizers suffered shrinks both alike, and does not hide the beginning.)
    """
    for name, length in quantizer.named_parameters():
        if name.endswith("weight_g"):
            direction = quantizer.get_parameter(name.replace("weight_g", "weight_v"))
            norm = direction.norm(dim=(1, 2)).view_as(length)
            if ((length - norm).abs() > UNTRAINED * norm).any():
                return False
    return True
