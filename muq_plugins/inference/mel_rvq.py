"""Mel-RVQ for users: waveforms in, codes out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from muq_plugins.inference.folders import (
    CONFIG,
    WEIGHTS,
    find_folder,
    load_weights,
    read_config,
)
from muq_plugins.inference.sources import HUB_ID
from muq_plugins.inference.tokenizer import KIND
from muq_plugins.inference.weights import load_strictly, read_tensors
from muq_plugins.lobes import LogMel, ResidualVQ, StackedFrames, Target
from muq_plugins.lobes.target import Crops

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
    def from_pretrained(cls, source: str | Path, device: str = "cpu") -> MelRVQ:
        """Loads a trained tokenizer; nothing that comes with it is executed.

        Arguments
        ---------
        source : str or Path
            The folder of a tokenizer run, its inference folder, or the tokenizer file
            that the authors of MuQ publish.
        device : str
            Where it goes.

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
        path = Path(source)
        if path.suffix in WEIGHT_FILES and not path.is_dir():
            return cls._from_file(path).to(device)
        _refuse_model(path)
        folder = find_folder(path, "tokenizer")
        config = read_config(folder)
        if config.get("kind") != KIND or config.get("quantizer") != "ResidualVQ":
            raise ValueError(
                f"{folder} holds a {config.get('kind', 'model of unknown kind')} with "
                f"{config.get('quantizer', 'no quantizer')}, not a Mel-RVQ tokenizer."
            )
        stacked = config["features_config"]
        mel = LogMel(**stacked["features"])
        tensors = read_tensors(folder / WEIGHTS)
        prefix = "quantizer."
        quantizer = _build_quantizer(
            {k.removeprefix(prefix): v for k, v in tensors.items() if prefix in k},
            folder / WEIGHTS,
        )
        tokenizer = cls(StackedFrames(mel, stacked["num_frames"]), quantizer)
        load_weights(tokenizer, folder)
        return tokenizer.to(device)

    @classmethod
    def _from_file(cls, path: Path) -> MelRVQ:
        """Loads the official tokenizer file, whose log-mel is that of the paper."""
        if not path.is_file():
            raise FileNotFoundError(
                f"No tokenizer file {path}: check the path. An untrained tokenizer "
                "never takes its place."
            )
        tensors = read_tensors(path)
        quantizer = _build_quantizer(tensors, path)
        load_strictly(quantizer, tensors, path)
        if _is_untrained(quantizer):
            raise ValueError(
                f"The quantizer in {path} was never trained: all of its weights have "
                "exactly the lengths they were made with. Checkpoints of iterative "
                "training hold such a quantizer, and its codes mean nothing. Take the "
                "tokenizer file that the authors publish."
            )
        return cls(StackedFrames(LogMel()), quantizer)

    @torch.no_grad()
    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        crops: Crops | None = None,
    ) -> Tensor:
        """Computes the codes.

        Arguments
        ---------
        wavs : Tensor
            Waveforms (batch, samples) at `sample_rate`, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.
        crops : Crops or None
            Which crops these are; unused.

        Returns
        -------
        Tensor
            Codes (batch, frames, N) int64, on the tokenizer's device.
        """
        device = next(self.quantizer.parameters()).device
        wav_lens = None if wav_lens is None else wav_lens.to(device)
        return super().forward(wavs.to(device), wav_lens, crops)

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


def _refuse_model(path: Path) -> None:
    """MuQ models hold a quantizer as well, but not one to tokenize with."""
    is_hub_id = not path.exists() and HUB_ID.fullmatch(str(path))
    is_model = (path / CONFIG).is_file() and "w2v2_config" in read_config(path)
    if is_model or (is_hub_id and path.parts[0] == "OpenMuQ"):
        raise ValueError(
            f"{path} is a MuQ model, not a tokenizer. After iterative training the "
            "quantizer inside a model is not the one that made its labels, and by the "
            "published settings it was never trained. Take the file of the tokenizer "
            "that the authors publish, or the folder of a tokenizer run."
        )


def _build_quantizer(tensors: dict[str, Tensor], where: Path) -> ResidualVQ:
    """A quantizer of the sizes that the tensors show."""
    books = [name for name in tensors if name.endswith(".codebook.weight")]
    downs = [
        name
        for name in tensors
        if name.startswith("quantizers.0.in_proj.") and name.endswith("weight_v")
    ]
    first = "quantizers.0.codebook.weight"
    if first not in tensors or not downs:
        names = ", ".join(sorted(tensors)[:5])
        raise ValueError(
            f"{where} does not hold a residual vector quantizer: its tensors are "
            f"{names}, ... instead of quantizers.0.codebook.weight and so on."
        )
    # In the order of the layers: the first one tells the size of the input.
    input_size = tensors[sorted(downs)[0]].shape[1]
    codebook_size, codebook_dim = tensors[first].shape
    return ResidualVQ(
        input_size,
        num_codebooks=len(books),
        codebook_size=codebook_size,
        codebook_dim=codebook_dim,
        projection_depth=len(downs),
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
