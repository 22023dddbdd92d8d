"""Regression of vectors: its loss, what it says of itself, and that it learns."""

import pytest
import torch
from torch import nn

from muq_plugins.lobes import (
    BlockMasking,
    ConstantQ,
    LogMel,
    MuQEncoder,
    Pretraining,
    StackedFrames,
    VectorHead,
    VectorRegression,
)

BANDS = 36


def student(width=32):
    torch.manual_seed(0)
    return MuQEncoder(width, 1, 4, 64, conv_channels=4, dropout=0.0)


def constant_q(**settings):
    return ConstantQ(num_bins=BANDS, bins_per_octave=12, f_min=110.0, **settings)


def asked(features=None, head=None, **settings):
    torch.manual_seed(1)
    head = head or VectorHead(32, BANDS)
    return VectorRegression(features or constant_q(), head, **settings)


def alone(objective, **parts):
    parts = {"masking": BlockMasking(), "encoder": student(), **parts}
    return Pretraining(objectives={"constant_q": objective}, **parts).eval()


@pytest.fixture
def batch():
    """Two clips, the second one shorter, and their keys."""
    torch.manual_seed(2)
    lens = torch.tensor([1.0, 0.7])
    return 0.3 * torch.randn(2, 48000), lens, torch.tensor([6, 8])


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_is_the_squared_error_of_frames_inside_the_clips(batch, weight):
    objective = asked(visible_weight=weight)
    stage = alone(objective)
    out = stage(*batch)
    wavs, lens, keys = batch
    heard, mask = stage.masking.encode(stage.encoder, wavs, lens, keys)
    errors = (
        objective.head(heard.last_hidden_state) - objective.features(wavs, lens)[0]
    ).square()
    inside = torch.arange(50) < torch.tensor([[50], [35]])
    masked, visible = inside & mask, inside & ~mask
    counted = masked + weight * visible
    expected = (errors.mean(-1) * counted).sum() / counted.sum()
    torch.testing.assert_close(out.loss, expected)
    for kind, frames in {"": masked, "visible_": visible}.items():
        if not kind or weight:
            mean = out.sums[f"{kind}error"] / out.weights[f"{kind}error"]
            torch.testing.assert_close(mean, errors[frames].mean())
        else:
            assert f"{kind}error" not in out.sums


def test_a_constant_model_has_the_variance_as_error(batch):
    """Over batches: sums are all that is kept of them."""
    objective = asked(visible_weight=1.0)
    stage = alone(objective)
    outs = [stage(*batch), stage(batch[0].flip(0) + 0.1, None, batch[2])]
    totals = {k: sum(out.totals[k] for out in outs) for k in outs[0].totals}
    vectors = []
    for (wavs, lens), heard in zip(
        [batch[:2], (batch[0].flip(0) + 0.1, None)], outs, strict=True
    ):
        _, mask = stage.masking.encode(stage.encoder, wavs, lens, batch[2])
        inside = torch.arange(50) < torch.tensor(
            [[50], [35 if lens is not None else 50]]
        )
        vectors.append(objective.features(wavs, lens)[0][mask & inside].double())
        assert len(vectors[-1]) == heard.totals["frames"]
    vectors = torch.cat(vectors)
    said = objective.summary({"error": 0.3, "visible_error": 0.1}, totals)
    variance = float((vectors - vectors.mean(0)).square().mean())
    assert said["variance"] == pytest.approx(variance)
    assert said["relative_error"] == pytest.approx(0.3 / variance)
    assert said["constant"] == 1.0 and "random_target" not in said
    known = set(said) | {"error", "visible_error"}
    for name, measure in objective.measures.items():
        assert name in known and set(measure.references) <= known


def test_of_silence_nothing_is_said(batch):
    objective = asked()
    out = alone(objective)(torch.zeros_like(batch[0]), None, batch[2])
    assert objective.summary({"error": 0.1}, out.totals) == {}


def test_checkpoints_stay_small(batch):
    stage = alone(asked())
    assert stage(*batch).totals and not stage.train()(*batch).totals


def test_nothing_may_be_masked(batch):
    stage = alone(asked(), masking=BlockMasking(probability=1e-6))
    out = stage(*batch)
    out.loss.backward()
    assert out.loss == 0 and out.weights["error"] == 0
    assert stage.objectives["constant_q"].head.weight.grad.abs().max() == 0


class Untrained(nn.Module):
    """Features with weights that nobody has trained."""

    def __init__(self):
        super().__init__()
        self.features, self.is_trained = StackedFrames(LogMel()), False
        self.map = nn.Sequential(nn.Linear(512, BANDS), nn.Dropout(0.5))
        self.sample_rate, self.frame_rate, self.output_size = 24000, 25.0, BANDS

    def forward(self, wavs, wav_lens=None):
        feats, lens = self.features(wavs, wav_lens)
        return self.map(feats), lens


def test_features_with_weights_stay_as_they_are(batch):
    objective = asked(Untrained())
    stage = alone(objective).train()
    assert not any(part.training for part in objective.features.modules())
    out = stage(*batch)
    out.loss.backward()
    assert all(p.grad is None for p in objective.features.parameters())
    said = objective.summary({"error": 0.1}, stage.eval()(*batch).totals)
    assert said["random_target"] == "Untrained"


@pytest.mark.parametrize(
    "features, words",
    [
        (StackedFrames(LogMel()), "output_size.*StackedFrames has 512.*Head has 36"),
        (constant_q(hop_length=480), "frame_rate.*ConstantQ has 50.*Encoder has 25"),
        (constant_q(sample_rate=48000), "sample_rate.*ConstantQ has 48000.*24000"),
        (None, "width.*MuQEncoder has 64.*VectorHead has 32"),
    ],
)
def test_what_does_not_fit_is_refused(features, words):
    with pytest.raises(ValueError, match=words):
        alone(asked(features), encoder=student(32 if features else 64))


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_bad_weights_are_refused(weight):
    with pytest.raises(ValueError, match="visible_weight is"):
        asked(visible_weight=weight)


def sweeps(seed, clips=4):
    """Tones that rise by a band in a quarter of a second, and the bands of frames."""
    random = torch.Generator().manual_seed(seed)
    start = 4 + (BANDS - 12) * torch.rand(clips, 1, generator=random)
    band = start + 4 * torch.arange(48000) / 24000
    phase = torch.cumsum(110 * 2 ** (band.double() / 12), 1) / 24000
    return 0.3 * torch.sin(2 * torch.pi * phase).float(), band[:, 480::960].round()


def test_it_learns_where_a_sweep_is_that_it_does_not_hear():
    objective, masking = asked(visible_weight=1.0), BlockMasking()
    stage = Pretraining(masking, student(), {"constant_q": objective}).train()
    optimizer = torch.optim.AdamW(stage.parameters(), 0.005)
    for update in range(80):
        wavs, _ = sweeps(update)
        stage(wavs, None, torch.arange(4) + 4 * update).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    stage.eval()
    (wavs, bands), keys = sweeps(10**6, 16), torch.arange(16) + 10**6
    with torch.no_grad():
        out = stage(wavs, None, keys)
        means = {k: float(v / out.weights[k]) for k, v in out.sums.items()}
        heard, mask = masking.encode(stage.encoder, wavs, None, keys)
        loudest = objective.head(heard.last_hidden_state).argmax(-1)
    assert stage.summary(means, out.totals)["relative_error"] < 0.85
    # By chance it is within a band of the truth in one frame out of nine.
    assert ((loudest - bands).abs() <= 1)[mask].float().mean() > 0.5
