"""Views, and a contrastive loss: what CLMR asks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.linear import Linear
from muq_plugins.lobes.masking import Masking
from muq_plugins.lobes.mulan.contrastive import gather_with_gradient
from muq_plugins.lobes.objectives.augmentation import Augmentation
from muq_plugins.lobes.objectives.base import (
    Hearing,
    Measure,
    Objective,
    Reference,
    StageOutput,
    check_equal,
)

# Separates the random numbers of views from those of masks. Any odd constant below
# 2**62 does.
VIEW_STREAM = 0x1D8E4E27C47D124F


def nt_xent(views: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the other view of a clip among all other views (SimCLR).

    The loss of arXiv 2002.05709, normalised temperature-scaled cross-entropy: the mean
    over all views, each compared by its cosine with all but itself.

    Arguments
    ---------
    views : Tensor
        Latents (clips, 2, size).
    temperature : float
        What cosines are divided by.

    Returns
    -------
    loss : Tensor
        Scalar, float32; 0 of a single clip, which has nothing to be told from.
    found : Tensor
        Boolean (views,), True where the own other view is more alike than any other.

    Example
    -------
    >>> loss, found = nt_xent(torch.eye(2)[:, None].repeat(1, 2, 1), temperature=0.5)
    >>> round(loss.item(), 3), found.all().item()  # -ln(e**2 / (e**2 + 2))
    (0.24, True)
    """
    with torch.autocast(views.device.type, enabled=False):
        latents = F.normalize(views.float().transpose(0, 1).flatten(0, 1), dim=-1)
        logits = latents @ latents.T / temperature
    own = torch.arange(len(latents), device=views.device).roll(len(views))
    itself = torch.eye(len(latents), dtype=torch.bool, device=views.device)
    logits = logits.masked_fill(itself, -math.inf)
    others = logits.detach().scatter(1, own[:, None], -math.inf).amax(1)
    found = logits.detach().gather(1, own[:, None])[:, 0] > others
    return F.cross_entropy(logits, own), found


class ContrastiveViews(Objective):
    """Which two views are of the same clip? (CLMR, arXiv 2103.09410)

    Two crops of a clip are augmented and heard. The mean of the last hidden states
    over a crop's frames goes through a projector with a hidden layer, and the loss is
    `nt_xent`. In training the clips of all processes are told from each other, with
    exact gradients; in evaluation each batch stands alone.

    Crops and augmentations are drawn from the key of a clip alone: it is heard in the
    same way whatever else is in its batch and wherever the batch is processed.

    Arguments
    ---------
    augmentation : Augmentation
        ``view = augmentation(wav, generator)``.
    width : int
        Size of the hidden states.
    latent_width : int
        Size of what is compared.
    view_seconds : float
        Length of a crop, at most that of the clips; a recording that is shorter is
        heard whole.
    temperature : float
        What cosines are divided by.

    Raises
    ------
    ValueError
        If length or temperature are not above 0.

    Example
    -------
    >>> from muq_plugins.lobes import MuQEncoder, Pretraining
    >>> encoder = MuQEncoder(32, 1, num_heads=4, ffn_width=64, conv_channels=4)
    >>> views = ContrastiveViews(Augmentation(), width=32, view_seconds=0.5)
    >>> stage = Pretraining(None, encoder, {"views": views})
    >>> sorted(stage(torch.randn(3, 24000)).sums)
    ['accuracy', 'chance', 'loss']
    """

    measures = {
        "loss": Measure(
            "Contrastive loss (NT-Xent), mean over views",
            "nat",
            references={
                "chance": Reference("chance (ln(2B - 1))", "chance\nln(2B-1) = {:.2f}")
            },
            margin=0.30,
            learned="tells clips apart",
            about="Of each clip two crops are changed by filters, pitch and more. The "
            "model finds the other view of the same clip among those of all B clips "
            "in a batch. Guessing costs ln(2B - 1) nats.",
        ),
        "accuracy": Measure("Own view found", "share", better=+1),
    }
    listens_to_masked = False
    fewest_clips = 2

    def __init__(
        self,
        augmentation: Augmentation,
        width: int,
        latent_width: int = 64,
        view_seconds: float = 2.68,
        temperature: float = 0.5,
    ):
        super().__init__()
        for name, value in (
            ("view_seconds", view_seconds),
            ("temperature", temperature),
        ):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}: give a number above 0.")
        self.augmentation = augmentation
        self.sample_rate = augmentation.sample_rate
        self.width = width
        self.view_samples = round(view_seconds * self.sample_rate)
        self.min_samples = self.view_samples  # else both views are the clip
        self.temperature = temperature
        self.projector = nn.Sequential(
            Linear(width, width, bias=False),
            nn.ReLU(),
            Linear(width, latent_width, bias=False),
        )

    def check(self, encoder: nn.Module, masking: Masking | None) -> None:
        check_equal("sample_rate", "Hz", self.augmentation, encoder)
        check_equal("width", "values", encoder, self)
        if self.view_samples < encoder.min_samples:
            raise ValueError(
                f"{type(self).__name__} has views of {self.view_samples} samples, but "
                f"{type(encoder).__name__} hears nothing shorter than "
                f"{encoder.min_samples}: raise view_seconds."
            )

    def forward(self, hearing: Hearing) -> StageOutput:
        """Compares two views of each clip: in training with those of all processes."""
        wavs, lens = self.views(hearing.wavs, hearing.wav_lens, hearing.clip_keys)
        # Both at once: what a batch normalisation does to them is the same.
        out = hearing.encoder(wavs.transpose(0, 1).flatten(0, 1), lens.repeat(2))
        hidden = out.last_hidden_state
        frames = hidden.shape[1]
        lengths = absolute_lengths(out.lens, frames, len(hidden))
        mask = length_mask(lengths, frames, hidden.device)
        if mask is None:
            mean = hidden.mean(1)
        else:
            count = mask.sum(1, keepdim=True).clamp(min=1)
            mean = (hidden * mask[..., None]).sum(1) / count
        latents = self.projector(mean).unflatten(0, (2, len(wavs))).transpose(0, 1)
        if self.training:
            everyone = gather_with_gradient(latents.flatten(1))
            latents = everyone.unflatten(1, (2, -1))
        loss, found = nt_xent(latents, self.temperature)
        # Each process answers for its own clips. One alone has nothing to be told from.
        clips = torch.full_like(loss, len(wavs) if len(latents) > 1 else 0)
        means = {
            "loss": loss.detach(),
            "accuracy": found.float().mean(),
            "chance": torch.full_like(loss, math.log(2 * len(latents) - 1)),
        }
        sums = {name: mean * clips for name, mean in means.items()}
        return StageOutput(loss, sums, dict.fromkeys(sums, clips))

    @torch.compiler.disable  # each clip is a graph of its own
    @torch.no_grad()
    def views(
        self, wavs: Tensor, wav_lens: Tensor | None, clip_keys: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Crops and augments.

        Arguments
        ---------
        wavs : Tensor
            (batch, samples).
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.
        clip_keys : Tensor
            One key (batch,) int64 per clip: equal keys, equal views.

        Returns
        -------
        views : Tensor
            (batch, 2, samples of a view), float32.
        lens : Tensor
            Relative lengths (batch,): both views of a clip are equally long.
        """
        batch, samples = wavs.shape
        lengths = absolute_lengths(wav_lens, samples, batch)
        lengths = [samples] * batch if lengths is None else lengths.tolist()
        size = min(self.view_samples, samples)
        views = wavs.new_zeros((batch, 2, size), dtype=torch.float32)
        generator = torch.Generator()
        with torch.autocast(wavs.device.type, enabled=False):
            for row, (key, length) in enumerate(
                zip(clip_keys.tolist(), lengths, strict=True)
            ):
                generator.manual_seed(key ^ VIEW_STREAM)
                heard = min(size, length)
                for view in views[row, :, :heard]:
                    starts = length - heard + 1
                    start = int(torch.randint(starts, (), generator=generator))
                    crop = wavs[row, start : start + heard]
                    view.copy_(self.augmentation(crop, generator))
        lens = [min(size, length) / size for length in lengths]
        return views, torch.tensor(lens)
