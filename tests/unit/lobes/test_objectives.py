"""Several objectives in one pre-training: what is summed, named and refused."""

import math

import pytest
import torch

from muq_plugins.lobes import (
    BlockMasking,
    CodePrediction,
    KeptFrames,
    LogMel,
    MaskedPrediction,
    MultiCodebookHead,
    MuQEncoder,
    Pretraining,
    RandomProjection,
    ResampledTarget,
    StackedFrames,
    Target,
)
from tests.unit.lobes.tones import learn_tones


def encoder():
    torch.manual_seed(0)
    return MuQEncoder(32, 1, 4, 64, conv_channels=4, dropout=0.0)


def codes(codebooks=2, entries=16, width=32, **settings):
    target = Target(StackedFrames(LogMel()), RandomProjection(512, codebooks, entries))
    head = MultiCodebookHead(width, codebooks, entries)
    return CodePrediction(target, head, **settings)


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(2, 48000), None, torch.tensor([3, 4])


def test_the_loss_is_the_weighted_sum_and_numbers_have_names(batch):
    student = encoder()
    parts = {"coarse": codes(1, 8, visible_weight=1.0), "fine": codes(3, 32)}
    stage = Pretraining(BlockMasking(), student, parts, {"fine": 0.25}).eval()
    out = stage(*batch)
    alone = {
        name: Pretraining(stage.masking, student, {name: part}).eval()(*batch)
        for name, part in parts.items()
    }
    expected = alone["coarse"].loss + 0.25 * alone["fine"].loss
    torch.testing.assert_close(out.loss, expected)
    assert out.sums["loss"] == 2 * out.loss and out.weights["loss"] == 2
    for name, one in alone.items():
        for part in ("sums", "weights", "totals"):
            for key, value in getattr(one, part).items():
                assert torch.equal(getattr(out, part)[f"{name}/{key}"], value)
    assert out.totals["fine/code_counts"].shape == (3, 32)


def test_what_they_declare_has_the_names_of_their_numbers(batch):
    parts = {"coarse": codes(1, 8), "fine": codes(3, 32)}
    stage = Pretraining(BlockMasking(), encoder(), parts).eval()
    out = stage(*batch)
    means = {k: (v / out.weights[k]).tolist() for k, v in out.sums.items()}
    said = stage.summary(means, out.totals)
    assert said["coarse/chance"] == math.log(8) and said["fine/chance"] == math.log(32)
    assert len(said["fine/code_entropy_per_codebook"]) == 3
    for name, measure in stage.measures.items():
        assert set(measure.references) <= set(said), name
    assert "fine/cross_entropy" in stage.measures
    assert (
        "cross_entropy"
        in MaskedPrediction(
            BlockMasking(), parts["fine"].target, encoder(), parts["fine"].head
        ).measures
    )


def test_the_masked_batch_is_heard_once(batch):
    student, heard = encoder(), []
    student.register_forward_hook(lambda *call: heard.append(call))
    Pretraining(BlockMasking(), student, {"a": codes(), "b": codes()})(*batch)
    assert len(heard) == 1


def test_every_one_of_them_learns():
    parts = {"coarse": codes(1, 8), "fine": codes(2, 16)}
    stage = Pretraining(BlockMasking(), encoder(), parts)
    losses = [
        [float(out.sums[f"{x}/loss"] / out.weights[f"{x}/loss"]) for x in parts]
        for out in learn_tones(stage)
    ]
    first, last = torch.tensor(losses[0]), torch.tensor(losses[-5:]).mean(0)
    assert (last < 0.4 * first).all()


@pytest.mark.parametrize("weights", [[1.0, 0.0, 0.0], [2.0, 1.0, 0.5]])
def test_levels_count_what_is_asked(batch, weights):
    asked = codes(3, 16)
    plain = Pretraining(BlockMasking(), encoder(), {"codes": asked}).eval()(*batch)
    losses = plain.sums["cross_entropy_per_codebook"] / plain.weights["cross_entropy"]
    asked.level_weights = weights
    out = Pretraining(BlockMasking(), encoder(), {"codes": asked}).eval()(*batch)
    expected = (losses * torch.tensor(weights)).sum() / sum(weights)
    torch.testing.assert_close(out.loss, expected)
    losses = torch.rand(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert asked._of_frames(losses).dtype == torch.float32
    assert out.sums["cross_entropy"] == plain.sums["cross_entropy"]


def test_labels_take_the_place_of_their_target_alone():
    parts = {"a": codes(), "b": codes()}
    stage = Pretraining(BlockMasking(), encoder(), parts)
    other = Target(StackedFrames(LogMel()), RandomProjection(512, 2, 16))
    kept = parts["b"].target
    stage.replace_target(parts["a"].target, other)
    assert parts["a"].target is other and parts["b"].target is kept
    inner = parts["b"].target = ResampledTarget(kept, 25.0)
    stage.replace_target(kept, other)
    assert parts["b"].target is inner and inner.target is other


def test_weights_of_before_are_found():
    parts = codes()
    stage = MaskedPrediction(BlockMasking(), parts.target, encoder(), parts.head)
    state = stage.state_dict()
    old = {name.replace("objectives.codes.", ""): x for name, x in state.items()}
    assert any(name.startswith("head.") for name in old)
    other = codes()
    fresh = MaskedPrediction(BlockMasking(), other.target, encoder(), other.head)
    fresh.load_state_dict(old)
    assert all(torch.equal(x, state[k]) for k, x in fresh.state_dict().items())


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"objectives": {}}, "at least one objective"),
        ({"objectives": {"a/b": codes()}}, "'a/b': the name of an objective"),
        ({"masking": None}, r"CodePrediction \(a\) asks about masked music"),
        ({"weights": {"c": 1.0}}, "weights has 'c', but the objectives are a"),
        ({"weights": {"a": -1.0}}, "weight of a is -1.0"),
        ({"objectives": {"a": codes(width=48)}}, "width.*32.*48"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    given = {"masking": BlockMasking(), "encoder": encoder()}
    given |= {"objectives": {"a": codes()}, "weights": None}
    with pytest.raises(ValueError, match=words):
        Pretraining(**{**given, **changes})


class Silent(BlockMasking):
    def __init__(self):
        super().__init__()
        del self.frame_rate


class Spectrum(LogMel):
    def __init__(self):
        super().__init__()
        del self.config


class Headless(MultiCodebookHead):
    def __init__(self):
        super().__init__(32, 2, 16)
        del self.num_codebooks


def test_what_a_part_of_ones_own_does_not_say_is_named():
    with pytest.raises(ValueError, match="Silent has no attribute frame_rate"):
        Pretraining(Silent(), encoder(), {"a": codes()})
    for wrapper in (StackedFrames, KeptFrames):
        with pytest.raises(ValueError, match="Spectrum has no attribute config"):
            wrapper(Spectrum(), 4)
    with pytest.raises(ValueError, match="Headless has no attribute num_codebooks"):
        CodePrediction(codes().target, Headless())


def test_a_target_of_ones_own_does_not_learn():
    class Own(torch.nn.Linear):
        sample_rate, frame_rate, num_codebooks, codebook_size = 24000, 25.0, 2, 16

    asked = CodePrediction(Own(1, 1), MultiCodebookHead(32, 2, 16)).train()
    assert not asked.target.training and asked.head.training
    assert {p.requires_grad for p in asked.target.parameters()} == {False}


def test_a_frozen_encoder_is_told(caplog):
    """It may be meant, to measure a loss."""
    Pretraining(BlockMasking(), encoder(), {"a": codes()})
    assert not caplog.text
    Pretraining(BlockMasking(), encoder().requires_grad_(False), {"a": codes()})
    assert "frozen, so that in a training nothing but heads would learn" in caplog.text


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [1.0, -1.0], [1.0, math.nan]])
def test_bad_weights_of_levels_are_refused(weights):
    with pytest.raises(ValueError, match="level_weights is"):
        codes(level_weights=weights)
