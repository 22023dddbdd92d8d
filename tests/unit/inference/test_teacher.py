"""Teachers are told apart by what they compute, and missing ones are named."""

import pytest
import torch

from muq_plugins.inference.muq import save_muq, teacher_features
from muq_plugins.inference.tokenizer import load_tokenizer, save_tokenizer
from muq_plugins.lobes import MuQEncoder, ResidualVQ, Target


def save_teacher(folder, seed=0, dropout=0.1):
    torch.manual_seed(seed)
    encoder = MuQEncoder(
        32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4, dropout=dropout
    )
    return save_muq(folder / "inference", encoder)


def test_a_copy_is_the_same_teacher_and_another_one_is_not(tmp_path):
    first, copied, other = (
        teacher_features(save_teacher(tmp_path / name, seed, dropout), 1).config
        for name, seed, dropout in (("a", 0, 0.1), ("b", 0, 0.0), ("c", 1, 0.1))
    )
    assert first == copied
    assert first["teacher"] != other["teacher"]


def test_a_layer_that_does_not_exist_names_the_folder(tmp_path):
    folder = save_teacher(tmp_path)
    with pytest.raises(ValueError, match="no layer 10: .* blocks 1 to 2") as error:
        teacher_features(tmp_path, 10)
    assert str(tmp_path) in str(error.value) and folder.is_dir()


def test_no_teacher(tmp_path):
    with pytest.raises(FileNotFoundError, match="No trained MuQ model in"):
        teacher_features(tmp_path, 1)


def target_of(folder, layer=1):
    return Target(teacher_features(folder, layer), ResidualVQ(32, 2, 16))


def test_a_tokenizer_is_loaded_for_its_own_teacher_and_layer_only(tmp_path):
    teacher, other = save_teacher(tmp_path / "a"), save_teacher(tmp_path / "b", 1)
    made = target_of(teacher)
    folder = save_tokenizer(tmp_path / "tokenizer", made, "")
    assert (folder / "model.safetensors").stat().st_size < 50_000  # no teacher in it
    torch.manual_seed(1)
    loaded, wavs = target_of(tmp_path / "a"), torch.randn(1, 24000)
    load_tokenizer(loaded, folder)
    assert torch.equal(loaded(wavs), made(wavs))
    for wrong in (target_of(other), target_of(teacher, layer=2)):
        with pytest.raises(
            ValueError, match="does not fit .* features_config"
        ) as error:
            load_tokenizer(wrong, folder)
        assert str(folder) in str(error.value)
