"""Students of frames and of vectors: their loss, what they say of themselves."""

import pytest
import torch

from muq_plugins.lobes import (
    AudioTower,
    Distillation,
    MuQEncoder,
    Pretraining,
    ResampledEncoder,
    TeacherFeatures,
    TowerDistillation,
    TowerFeatures,
    TowerHead,
    VectorHead,
)


def encoder(width=16, layers=1, **settings):
    return MuQEncoder(width, layers, 2, 2 * width, conv_channels=4, **settings)


def frames(teacher=None, student=None, layer=1):
    torch.manual_seed(0)
    teacher = encoder(24, 2).eval() if teacher is None else teacher
    student = encoder() if student is None else student
    head = VectorHead(student.width, teacher.width)
    asked = Distillation(TeacherFeatures(teacher, layer, "a1b2"), head)
    return Pretraining(None, student, {"distillation": asked})


def vectors(**settings):
    torch.manual_seed(0)
    teacher = AudioTower(encoder(24, **settings), latent_width=8).eval()
    student = encoder()
    asked = TowerDistillation(TowerFeatures(teacher, "a1b2"), TowerHead(16, 8))
    return Pretraining(None, student, {"distillation": asked})


STAGES = {"frames": frames, "vectors": vectors}


def music(clips=2, seconds=1.0):
    """Tones whose pitch changes four times a second."""
    torch.manual_seed(1)
    samples = int(24000 * seconds)
    pitches = 100 * 2 ** (3 * torch.rand(clips, int(4 * seconds)))
    steps = pitches.repeat_interleave(6000, 1) * (2 * torch.pi / 24000)
    return 0.3 * torch.sin(steps.cumsum(1)[:, :samples])


def means(out):
    return {key: float(value / out.weights[key]) for key, value in out.sums.items()}


@pytest.mark.parametrize("kind", STAGES)
def test_a_student_comes_near_its_teacher_and_says_so(kind):
    stage, wavs = STAGES[kind](), music()
    with torch.no_grad():
        before = means(stage(wavs))
    optimizer = torch.optim.Adam(stage.parameters(), 0.02)
    for _ in range(15):
        optimizer.zero_grad()
        stage(wavs).loss.backward()
        optimizer.step()
    with torch.no_grad():
        out = stage(wavs)
    after = means(out)
    assert after["loss"] < 0.5 * before["loss"]
    assert after["cosine"] > max(0.8, before["cosine"] + 0.2)


def test_loss_is_the_error_as_a_share_of_the_teachers_square():
    stage, wavs = frames().eval().requires_grad_(False), music()
    asked = stage.objectives["distillation"]
    truth, _ = asked.features(wavs)
    said = asked.say(stage.encoder(wavs).last_hidden_state)
    shares = (said - truth).square().sum(2) / truth.square().sum(2)
    assert stage(wavs).loss == pytest.approx(float(shares.mean()), rel=1e-5)
    # Nothing heard and nothing said: all of the error is left.
    torch.nn.init.zeros_(asked.head.weight)
    torch.nn.init.zeros_(asked.head.bias)
    assert stage(wavs).loss == pytest.approx(1.0, rel=1e-5)


def test_what_a_constant_answer_reaches_stands_beside_it():
    stage, wavs = frames().eval(), music()
    asked = stage.objectives["distillation"]
    truth = asked.features(wavs)[0].flatten(0, 1)
    torch.nn.init.zeros_(asked.head.weight)
    asked.head.bias.data = truth.mean(0)
    with torch.no_grad():
        out = stage(wavs)
    found = stage.summary(means(out), out.totals)
    assert found["relative_error"] == pytest.approx(1.0, rel=1e-4)
    best = torch.nn.functional.normalize(truth, dim=1).mean(0).norm()
    assert found["constant_cosine"] == pytest.approx(float(best), rel=1e-5)
    assert means(out)["cosine"] == pytest.approx(float(best), rel=1e-2)


@pytest.mark.parametrize("kind", STAGES)
def test_padding_counts_nothing(kind):
    stage, wavs = STAGES[kind]().eval(), music(2)
    with torch.no_grad():
        alone = stage(wavs[:1, :12000])
        beyond = torch.randn(1, 12000)
        padded = torch.cat([wavs[:1, :12000], beyond], dim=1)
        both = stage(torch.cat([padded, wavs[1:]]), torch.tensor([0.5, 1.0]))
        other = stage(wavs[1:])
    for name, value in both.sums.items():
        expected = alone.sums[name] + other.sums[name]
        assert value == pytest.approx(float(expected), rel=1e-4), name
    assert both.weights["loss"] == alone.weights["loss"] + other.weights["loss"]


def test_a_mean_over_layers_can_be_asked_for():
    teacher, wavs = encoder(24, 3).eval(), music()
    states = teacher(wavs).hidden_states
    found, _ = TeacherFeatures(teacher, [1, 3], "a1b2")(wavs)
    torch.testing.assert_close(found, (states[1] + states[3]) / 2)
    for layers, words in (
        ([], "No layer is named"),
        ([1, 4], "There is no layer 4"),
        ([1.0], "no layer 1.0"),
    ):
        with pytest.raises(ValueError, match=words):
            TeacherFeatures(teacher, layers, "a1b2")


def test_another_frame_rate_is_averaged_or_refused():
    fast = encoder(24, hop_length=120).eval()
    with pytest.raises(ValueError, match="frame_rate differs: TeacherFeatures has 50"):
        frames(fast)
    stage = frames(ResampledEncoder(fast, 25.0))
    assert stage(music()).weights["loss"] == 50


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="sample_rate differs: .* 16000 Hz, .* 24000"):
        frames(encoder(sample_rate=16000, hop_length=160, n_fft=1024).eval())
    features = TeacherFeatures(encoder(24).eval(), 1, "a1b2")
    with pytest.raises(ValueError, match="output_size differs"):
        Distillation(features, VectorHead(16, 8))
    with pytest.raises(ValueError, match="width differs: MuQEncoder has 16"):
        asked = Distillation(features, VectorHead(8, 24))
        Pretraining(None, encoder(), {"distillation": asked})
    with pytest.raises(ValueError, match="sample_rate differs: TowerFeatures"):
        vectors(sample_rate=16000, hop_length=160, n_fft=1024)
    vectors(hop_length=120)  # a clip has one vector, whatever its frames


def test_a_head_becomes_the_tower_of_its_encoder():
    stage, wavs = vectors().eval(), music()
    head = stage.objectives["distillation"].head
    for part in head.parameters():
        torch.nn.init.normal_(part, std=0.3)
    hidden = stage.encoder(wavs).last_hidden_state
    torch.testing.assert_close(head.tower(stage.encoder)(wavs), head(hidden))


@pytest.mark.parametrize("kind", STAGES)
def test_the_teacher_is_neither_trained_nor_saved(kind):
    stage = STAGES[kind]()
    features = stage.objectives["distillation"].features
    assert not any(
        "features" in name for name in stage.state_dict() if "encoder" not in name
    )
    assert not list(features.parameters())
    stage.train()
    assert not any(part.training for part in features._teacher[0].modules())
