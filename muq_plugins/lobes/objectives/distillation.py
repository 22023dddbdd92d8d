"""What a teacher makes of the same music: frames of an encoder, vectors of a tower."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.features import FrozenTeacher
from muq_plugins.lobes.finite import check_computed
from muq_plugins.lobes.lengths import frames_inside, most_precise
from muq_plugins.lobes.linear import Linear
from muq_plugins.lobes.masking import Masking
from muq_plugins.lobes.mulan.towers import AudioTower, LatentProjection
from muq_plugins.lobes.objectives.base import (
    Hearing,
    Measure,
    Reference,
    StageOutput,
    check_equal,
)
from muq_plugins.lobes.objectives.vectors import VectorRegression

# What a vector's square is at least: silence may be nothing but zeros.
SMALLEST = 1e-8


class Distillation(VectorRegression):
    """What does the teacher make of each frame?

    Nothing is masked: the student hears what the teacher hears. The loss of a frame is
    the squared distance to the teacher's vector, as a share of that vector's square.
    The head is for the training alone; without it the student has states of its own
    width, off which the teacher's can be read by a linear map.

    Vectors of a teacher have much in common, so that always answering with their mean
    may already have a high cosine. Both measures are told beside what that reaches.

    Arguments
    ---------
    features : nn.Module
        The teacher: any module that follows the Features contract, such as
        `TeacherFeatures`, at the frame rate of the encoder. It is frozen.
    head : nn.Module
        Vectors (..., size) from hidden states (..., width).

    Raises
    ------
    ValueError
        If features and head do not fit.

    Example
    -------
    >>> from muq_plugins.lobes import (
    ...     MuQEncoder, Pretraining, TeacherFeatures, VectorHead
    ... )
    >>> teacher = MuQEncoder(64, 1, num_heads=4, ffn_width=64, conv_channels=4)
    >>> student = MuQEncoder(32, 1, num_heads=4, ffn_width=64, conv_channels=4)
    >>> asked = Distillation(TeacherFeatures(teacher, 1, "a1b2"), VectorHead(32, 64))
    >>> stage = Pretraining(None, student, {"states": asked})
    >>> sorted(stage(torch.randn(2, 24000)).sums)
    ['cosine', 'error', 'loss']
    """

    measures = {
        "relative_error": Measure(
            "Error beside the teacher, share",
            "share",
            references={
                "constant": Reference("a constant model", "a constant\nmodel: {:.0%}")
            },
            margin=0.1,
            learned="hears some of what its teacher hears",
            about="The student says what its teacher makes of the music, which both "
            "hear whole. The squared error of a model that always answers with the "
            "mean of the teacher's vectors is 100 %.",
        ),
        "cosine": Measure(
            "Cosine to the teacher, mean",
            better=+1,
            references={
                "constant_cosine": Reference(
                    "a constant model", "a constant\nmodel: {:.3f}"
                )
            },
        ),
        "error": Measure("Squared error, mean over values"),
    }
    listens_to_masked = False
    rates = ("sample_rate", "frame_rate")  # which teacher and student share

    def __init__(self, features: nn.Module, head: nn.Module):
        super().__init__(features, head)

    def check(self, encoder: nn.Module, masking: Masking | None) -> None:
        for rate in self.rates:
            check_equal(rate, "Hz", self.features, encoder)
        check_equal("width", "values", encoder, self.head)

    def say(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """The student's answer.

        Arguments
        ---------
        hidden : Tensor
            Its last hidden states (batch, frames, width).
        mask : Tensor or None
            Boolean (batch, frames): the frames of the clips; None for all.

        Returns
        -------
        Tensor
            (batch, frames, size).
        """
        return self.head(hidden)

    def forward(self, hearing: Hearing) -> StageOutput:
        """Compares what student and teacher make of the frames inside the clips."""
        with torch.no_grad():
            vectors, lens = self.features(hearing.wavs, hearing.wav_lens)
        check_computed(vectors, self.features)
        out = hearing.encoder(hearing.wavs, hearing.wav_lens)
        hidden = out.last_hidden_state
        said = self.say(hidden, frames_inside(hidden, out.lens)).float()
        # A clip may end inside its last frame, which not all parts round alike.
        frames = min(vectors.shape[1], said.shape[1])
        own = torch.ones_like(vectors[:, :frames, 0])
        if (inside := frames_inside(vectors, lens)) is not None:
            own = own * inside[:, :frames]
        said, vectors = said[:, :frames], vectors[:, :frames].float()
        errors = (said - vectors).square().mean(2)
        sizes = vectors.square().mean(2).clamp(min=SMALLEST)
        cosines = F.cosine_similarity(said.detach(), vectors, dim=2)
        weight = own.sum()
        loss = (errors / sizes * own).sum()
        sums = {
            "loss": loss.detach(),
            "error": (errors.detach() * own).sum(),
            "cosine": (cosines * own).sum(),
        }
        totals = {}
        if not self.training:  # checkpoints are made in training, and stay small
            precise = vectors[own.bool()].to(most_precise(vectors.device))
            totals = {
                "frames": weight,
                "vector_sum": precise.sum(0),
                "vector_squares": precise.square().sum(0),
                "unit_sum": F.normalize(precise, dim=1).sum(0),
            }
        weights = dict.fromkeys(sums, weight)
        return StageOutput(loss / weight.clamp(min=1), sums, weights, totals)

    def summary(self, means: dict, totals: dict[str, Tensor]) -> dict:
        """What a constant model reaches, and how much of its error is left.

        As `VectorRegression.summary`, and ``constant_cosine``: the cosine it reaches.
        """
        found = super().summary(means, totals)
        if totals.get("frames"):
            mean = totals["unit_sum"] / totals["frames"]
            found["constant_cosine"] = float(mean.norm())
        return found


class TowerFeatures(FrozenTeacher):
    """The unit vectors of a frozen audio tower, one for each clip.

    Follows the Features contract, but for the frames: there is one, the clip. As in
    `TeacherFeatures`, the tower is used, not owned, and hears audio in float32.

    Arguments
    ---------
    tower : AudioTower
        The teacher. It is frozen and put in evaluation mode.
    fingerprint : str
        What tells this teacher from others, for ``config``.

    Example
    -------
    >>> from muq_plugins.lobes import AudioTower, MuQEncoder
    >>> encoder = MuQEncoder(32, 1, num_heads=4, ffn_width=64, conv_channels=4)
    >>> features = TowerFeatures(AudioTower(encoder, latent_width=16), "a1b2")
    >>> features(torch.randn(2, 24000))[0].shape, list(features.state_dict())
    (torch.Size([2, 1, 16]), [])
    """

    def __init__(self, tower: AudioTower, fingerprint: str):
        super().__init__(tower)
        self.config = {"teacher": fingerprint}
        self.output_size = tower.latent_width

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._listen(wavs, wav_lens)[:, None], torch.ones(len(wavs))


class TowerHead(nn.Module):
    """What an `AudioTower` has above its encoder: unit vectors from hidden states.

    Arguments
    ---------
    width : int
        Size of the hidden states.
    output_size : int
        Size of the vectors.

    Example
    -------
    >>> TowerHead(32, output_size=16)(torch.randn(2, 25, 32)).shape
    torch.Size([2, 16])
    """

    def __init__(self, width: int, output_size: int):
        super().__init__()
        self.width = width
        self.output_size = output_size
        self.projection = Linear(width, width)
        self.to_latents = LatentProjection(width, output_size)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Averages and projects.

        Arguments
        ---------
        hidden : Tensor
            (batch, frames, width).
        mask : Tensor or None
            Boolean (batch, frames): the frames of the clips; None for all.

        Returns
        -------
        Tensor
            Unit vectors (batch, output_size).
        """
        return self.to_latents(self.projection(hidden), mask)

    def tower(self, encoder: nn.Module) -> AudioTower:
        """Puts it on an encoder.

        Arguments
        ---------
        encoder : nn.Module
            The one that it was trained with.

        Returns
        -------
        AudioTower
            In evaluation mode.
        """
        tower = AudioTower(encoder, self.output_size)
        tower.projection, tower.to_latents = self.projection, self.to_latents
        return tower.eval()


class TowerDistillation(Distillation):
    """Which vector does the teacher give to the clip?

    As `Distillation`, with one vector a clip: a small audio tower learns to put music
    where a large one puts it, beside the texts. Here the head is a part of what is
    wanted.

    Arguments
    ---------
    features : nn.Module
        The teacher, with one vector for each clip, such as `TowerFeatures`.
    head : TowerHead
        Vectors (batch, size) from hidden states and a mask of frames.

    Raises
    ------
    ValueError
        If features and head do not fit.

    Example
    -------
    >>> from muq_plugins.lobes import AudioTower, MuQEncoder, Pretraining
    >>> teacher = MuQEncoder(64, 1, num_heads=4, ffn_width=64, conv_channels=4)
    >>> student = MuQEncoder(32, 1, num_heads=4, ffn_width=64, conv_channels=4)
    >>> features = TowerFeatures(AudioTower(teacher, latent_width=16), "a1b2")
    >>> asked = TowerDistillation(features, TowerHead(32, 16))
    >>> stage = Pretraining(None, student, {"vectors": asked})
    >>> sorted(stage(torch.randn(2, 24000)).sums)
    ['cosine', 'error', 'loss']
    """

    rates = ("sample_rate",)  # there are no frames

    def say(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """The student's answer (batch, 1, size); see `Distillation.say`."""
        return self.head(hidden, mask)[:, None]
