"""EnCodec as a target: its encoder as features, its codebooks as a quantizer.

MERT predicts the codes of this codec. The model is that of transformers, which is
imported when it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from muq_plugins.lobes.features import Features
from muq_plugins.lobes.finite import check_wavs, check_weights
from muq_plugins.lobes.lengths import absolute_lengths, relative_lengths
from muq_plugins.lobes.parts import part
from muq_plugins.lobes.quantizers.base import ResidualCentres, private_randomness

logger = logging.getLogger(__name__)

ENCODEC_24KHZ = "facebook/encodec_24khz"


@part
class EncodecFeatures(Features):
    """What EnCodec's encoder makes of a waveform, before its codebooks.

    The encoder hears only the past, so padding after a clip cannot change its
    frames; a frame that the clip does not fill is dropped. It works in float32 whatever
    the precision around it.

    Arguments
    ---------
    source : str or None
        A model id or a local folder; None gives random weights, for trying a
        pipeline without the network, and says so in the log.

    Raises
    ------
    OSError
        If there is no such model.
    ValueError
        If it is none for single-channel audio in one piece, as that of 24 kHz is.

    Example
    -------
    >>> features = EncodecFeatures(source=None)
    >>> feats, lens = features(torch.randn(1, 9600))
    >>> feats.shape, features.frame_rate
    (torch.Size([1, 30, 128]), 75.0)
    """

    def __init__(self, source: str | None = ENCODEC_24KHZ):
        super().__init__()
        model = _load(source)
        self.encoder = model.encoder
        self.config = {"source": source}
        self.is_trained = source is not None
        self.sample_rate = model.config.sampling_rate
        self.hop_length = model.config.hop_length
        self.frame_rate = self.sample_rate / self.hop_length
        self.output_size = model.config.hidden_size

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        check_wavs(wavs, wav_lens)
        lengths = absolute_lengths(wav_lens, wavs.shape[1], wavs.shape[0])
        if lengths is not None:
            lengths = lengths // self.hop_length
        frames = wavs.shape[1] // self.hop_length
        with torch.autocast(wavs.device.type, enabled=False):
            feats = self.encoder(wavs.float()[:, None])[..., :frames]
        feats = feats.transpose(1, 2)
        return feats, relative_lengths(lengths, frames, feats, wav_lens)


@part
class EncodecQuantizer(ResidualCentres):
    """The residual codebooks of EnCodec, frozen (arXiv 2210.13438).

    Arguments
    ---------
    source : str or None
        As for `EncodecFeatures`.
    num_codebooks : int
        Number of codebooks; 8 are 6 kbit/s at the codec's own 75 frames a second.

    Raises
    ------
    OSError
        If there is no such model.
    ValueError
        If it has fewer codebooks.

    Example
    -------
    >>> quantizer = EncodecQuantizer(source=None, num_codebooks=8)
    >>> quantizer.encode(torch.randn(1, 30, 128)).shape
    torch.Size([1, 30, 8])
    """

    def __init__(self, source: str | None = ENCODEC_24KHZ, num_codebooks: int = 8):
        model = _load(source)
        levels = model.quantizer.layers
        if num_codebooks > len(levels):
            raise ValueError(
                f"num_codebooks is {num_codebooks}, but EnCodec from {source} has only "
                f"{len(levels)} codebooks."
            )
        config = model.config
        super().__init__(config.codebook_dim, num_codebooks, config.codebook_size)
        self.is_trained = source is not None
        codebooks = [level.codebook.embed for level in levels[:num_codebooks]]
        self.register_buffer("codebooks", torch.stack(codebooks).float())

    def levels(self) -> Iterable[Tensor]:
        return self.codebooks


def _load(source: str | None) -> nn.Module:
    """EnCodec of transformers, or one with random weights."""
    from transformers import EncodecConfig, EncodecModel

    if source is None:
        logger.warning(
            "EnCodec has random weights, because its source is null: its codes mean "
            "nothing, and results must not be compared with those of others."
        )
        with private_randomness():
            model = EncodecModel(EncodecConfig()).eval()
            _draw_codebooks(model)
        return model
    try:
        # Building it draws initial weights before they are replaced.
        with private_randomness():
            model = EncodecModel.from_pretrained(source)
    except OSError as error:
        raise OSError(
            f"EnCodec cannot be loaded from {source}: {error}\nGive a local folder "
            f"with it as source, or null for random weights, to try the pipeline."
        ) from error
    config = model.config
    if config.audio_channels != 1 or config.normalize or config.chunk_length_s:
        raise ValueError(
            f"EnCodec from {source} works on {config.audio_channels} channels or on "
            f"normalised chunks; the target needs the one for single-channel audio, "
            f"{ENCODEC_24KHZ}."
        )
    check_weights(model.state_dict(), source)
    return model.eval()


@torch.no_grad()
def _draw_codebooks(model: nn.Module) -> None:
    """Draws entries, which transformers leaves at zero, where noise is encoded to."""
    frames = model.encoder(torch.randn(1, 1, model.config.sampling_rate))[0].t()
    centre, spread = frames.mean(0), frames.std(0)
    for level in model.quantizer.layers:
        embed = level.codebook.embed
        embed.copy_(centre + spread * torch.randn_like(embed))
        # The residual is around zero, and smaller at every level.
        centre, spread = torch.zeros_like(centre), 0.8 * spread
