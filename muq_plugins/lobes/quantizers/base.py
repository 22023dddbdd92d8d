"""What every quantizer offers, the search that all of them share, and virtual codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.linear import linear
from muq_plugins.lobes.parts import check_sizes, part

# Similarities of this many vectors with all entries are held at a time: 32 MB
# for 1024 entries, whatever the length of the audio.
SEARCH_CHUNK = 8192


@dataclass
class QuantizerOutput:
    """What a quantizer says about a batch of feature vectors.

    Arguments
    ---------
    codes : Tensor
        Chosen entries (..., N) int64.
    quantized : Tensor
        The vectors that the codes stand for (..., size).
    loss : Tensor
        Scalar that trains the codebooks; zero for a fixed quantizer.
    terms : dict
        Named scalars that the loss is made of, detached, for the log.
    level_errors : Tensor
        Mean absolute error (N + 1,) when the first 0..N levels are decoded.

    Example
    -------
    >>> zero = torch.zeros(())
    >>> out = QuantizerOutput(torch.zeros(3, 8), torch.zeros(3, 512), zero, {}, zero)
    >>> out.codes.shape
    torch.Size([3, 8])
    """

    codes: Tensor
    quantized: Tensor
    loss: Tensor
    terms: dict[str, Tensor]
    level_errors: Tensor


class Quantizer(nn.Module):
    """The Quantizer contract.

    A quantizer maps feature vectors (..., size) to codes (..., N): one entry of
    each of ``num_codebooks`` codebooks with ``codebook_size`` entries. It works
    on any leading shape, because each vector is quantized on its own.

    Arguments
    ---------
    input_size : int
        Size of the feature vectors.
    num_codebooks : int
        Number of codebooks N.
    codebook_size : int
        Entries of each codebook V.

    Example
    -------
    >>> Quantizer(512, 8, 1024).num_codebooks
    8
    """

    def __init__(self, input_size: int, num_codebooks: int, codebook_size: int):
        super().__init__()
        check_sizes(input_size=input_size, num_codebooks=num_codebooks)
        check_sizes(2, codebook_size=codebook_size)  # one code says nothing
        self.input_size = input_size
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        # What codes depend on besides the weights and these sizes.
        self.config: dict = {}
        # Whether anybody has trained the weights; the codes of others are random.
        self.is_trained = False

    def encode(self, feats: Tensor) -> Tensor:
        """Chooses the codes.

        Arguments
        ---------
        feats : Tensor
            Feature vectors (..., input_size).

        Returns
        -------
        Tensor
            Codes (..., N) int64.
        """
        raise NotImplementedError

    def forward(self, feats: Tensor) -> QuantizerOutput:
        """Quantizes; gradients pass straight through what is trained.

        Arguments
        ---------
        feats : Tensor
            Feature vectors (..., input_size).

        Returns
        -------
        QuantizerOutput
            Codes, what they stand for, the loss and the errors of decoding.
        """
        return super().forward(feats)  # tells which class has none

    def after_update(self) -> None:
        """Called once after each optimizer update; nothing to do by default."""


class DecodableQuantizer(Quantizer):
    """One whose codes stand for vectors: others have no ``decode`` at all."""

    def decode(self, codes: Tensor) -> Tensor:
        """Turns codes back into feature vectors.

        Arguments
        ---------
        codes : Tensor
            (..., n) int64; with n < N only those of the first n codebooks.

        Returns
        -------
        Tensor
            Feature vectors (..., input_size), the sums of what the codes stand for.

        Raises
        ------
        ValueError
            If there are more codes per frame than codebooks.
        """
        if not 1 <= codes.shape[-1] <= self.num_codebooks:
            raise ValueError(
                f"Cannot decode {codes.shape[-1]} codes per frame: this quantizer "
                f"has {self.num_codebooks} codebooks."
            )
        return self._decode(codes)

    def _decode(self, codes: Tensor) -> Tensor:
        """The same for codes of no more codebooks than there are."""
        raise NotImplementedError


class ResidualCentres(DecodableQuantizer):
    """Levels of fixed centres: each quantizes what those before it have left over."""

    def levels(self) -> Iterable[Tensor]:
        """The centres (V, input_size) of each level."""
        raise NotImplementedError

    def encode(self, feats: Tensor) -> Tensor:
        """Chooses the closest centres, in float32 whatever the precision around it."""
        codes, left = [], feats.float()
        for centres in self.levels():
            codes.append(nearest_centres(left, centres))
            left = left - centres[codes[-1]]
        return torch.stack(codes, dim=-1)

    def _decode(self, codes: Tensor) -> Tensor:
        levels = zip(self.levels(), codes.unbind(-1), strict=False)
        return torch.stack([centres[code] for centres, code in levels]).sum(0)

    def forward(self, feats: Tensor) -> QuantizerOutput:
        codes = self.encode(feats)
        return QuantizerOutput(
            codes=codes,
            quantized=self.decode(codes),
            loss=feats.new_zeros(()),
            terms={},
            level_errors=decoding_errors(self, feats, codes),
        )


@part
class VirtualCodes(Quantizer):
    """Another quantizer with entries on top that nothing is ever closest to.

    A random quantizer leaves many entries unused. The authors of MuQ (arXiv
    2501.01108) wonder whether such virtual classes help the student; here their
    number is chosen, with the codes as they are.

    Arguments
    ---------
    quantizer : Quantizer
        The one that chooses the codes.
    codebook_size : int
        Entries of each codebook V, the virtual ones included.

    Raises
    ------
    ValueError
        If that is less than the quantizer has.

    Example
    -------
    >>> from muq_plugins.lobes import RandomProjection
    >>> quantizer = VirtualCodes(RandomProjection(512, 2, 64), codebook_size=128)
    >>> quantizer.codebook_size
    128
    """

    def __init__(self, quantizer: Quantizer, codebook_size: int):
        if codebook_size < quantizer.codebook_size:
            raise ValueError(
                f"codebook_size is {codebook_size}, less than the "
                f"{quantizer.codebook_size} entries of the {type(quantizer).__name__}: "
                f"virtual codes come on top of them."
            )
        super().__init__(quantizer.input_size, quantizer.num_codebooks, codebook_size)
        self.quantizer = quantizer

    def __getattr__(self, name: str) -> Any:
        """What not all quantizers can, so that `hasattr` says what this one can."""
        if name in ("decode", "set_centres"):
            return getattr(self.quantizer, name)
        return super().__getattr__(name)

    def encode(self, feats: Tensor) -> Tensor:
        """Lets the quantizer choose the codes."""
        return self.quantizer.encode(feats)

    def forward(self, feats: Tensor) -> QuantizerOutput:
        """Lets the quantizer quantize."""
        return self.quantizer(feats)

    def after_update(self) -> None:
        """Tells the quantizer that the optimizer has made an update."""
        self.quantizer.after_update()


def nearest_entries(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Finds the most similar codebook entry by cosine, in float32.

    This is the search of factorised, L2-normalised codebooks (ViT-VQGAN,
    arXiv 2110.04627), which DAC and MuQ use: the closest entry on the unit
    sphere. It is a matrix product, so no (vectors, entries, size) tensor is
    ever made.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        directions = F.normalize(codebook.float(), dim=-1)
        # The length of a vector does not change which entry is closest, but
        # normalising keeps ties and rounding equal to the published search.
        flat = F.normalize(vectors.float(), dim=-1).reshape(-1, vectors.shape[-1])
        found = [
            linear(chunk, directions).argmax(dim=-1)
            for chunk in flat.split(SEARCH_CHUNK)
        ]
    return torch.cat(found).reshape(vectors.shape[:-1])


def nearest_centres(vectors: Tensor, centres: Tensor) -> Tensor:
    """Finds the closest centre by Euclidean distance, in float32."""
    with torch.autocast(vectors.device.type, enabled=False):
        # Seen from the middle of the centres the numbers are small, and squares of
        # small numbers lose the fewest digits.
        middle = centres.float().mean(0)
        centres = centres.float() - middle
        flat = (vectors.float() - middle).reshape(-1, vectors.shape[-1])
        # |x - c|^2 without |x|^2, which is the same for all centres.
        norms = -0.5 * centres.square().sum(1)
        found = [
            linear(chunk, centres, norms).argmax(dim=-1)
            for chunk in flat.split(SEARCH_CHUNK)
        ]
    return torch.cat(found).reshape(vectors.shape[:-1])


@torch.no_grad()
def decoding_errors(
    quantizer: DecodableQuantizer, feats: Tensor, codes: Tensor
) -> Tensor:
    """Measures what is lost when only the first codes of each vector are decoded."""
    errors = [feats.abs().mean()] + [
        (feats - quantizer.decode(codes[..., : level + 1])).abs().mean()
        for level in range(codes.shape[-1])
    ]
    return torch.stack(errors)


@contextmanager
def private_randomness() -> Iterator[None]:
    """Lets initial weights be drawn without moving the global random state.

    They still depend on it, and so on the seed of a run; but what is made next, such
    as the student, begins with the same weights whatever the quantizer has drawn. Two
    quantizers of a kind that are made one right after the other are therefore equal:
    seed in between if they must differ.
    """
    # Modules are made on the CPU, so no other device's state can move.
    with torch.random.fork_rng(devices=[]):
        yield
