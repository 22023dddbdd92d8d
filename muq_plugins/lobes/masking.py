"""Masking: what the student does not get to hear.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
    alone, so a clip is masked in the same way whatever else is in its batch and
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
    ):
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
            Boolean (batch, frames), True where a frame was masked.
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
    the given probability. Every number comes from a generator on the waveform's
    device that is seeded by the clip's key alone, so a clip is masked in the
    same way whatever else is in its batch and wherever the batch is processed.
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
            Boolean (batch, frames), True where a frame was replaced;
            frames = samples // samples per frame.
        """
        keys = self._rows(wavs, clip_keys)
        samples = wavs.shape[1]
        block_samples = self.block_frames * self.frame_samples
        num_blocks = -(-samples // block_samples)
        generator = self._generator(wavs.device)
        blocks = torch.empty(len(wavs), num_blocks, device=wavs.device)
        noise = torch.empty_like(wavs)
        for row, key in enumerate(keys):
            blocks[row].uniform_(generator=generator.manual_seed(key))
            noise[row].normal_(generator=generator.manual_seed(key ^ NOISE_STREAM))
        chosen = blocks < self.probability
        replaced = chosen.repeat_interleave(block_samples, dim=1)[:, :samples]
        mask = chosen.repeat_interleave(self.block_frames, dim=1)
        masked = torch.where(replaced, noise * self.noise_std, wavs)
        return masked, mask[:, : samples // self.frame_samples]
