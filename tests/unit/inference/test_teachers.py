"""Trained models as teachers: which are taken, and what is said of them."""

import json

import pytest
import torch

from muq_plugins.errors import UserError
from muq_plugins.inference.muq import save_muq
from muq_plugins.inference.teachers import (
    check_head,
    credit,
    teacher_states,
    teacher_vectors,
)
from muq_plugins.lobes import MuQEncoder, TowerHead
from tests.unit.inference.tiny_mulan import tiny_encoder, tiny_mulan


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    save_muq(tmp_path / "run" / "inference", tiny_encoder().eval(), "two songs")
    return tmp_path / "run"


def test_a_run_teaches_its_last_layer_or_a_mean_of_several(run):
    last, mean = teacher_states(run), teacher_states(run, [1, 2])
    assert last.layers == [2] and mean.layers == [1, 2]
    assert last.output_size == 32 and last.frame_rate == 25.0
    assert last.config["teacher"] == mean.config["teacher"]
    halved = teacher_states(run, frame_rate=12.5)
    wavs = torch.randn(1, 24000)
    pairs = last(wavs)[0][:, :24].unflatten(1, (12, 2)).mean(2)
    torch.testing.assert_close(halved(wavs)[0], pairs)
    assert halved.config["teacher"] == last.config["teacher"]


def test_a_head_that_makes_no_tower_is_refused():
    class Head(TowerHead):
        """What it computes, an AudioTower does not."""

    check_head(TowerHead(32, 16))
    with pytest.raises(UserError, match="distillation.head is a Head"):
        check_head(Head(32, 16))


def test_the_package_teaches_too():
    features = teacher_states("small")
    assert features.output_size == 256 and features.weights > 2e6
    assert "small (licence: apache-2.0; trained on: the embedded" in features.credit


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\ntags: [a]\nlicense: cc-by-nc-4.0\n---\n# Model\n", "cc-by-nc-4.0"),
        ('---\nlicense: "mit"\n---\n', "mit"),
        ("---\ntags: [a]\n---\nlicense: mit\n", "not stated"),
        ("# Model\nlicense: mit\n", "not stated"),
        (None, "not stated"),
    ],
)
def test_a_licence_is_what_a_model_card_states(run, card, licence):
    if card is not None:
        (run / "inference" / "README.md").write_text(card)
    words = f"taught by {run} (licence: {licence}; trained on: two songs)"
    assert credit(run) == words == teacher_states(run).credit


def test_what_is_no_teacher_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="No trained MuQ model in .*nothing"):
        teacher_states(tmp_path / "nothing")
    with pytest.raises(UserError, match="does not fit. There is no layer 3"):
        teacher_states(run, [3])
    with pytest.raises(UserError, match="no MuQ-MuLan.*use hparams/distil.yaml"):
        teacher_vectors(run, 1.0)


def test_towers_teach_vectors_of_their_clips(tmp_path):
    folder = tiny_mulan(tmp_path)
    features = teacher_vectors(folder, 1.0)
    assert features(torch.randn(2, 24000))[0].shape == (2, 1, 16)
    config = json.loads((folder / "config.json").read_text())
    assert config["clip_seconds"] == 1.0
    with pytest.raises(UserError, match="clip_seconds is 4, .* give --clip_seconds 1"):
        teacher_vectors(folder, 4.0)
    with pytest.raises(UserError, match="MuQ-MuLan.*use hparams/distil_mulan.yaml"):
        teacher_states(folder)


def test_weights_of_the_teacher_are_counted(run):
    own = sum(p.numel() for p in MuQEncoder(32, 2, 4, 64, conv_channels=4).parameters())
    assert teacher_states(run).weights == own
