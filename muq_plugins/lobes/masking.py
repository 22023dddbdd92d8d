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


class BlockMasking(nn.Module):
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
        if not 0 < probability <= 1:
            raise ValueError(f"Mask probability must be in (0, 1], got {probability}.")
        self.block_frames = round(block_seconds * frame_rate)
        if self.block_frames < 1 or abs(block_seconds * frame_rate % 1) > 1e-6:
            raise ValueError(
                f"A masked block of {block_seconds} s is not a whole number of frames "
                f"of {1000 / frame_rate:g} ms: choose a multiple of "
                f"{1 / frame_rate:g} s."
            )
        self.probability = probability
        self.noise_std = noise_std
        self.sample_rate = sample_rate
        self.frame_rate = frame_rate
        self.frame_samples = round(sample_rate / frame_rate)
        self._generators: dict[torch.device, torch.Generator] = {}

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
        if clip_keys.shape != wavs.shape[:1]:
            raise ValueError(
                f"{wavs.shape[0]} clips need {wavs.shape[0]} keys, got keys of the "
                f"shape {tuple(clip_keys.shape)}."
            )
        samples = wavs.shape[1]
        block_samples = self.block_frames * self.frame_samples
        num_blocks = -(-samples // block_samples)
        generator = self._generator(wavs.device)
        blocks = torch.empty(len(wavs), num_blocks, device=wavs.device)
        noise = torch.empty_like(wavs)
        for row, key in enumerate(clip_keys.tolist()):
            blocks[row].uniform_(generator=generator.manual_seed(key))
            noise[row].normal_(generator=generator.manual_seed(key ^ NOISE_STREAM))
        chosen = blocks < self.probability
        replaced = chosen.repeat_interleave(block_samples, dim=1)[:, :samples]
        mask = chosen.repeat_interleave(self.block_frames, dim=1)
        masked = torch.where(replaced, noise * self.noise_std, wavs)
        return masked, mask[:, : samples // self.frame_samples]

    def _generator(self, device: torch.device) -> torch.Generator:
        """A private generator: the global random state is left alone."""
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
        return self._generators[device]
