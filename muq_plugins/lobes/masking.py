"""Masking: what the student does not get to hear."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muq_plugins.lobes.encoders.base import EncoderOutput

# Separates the two streams of random numbers of a clip: which blocks are
# masked, and the noise in them. Any odd constant below 2**62 does.
NOISE_STREAM = 0x2545F4914F6CDD1D


class Masking(nn.Module):
    """The Masking contract.

    A masking has the encoder listen to a masked batch, and says which frames were
    masked: ``out, mask = masking.encode(encoder, wavs, wav_lens, clip_keys)``, with
    the attributes ``sample_rate`` and ``frame_rate``. One that masks waveforms
    defines ``masked, mask = masking(wavs, clip_keys)`` and nothing else; one that
    masks what comes later in the encoder has an `encode` and a `check` of its own.

    Every random number comes from a generator that is seeded by the clip's key
    alone, so the same frames of a clip are masked whatever else is in its batch and
    wherever the batch is processed.

    Example
    -------
    >>> class Silence(Masking):
    ...     sample_rate, frame_rate = 24000, 25.0
    ...
    ...     def forward(self, wavs, clip_keys):
    ...         mask = torch.ones(len(wavs), wavs.shape[1] // 960, dtype=torch.bool)
    ...         return torch.zeros_like(wavs), mask
    >>> encoder = lambda wavs, wav_lens: wavs.abs().max()
    >>> out, mask = Silence().encode(encoder, torch.ones(1, 9600), None, None)
    >>> out, mask.shape
    (tensor(0.), torch.Size([1, 10]))
    """

    def __init__(self):
        super().__init__()
        self._generators: dict[torch.device, torch.Generator] = {}

    def check(self, encoder: nn.Module) -> None:
        """Refuses an encoder that cannot listen to what this masking does.

        Arguments
        ---------
        encoder : nn.Module
            Any module that follows the Encoder contract; it takes waveforms, so
            there is nothing to refuse here.

        Raises
        ------
        ValueError
            In maskings of something else than waveforms.
        """

    def encode(
        self,
        encoder: nn.Module,
        wavs: Tensor,
        wav_lens: Tensor | None,
        clip_keys: Tensor,
    ) -> tuple[EncoderOutput, Tensor]:
        """Has the encoder listen to a masked batch.

        Arguments
        ---------
        encoder : nn.Module
            Any module that follows the Encoder contract.
        wavs : Tensor
            (batch, samples).
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.
        clip_keys : Tensor
            One key (batch,) int64 per clip: equal keys, equal masks.

        Returns
        -------
        out : EncoderOutput
            What the encoder makes of it.
        mask : Tensor
            Boolean (batch, frames), True where a frame was masked. On the CPU, where
            how many there are is known without waiting for a device.
        """
        masked, mask = self(wavs, clip_keys)
        return encoder(masked, wav_lens), mask

    @staticmethod
    def _check_probability(probability: float) -> None:
        if not 0 < probability <= 1:
            raise ValueError(f"Mask probability must be in (0, 1], got {probability}.")

    @staticmethod
    def _whole_frames(what: str, seconds: float, frame_rate: float) -> int:
        """Frames in a block or span."""
        frames = round(seconds * frame_rate)
        # Seconds such as 0.28 are not exact in binary: either side will do.
        if frames < 1 or abs(seconds * frame_rate - frames) > 1e-6:
            raise ValueError(
                f"A masked {what} of {seconds} s is not a whole number of frames "
                f"of {1000 / frame_rate:g} ms: choose a multiple of "
                f"{1 / frame_rate:g} s."
            )
        return frames

    def _rows(self, batch: Tensor, clip_keys: Tensor) -> list[int]:
        """The keys, one for each row of the batch."""
        if clip_keys.shape != batch.shape[:1]:
            raise ValueError(
                f"{batch.shape[0]} clips need {batch.shape[0]} keys, got keys of the "
                f"shape {tuple(clip_keys.shape)}."
            )
        return clip_keys.tolist()

    def _generator(self, device: torch.device) -> torch.Generator:
        """A private generator: the global random state is left alone."""
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
        return self._generators[device]


class BlockMasking(Masking):
    """Replaces blocks of the waveform by noise (MusicFM, MuQ).

    The waveform is cut into blocks from its first sample; each is replaced with
    the given probability. Every number comes from a generator that is seeded by the
    clip's key alone. Which blocks are masked is drawn on the CPU, the same for every
    device and whatever else is in the batch; noise on the waveform's, for the length of
    the batch: a clip that is padded to another length may get other noise.
    A block cut short by the end of the clip is masked like any other.

    Arguments
    ---------
    probability : float
        Probability of each block.
    block_seconds : float
        Length of a block; a whole number of frames.
    noise_std : float
        Standard deviation of the Gaussian noise.
    sample_rate : int
        Rate of the waveforms, in Hz.
    frame_rate : float
        Rate of the mask, in Hz.

    Example
    -------
    >>> masking = BlockMasking(probability=0.6)
    >>> wavs, keys = torch.zeros(2, 48000), torch.tensor([1, 2])
    >>> masked, mask = masking(wavs, keys)
    >>> masked.shape, mask.shape
    (torch.Size([2, 48000]), torch.Size([2, 50]))
    """

    def __init__(
        self,
        probability: float = 0.6,
        block_seconds: float = 0.4,
        noise_std: float = 0.1,
        sample_rate: int = 24000,
        frame_rate: float = 25.0,
    ):
        super().__init__()
        self._check_probability(probability)
        self.block_frames = self._whole_frames("block", block_seconds, frame_rate)
        self.probability = probability
        self.noise_std = noise_std
        self.sample_rate = sample_rate
        self.frame_rate = frame_rate
        self.frame_samples = round(sample_rate / frame_rate)
        # With one block in a clip, all of it is masked or nothing.
        self.min_samples = (self.block_frames + 1) * self.frame_samples

    def forward(self, wavs: Tensor, clip_keys: Tensor) -> tuple[Tensor, Tensor]:
        """Masks a batch.

        Arguments
        ---------
        wavs : Tensor
            (batch, samples).
        clip_keys : Tensor
            One key (batch,) int64 per clip: equal keys, equal masks.

        Returns
        -------
        masked : Tensor
            (batch, samples), a copy.
        mask : Tensor
            Boolean (batch, frames) on the CPU, True where a frame was replaced;
            frames = samples // samples per frame.
        """
        keys = self._rows(wavs, clip_keys)
        samples = wavs.shape[1]
        block_samples = self.block_frames * self.frame_samples
        num_blocks = -(-samples // block_samples)
        here, there = self._generator(torch.device("cpu")), self._generator(wavs.device)
        blocks = torch.empty(len(wavs), num_blocks)
        noise = torch.empty_like(wavs)
        for row, key in enumerate(keys):
            blocks[row].uniform_(generator=here.manual_seed(key))
            noise[row].normal_(generator=there.manual_seed(key ^ NOISE_STREAM))
        chosen = blocks < self.probability
        mask = chosen.repeat_interleave(self.block_frames, dim=1)
        chosen = chosen.to(wavs.device, non_blocking=True)
        replaced = chosen.repeat_interleave(block_samples, dim=1)[:, :samples]
        masked = torch.where(replaced, noise * self.noise_std, wavs)
        return masked, mask[:, : samples // self.frame_samples]


class SpanMasking(Masking):
    """Replaces spans of the encoder's spectrogram by a learned vector.

    The masking of wav2vec 2.0 (arXiv 2006.11477) and HuBERT (arXiv 2106.07447), at
    the input of the encoder: every frame begins a span with the same probability,
    and spans may overlap. A span is also begun by frames that lie before the clip,
    so that each frame, the first ones too, is masked with exactly the given
    ``probability`` p: a span of L frames begins with 1 - (1 - p)^(1 / L). No span is
    forced, so in a very short clip there may be none. (wav2vec 2.0 begins spans of
    200 ms at 6.5 % of frames of 20 ms, HuBERT at 8 %: a p of 0.49 and 0.57.)

    The vector that stands in for masked frames is trained with everything else. It
    begins at zero, which is the mean of a normalised spectrogram.

    The encoder has to offer its two steps: ``features``, which follows the Features
    contract, and ``out = encode(feats, lens)``, so that ``encoder(wavs, wav_lens)``
    is one after the other.

    Arguments
    ---------
    probability : float
        Probability of each frame to be masked: the expected share of them.
    span_seconds : float
        Length of a span; a whole number of frames.
    size : int
        Values in a frame of the spectrogram: mel bands.
    sample_rate : int
        Rate of the waveforms, in Hz.
    hop_length : int
        Samples between frames of the spectrogram.
    frame_rate : float
        Rate of the mask, in Hz: all spectrogram frames in a frame of it are masked
        together.

    Raises
    ------
    ValueError
        If a span is not a whole number of frames, or a frame not one of
        spectrogram frames.

    Example
    -------
    >>> from muq_plugins.lobes import MuQEncoder
    >>> masking = SpanMasking(probability=0.5, span_seconds=0.2)
    >>> encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> wavs, keys = torch.randn(2, 48000), torch.tensor([1, 2])
    >>> out, mask = masking.encode(encoder, wavs, None, keys)
    >>> out.last_hidden_state.shape, mask.shape
    (torch.Size([2, 50, 32]), torch.Size([2, 50]))
    """

    def __init__(
        self,
        probability: float = 0.57,
        span_seconds: float = 0.2,
        size: int = 128,
        sample_rate: int = 24000,
        hop_length: int = 240,
        frame_rate: float = 25.0,
    ):
        super().__init__()
        self._check_probability(probability)
        self.span_frames = self._whole_frames("span", span_seconds, frame_rate)
        self.feature_rate = sample_rate / hop_length
        self.ratio = round(self.feature_rate / frame_rate)
        if self.ratio < 1 or abs(self.feature_rate - self.ratio * frame_rate) > 1e-6:
            raise ValueError(
                f"A spectrogram at {self.feature_rate:g} Hz cannot be masked at "
                f"{frame_rate:g} Hz: a frame of the mask must hold a whole number of "
                f"spectrogram frames. Change hop_length or frame_rate."
            )
        self.probability = probability
        self.sample_rate = sample_rate
        self.frame_rate = frame_rate
        self.min_samples = round((self.span_frames + 1) * sample_rate / frame_rate)
        self.vector = nn.Parameter(torch.zeros(size))

    def check(self, encoder: nn.Module) -> None:
        """Refuses an encoder without the spectrogram that this masking is made for."""
        name = type(encoder).__name__
        features = getattr(encoder, "features", None)
        if features is None or not hasattr(encoder, "encode"):
            raise ValueError(
                f"SpanMasking masks the spectrogram that an encoder listens to, but "
                f"{name} offers none (`features` and `encode`): use a masking of "
                f"waveforms such as BlockMasking, or another encoder."
            )
        if features.output_size != len(self.vector):
            raise ValueError(
                f"SpanMasking replaces frames of {len(self.vector)} values, but the "
                f"features of {name} have {features.output_size}: set size to "
                f"{features.output_size}."
            )
        if features.frame_rate != self.feature_rate:
            raise ValueError(
                f"SpanMasking expects a spectrogram at {self.feature_rate:g} Hz, but "
                f"the features of {name} come at {features.frame_rate:g} Hz: give both "
                f"the same hop_length."
            )

    def encode(
        self,
        encoder: nn.Module,
        wavs: Tensor,
        wav_lens: Tensor | None,
        clip_keys: Tensor,
    ) -> tuple[EncoderOutput, Tensor]:
        """Has the encoder listen to a masked spectrogram; see `Masking.encode`."""
        feats, lens = encoder.features(wavs, wav_lens)
        masked, mask = self(feats, clip_keys)
        return encoder.encode(masked, lens), mask

    def forward(self, feats: Tensor, clip_keys: Tensor) -> tuple[Tensor, Tensor]:
        """Masks a batch of spectrograms.

        Arguments
        ---------
        feats : Tensor
            (batch, spectrogram frames, size).
        clip_keys : Tensor
            One key (batch,) int64 per clip: equal keys, equal masks.

        Returns
        -------
        masked : Tensor
            (batch, spectrogram frames, size), a copy.
        mask : Tensor
            Boolean (batch, frames) on the CPU, True where a frame was replaced.
            Spectrogram frames left over at the end are masked like one, but are none.
        """
        keys = self._rows(feats, clip_keys)
        size = feats.shape[1]
        frames = -(-size // self.ratio)
        generator = self._generator(torch.device("cpu"))
        # The first numbers are for frames before the clip: see above.
        drawn = torch.empty(len(feats), frames + self.span_frames - 1)
        for row, key in enumerate(keys):
            drawn[row].uniform_(generator=generator.manual_seed(key))
        begins = drawn < 1 - (1 - self.probability) ** (1 / self.span_frames)
        mask = begins.unfold(1, self.span_frames, 1).any(-1)
        replaced = mask.to(feats.device, non_blocking=True)
        replaced = replaced.repeat_interleave(self.ratio, dim=1)[:, :size]
        masked = torch.where(replaced[..., None], self.vector, feats)
        return masked, mask[:, : size // self.ratio]
