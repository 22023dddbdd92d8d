"""Contrastive losses against plain formulas, and where they must not break."""

import math

import pytest
import torch

from muq_plugins.lobes import DecoupledContrastive, InfoNCE, SigmoidContrastive
from muq_plugins.lobes.mulan.contrastive import negative_pairs

LOSSES = [DecoupledContrastive, InfoNCE, SigmoidContrastive]


def unit_vectors(pairs, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(2, pairs, width, generator=generator, dtype=torch.double)
    return torch.nn.functional.normalize(vectors, dim=-1).unbind()


def plain(kind, audio, text, same, temperature, bias=-10.0):
    """The losses one pair after the other, as they are written in papers."""
    pairs = len(audio)
    s = (temperature * audio @ text.T).tolist()
    total, counted = 0.0, 0
    for i in range(pairs):
        others = [j for j in range(pairs) if not same[i][j]]
        if kind is SigmoidContrastive:
            total += math.log(1 + math.exp(-(s[i][i] + bias)))
            total += sum(math.log(1 + math.exp(s[i][j] + bias)) for j in others)
            counted += 1
            continue
        if kind is InfoNCE:
            others = [*others, i]
        if others:
            rows = math.log(sum(math.exp(s[i][j]) for j in others))
            columns = math.log(sum(math.exp(s[j][i]) for j in others))
            total += -s[i][i] + 0.5 * (rows + columns)
            counted += 1
    return total / counted


IDENTITIES = {
    "none": None,
    "texts": torch.tensor([[1], [2], [1], [3], [3], [4]]),
    "texts and pieces": torch.tensor([[1, 9], [2, 9], [1, 8], [3, 7], [4, 6], [5, 6]]),
    "one against all others": torch.tensor([[0], [0], [0], [0], [0], [1]]),
    "one without negatives": torch.tensor(
        [[0, 9], [0, 1], [0, 2], [3, 9], [4, 9], [5, 9]]
    ),
}


def shared(identities, pairs):
    """Whether pairs share an identity, one combination after the other."""
    return [
        [
            i == j
            or (
                identities is not None
                and any(
                    a == b
                    for a, b in zip(
                        identities[i].tolist(), identities[j].tolist(), strict=True
                    )
                )
            )
            for j in range(pairs)
        ]
        for i in range(pairs)
    ]


@pytest.mark.parametrize("case", IDENTITIES)
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_losses_equal_plain_formulas(kind, case, temperature):
    audio, text = unit_vectors(6)
    identities = IDENTITIES[case]
    expected = plain(kind, audio, text, shared(identities, 6), temperature)
    loss = kind(temperature=temperature)
    # Numbers of double precision stay so; the temperature is of single precision.
    assert loss(audio, text, identities).item() == pytest.approx(expected, rel=1e-6)
    found = loss(audio.float(), text.float(), identities).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_decoupled_loss_is_that_of_the_official_code():
    audio, text = unit_vectors(8)
    # Facts of the official code: exponentials, a diagonal of zeros, clamped logarithms.
    exponentials = (10.0 * audio @ text.T).exp()
    others = exponentials * (1 - torch.eye(8))
    rows, columns = (others.sum(axis).clamp(min=1e-20).log() for axis in (1, 0))
    expected = (-exponentials.diagonal().log() + 0.5 * (rows + columns)).mean()
    found = DecoupledContrastive(temperature=10.0)(audio, text)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("kind", LOSSES)
def test_duplicates_are_not_negatives(kind):
    audio, text = (v.float().requires_grad_() for v in unit_vectors(5))
    identities = torch.tensor([[7, 0], [7, 1], [2, 2], [3, 3], [4, 4]])
    loss = kind(bias=0.0) if kind is SigmoidContrastive else kind()
    loss(audio, text, identities).backward()
    # Nothing pushes clip 0 away from text 1: moving that text changes what clip 0
    # gets only if they are compared.
    before = audio.grad[0].clone()
    audio.grad = None
    moved = text.detach().clone()
    moved[1] = torch.nn.functional.normalize(torch.randn(16), dim=0)
    loss(audio, moved, identities).backward()
    torch.testing.assert_close(audio.grad[0], before, rtol=1e-4, atol=1e-6)
    audio.grad = None
    loss(audio, moved).backward()
    assert (audio.grad[0] - before).abs().max() > 1e-4


def test_any_shared_column_counts_but_only_within_it():
    identities = torch.tensor([[1, 2], [2, 1], [1, 9], [3, 2]])
    assert negative_pairs(4, identities, "cpu").tolist() == [
        [False, True, False, False],
        [True, False, True, True],
        [False, True, False, True],
        [False, True, True, False],
    ]


@pytest.mark.parametrize("start", [100.0, 1.0])
@pytest.mark.parametrize("kind", LOSSES)
def test_bfloat16_stays_finite_at_the_limit_of_the_temperature(kind, start):
    loss = kind(temperature=start)
    loss.log_temperature.data.fill_(50.0)  # far beyond the limit of 100
    vectors = torch.nn.functional.normalize(torch.randn(32, 16), dim=-1)
    for text in (vectors, -vectors):  # the best and the worst latents there are
        audio = vectors.bfloat16().requires_grad_()
        text = text.bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = loss(audio, text)
        out.backward()
        assert out.dtype == torch.float32 and out.isfinite()
        assert audio.grad.isfinite().all() and text.grad.isfinite().all()
    assert out > 50  # -vectors: one's own text is the farthest


def test_autocast_does_not_make_similarities_coarse():
    audio, text = (v.float() for v in unit_vectors(32))
    loss = DecoupledContrastive(temperature=100.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(audio, text)
    torch.testing.assert_close(found, loss(audio, text), rtol=1e-6, atol=0)


def test_the_temperature_is_clamped_and_comes_back_from_its_limit():
    loss = InfoNCE(temperature=50.0, max_temperature=100.0)
    loss.log_temperature.data.fill_(9.0)
    assert loss.temperature().item() == pytest.approx(100.0, rel=1e-6)
    audio, text = (v.float() for v in unit_vectors(4))  # random: 100 is far too much
    loss(audio, text).backward()
    assert loss.log_temperature.grad == 0  # which is why after_update is needed
    loss.after_update()
    assert loss.log_temperature.item() == pytest.approx(math.log(100.0), rel=1e-6)
    loss(audio, text).backward()
    assert loss.log_temperature.grad > 0.1


@pytest.mark.parametrize("kind", LOSSES)
def test_one_pair_alone_keeps_the_graph_whole(kind):
    loss = kind()
    audio, text = (v.float().requires_grad_() for v in unit_vectors(1))
    out = loss(audio, text)
    out.backward()
    assert out.isfinite() and audio.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite() for p in loss.parameters())
    if kind is not SigmoidContrastive:  # which needs no others to learn from
        assert out == 0 and audio.grad.abs().max() == 0
        assert loss.chance(1) == 0


@pytest.mark.parametrize("kind", LOSSES)
def test_a_batch_of_one_text_is_no_reason_to_learn_nonsense(kind):
    audio, text = (v.float().requires_grad_() for v in unit_vectors(4))
    out = kind()(audio, text, torch.zeros(4, 1).long())
    out.backward()
    assert out.isfinite() and audio.grad.isfinite().all()
    assert (audio.grad.abs().max() == 0) == (kind is not SigmoidContrastive)


@pytest.mark.parametrize("identities", [None, IDENTITIES["texts and pieces"]])
@pytest.mark.parametrize("kind", [DecoupledContrastive, InfoNCE])
def test_chance_is_the_loss_of_equal_latents(kind, identities):
    same = torch.ones(6, 16) / 4
    loss = kind()
    chance = loss.chance(6, identities)
    assert loss(same, same, identities).item() == pytest.approx(chance, abs=1e-5)
    if identities is None:
        assert chance == pytest.approx(math.log(6 if kind is InfoNCE else 5))


@pytest.mark.parametrize("identities", [None, IDENTITIES["texts and pieces"]])
def test_chance_of_the_sigmoid_is_that_of_the_best_bias(identities):
    same = torch.ones(6, 16) / 4
    loss = SigmoidContrastive()
    found = []
    for bias in torch.arange(-16.0, 0.0, 0.01):
        loss.bias.data.fill_(bias)
        found.append(loss(same, same, identities).item())
    assert loss.chance(6, identities) == pytest.approx(min(found), abs=1e-4)


@pytest.mark.parametrize("kind", LOSSES)
def test_latents_alone_can_be_learned(kind):
    torch.manual_seed(0)
    audio, text = (v.float().requires_grad_() for v in unit_vectors(8))
    loss = kind()
    optimizer = torch.optim.Adam([audio, text, *loss.parameters()], 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        units = (torch.nn.functional.normalize(v, dim=-1) for v in (audio, text))
        out = loss(*units)
        out.backward()
        optimizer.step()
    assert out < 0.2 * loss.chance(8)


def test_bad_settings_and_shapes_are_refused():
    with pytest.raises(ValueError, match="temperature is 200.*max_temperature.*100"):
        InfoNCE(temperature=200.0)
    with pytest.raises(ValueError, match="temperature is 0"):
        InfoNCE(temperature=0)
    with pytest.raises(ValueError, match=r"\(2, 8\) and \(3, 8\)"):
        InfoNCE()(torch.zeros(2, 8), torch.zeros(3, 8))
    with pytest.raises(ValueError, match="shape.*0, 8"):
        InfoNCE()(torch.zeros(0, 8), torch.zeros(0, 8))
    with pytest.raises(ValueError, match=r"identities have the shape \(2,\): 2 pairs"):
        InfoNCE()(torch.zeros(2, 8), torch.zeros(2, 8), torch.zeros(2).long())
