"""Regressed latents: the teacher, the targets, the loss, and what a collapse shows."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from muq_plugins.lobes import BlockMasking, LatentRegression, MuQEncoder, Pretraining
from muq_plugins.lobes.batch_norm import batch_norms
from muq_plugins.lobes.objectives.base import Hearing

WAVS, KEYS = (2, 48000), torch.tensor([3, 4])


def encoder(width=32, layers=2, **settings):
    torch.manual_seed(0)
    return MuQEncoder(width, layers, 4, 64, conv_channels=4, **settings)


def stage(dropout=0.0, masking=None, **settings):
    student = encoder(dropout=dropout)
    asked = {"top_layers": 2, "decay_start": 0.9, "decay_end": 0.99, **settings}
    latents = LatentRegression(student, **asked)
    return Pretraining(masking or BlockMasking(), student, {"latents": latents})


def updated(module, number=1, size=0.1):
    """The stage after some updates."""
    for _ in range(number):
        with torch.no_grad():
            for parameter in module.encoder.parameters():
                parameter.add_(size * torch.randn_like(parameter))
        module.after_update()
    return module


def test_the_teacher_is_a_frozen_copy():
    module = stage(dropout=0.1)
    latents = module.objectives["latents"]
    mine = {id(value) for value in module.encoder.state_dict(keep_vars=True).values()}
    its = latents.teacher.state_dict(keep_vars=True)
    assert not mine & {id(value) for value in its.values()}
    assert not any(value.requires_grad for value in its.values())
    for name, value in module.encoder.state_dict().items():
        assert torch.equal(value, its[name]), name
    assert module.train() and latents.training
    assert not any(part.training for part in latents.teacher.modules())
    # In the checkpoint once, with the number of updates; the encoder not again.
    names = [name.split(".")[2] for name in module.state_dict() if "latents" in name]
    assert set(names) == {"teacher", "head", "updates"}
    out = module(torch.randn(WAVS), None, KEYS)
    out.loss.backward()
    assert all(value.grad is None for value in latents.teacher.parameters())


def test_it_follows_the_encoder_as_published():
    """Equation 1 of arXiv 2202.03555, whose decay rises linearly to its end."""
    module = stage(decay_updates=4)
    latents = module.objectives["latents"]
    expected = [value.clone() for value in latents.teacher.parameters()]
    for update, decay in enumerate([0.9225, 0.945, 0.9675, 0.99, 0.99, 0.99], start=1):
        updated(module)
        assert latents.decay() == pytest.approx(decay)
        assert int(latents.updates) == update
        expected = [
            decay * own + (1 - decay) * its
            for own, its in zip(expected, module.encoder.parameters(), strict=True)
        ]
    for own, wanted in zip(latents.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(own.detach(), wanted.detach())


def test_targets_are_normalised_layers_of_the_clean_clip():
    module = updated(stage())
    latents, wavs = module.objectives["latents"], torch.randn(WAVS)
    hearing = Hearing(module.encoder, module.masking, wavs, None, KEYS)
    targets, inside = latents.targets(hearing)
    out = copy.deepcopy(latents.teacher)(wavs)
    layers = [F.instance_norm(x.transpose(1, 2)) for x in out.hidden_states[-2:]]
    expected = torch.stack(layers).mean(0).transpose(1, 2)
    torch.testing.assert_close(targets, expected, rtol=1e-4, atol=1e-4)
    assert inside.all() and inside.shape == targets.shape[:2]


def test_padding_does_not_influence_a_target():
    module = stage()
    wavs = torch.randn(WAVS)
    wavs[1, 24000:] = 0
    lens = torch.tensor([1.0, 0.5])
    find = module.objectives["latents"].targets
    together, inside = find(Hearing(module.encoder, None, wavs, lens, KEYS))
    alone, _ = find(Hearing(module.encoder, None, wavs[1:, :24000], None, KEYS[1:]))
    assert inside[1].sum() == alone.shape[1] == 25
    torch.testing.assert_close(together[1, :25], alone[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weight, beta", [(0.0, 0.0), (0.5, 0.0), (1.0, 0.7)])
def test_the_loss_is_what_frames_count(weight, beta):
    module = updated(stage(visible_weight=weight, beta=beta)).eval()
    latents, wavs = module.objectives["latents"], torch.randn(WAVS)
    out = module(wavs, None, KEYS)
    hearing = Hearing(module.encoder, module.masking, wavs, None, KEYS)
    targets, _ = latents.targets(hearing)
    heard, mask = hearing.masked
    found = latents.head(heard.last_hidden_state)
    apart = (found - targets).abs()
    errors = apart.square()
    if beta:
        small = 0.5 * apart.square() / beta
        errors = torch.where(apart < beta, small, apart - 0.5 * beta)
    errors, counted = errors.mean(-1), torch.where(mask, 1.0, weight)
    torch.testing.assert_close(out.loss, (errors * counted).sum() / counted.sum())
    means = {name: out.sums[name] / out.weights[name] for name in out.sums}
    torch.testing.assert_close(means["loss"], out.loss)
    torch.testing.assert_close(means["error"], errors[mask].mean())
    assert ("visible_error" in means) == (weight > 0)
    if not beta:
        constant = targets[mask].square().mean()
        torch.testing.assert_close(means["constant_error"], constant)
    # What nobody masked teaches nothing, and breaks nothing.
    module.masking.probability = 1e-9
    latents.visible_weight = 0.0
    nothing = module(wavs, None, KEYS)
    nothing.loss.backward()
    assert nothing.loss == 0 and latents.head.weight.grad is not None


def test_it_listens_with_the_running_statistics_of_the_encoder():
    module = stage().train()
    for _ in range(2):
        module(torch.randn(WAVS), None, KEYS)
    module.eval()(torch.randn(WAVS), None, KEYS)
    norms = [batch_norms(x) for x in (module.encoder, module.objectives["latents"])]
    assert norms[0] and len(norms[0]) == len(norms[1])
    for its, own in zip(*norms, strict=True):
        assert own.running_var.ne(1).any() and own.num_batches_tracked == 2
        assert torch.equal(its.running_mean, own.running_mean)


def test_spread_and_rank_of_what_is_known():
    """Three directions of standard deviations 4, 2 and 2, of 32."""
    latents = stage().objectives["latents"]
    torch.manual_seed(0)
    columns = torch.linalg.qr(torch.randn(1000, 3, dtype=torch.float64))[0]
    columns = torch.linalg.qr(columns - columns.mean(0))[0] * math.sqrt(1000)
    turned = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64))[0][:3]
    targets = (columns * torch.tensor([4.0, 2.0, 2.0])) @ turned + 5.0
    totals = {
        "frames": torch.tensor(1000),
        "target_sum": targets.sum(0),
        "target_products": targets.T @ targets,
        "prediction_sum": torch.full((32,), 500.0),
        "prediction_squares": torch.full((32,), 1250.0),
    }
    said = latents.summary({}, totals)
    assert said["prediction_spread"] == pytest.approx(1.0)
    spread = float(targets.std(0, correction=0).mean())
    assert said["target_spread"] == pytest.approx(spread)
    # The entropy of 1/2, 1/4, 1/4
    assert said["rank"] == pytest.approx(2**1.5 / 32, rel=1e-4)


def test_what_says_nothing_is_seen_to_have_collapsed():
    module = stage(visible_weight=1.0).eval()
    latents = module.objectives["latents"]

    def said():
        out = module(torch.randn(WAVS), None, KEYS)
        return latents.summary({}, out.totals)

    healthy = said()
    for parameter in latents.teacher.parameters():
        parameter.data.mul_(0.0)
    constant = said()
    for name in ("target_spread", "rank"):
        limit = latents.measures[name].limit
        assert healthy[name] > limit > constant[name], name
    assert "target_products" not in module.train()(torch.randn(WAVS)).totals


def test_it_learns_what_is_sure_to_come():
    """A pattern that repeats itself: what is masked is known from what is not."""
    module = stage(
        masking=BlockMasking(0.3, noise_std=0.0),
        decay_start=1.0,
        decay_end=1.0,
        top_layers=1,
    )
    torch.manual_seed(2)
    wavs = 0.3 * torch.randn(4, 4800).repeat(1, 5)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    shares = []
    for step in range(40):
        out = module(wavs, None, torch.arange(4) + 10 * step)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        module.after_update()
        shares.append(float(out.sums["error"] / out.sums["constant_error"]))
    assert shares[0] > 0.9
    assert sum(shares[-5:]) / 5 < 0.6


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"top_layers": 3}, "top_layers is 3, but MuQEncoder has 2 layers"),
        ({"decay_start": 0.9999}, "decay_start is 0.9999 and decay_end 0.99"),
        ({"decay_updates": 0}, "decay_updates is 0"),
        ({"beta": -1.0}, "beta is -1.0"),
        ({"visible_weight": math.nan}, "visible_weight is nan"),
        ({"masking": BlockMasking(frame_rate=50.0)}, "frame_rate.*MuQEnc.*BlockMask"),
    ],
)
def test_what_does_not_fit_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        stage(**settings)


@pytest.mark.parametrize(
    "other, words",
    [
        (lambda: encoder(width=48), "width differs.*48.*32"),
        (lambda: encoder(layers=1), "copy of another MuQEncoder than the MuQEncoder"),
    ],
)
def test_a_teacher_of_another_encoder_is_refused(other, words):
    latents = LatentRegression(encoder(), top_layers=1)
    with pytest.raises(ValueError, match=words):
        Pretraining(BlockMasking(), other(), {"latents": latents})
