"""MusicFM's checkpoints: what its own code computes, strictness, and other windows.

`tests/data/musicfm_small` is what the code of github.com/minzwon/musicfm at b83ebed
computed with transformers 4.46.3, from weights that `tests.official.seeded` gives and a
window that is not periodic. Two layers of width 32, two heads.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from muq_plugins.errors import UserError
from muq_plugins.evaluation.probing.features import (
    FeatureSettings,
    HiddenStates,
    untrained_like,
)
from muq_plugins.inference.encoders import load_encoder
from muq_plugins.inference.folders import NoModel
from muq_plugins.lobes import LogMel
from muq_plugins.lobes.mel import MSD_MEAN, MSD_STD
from tests.official.seeded import seeded_state, seeded_wavs
from tests.unit.inference.edits import Evil, relative

DATA = Path(__file__).parents[2] / "data" / "musicfm_small"
MEL = "model.preprocessor_melspec_2048.mel_stft."
WINDOW, BANDS = f"{MEL}spectrogram.window", f"{MEL}mel_scale.fb"
ROTARY = "model.conformer.embed_positions.inv_freq"
STATISTICS = {"melspec_2048_mean": MSD_MEAN, "melspec_2048_std": MSD_STD}


@pytest.fixture
def tensors():
    """What a checkpoint holds."""
    found = seeded_state(json.loads((DATA / "tensors.json").read_text()))
    found[WINDOW] = torch.hann_window(2048, periodic=False)
    found[BANDS] = LogMel().filterbank.clone()
    found[ROTARY] = 10000.0 ** -(torch.arange(8) / 8)
    return found


@pytest.fixture
def written(tmp_path):
    """Writes a checkpoint as it is published."""

    def write(tensors, **others):
        (tmp_path / "msd_stats.json").write_text(json.dumps(STATISTICS))
        path = tmp_path / "pretrained_msd.pt"
        torch.save({"state_dict": tensors, "epoch": 3, **others}, path)
        return path

    return write


def wavs():
    return seeded_wavs("short")[:2, :24000]


def test_hidden_states_are_those_of_its_own_code(tensors, written):
    golden = load_file(DATA / "golden.safetensors")["hidden_states"]
    encoder = load_encoder(str(written(tensors)))
    assert (encoder.width, encoder.num_layers, encoder.frame_rate) == (32, 2, 25.0)
    states = encoder(wavs()).hidden_states
    for state, expected in zip(states, golden, strict=True):
        assert relative(state, expected) < 2e-6
    # MuQ's window is another one, and can be told from it.
    tensors[WINDOW] = torch.hann_window(2048)
    other = load_encoder(written(tensors))
    differs = [relative(*pair) for pair in zip(other(wavs())[1], golden, strict=True)]
    assert min(differs) > 8e-6
    prints = [HiddenStates(one).fingerprint for one in (encoder, other)]
    assert prints[0] != prints[1]


def test_before_training_it_hears_the_same(tensors, written):
    encoder = load_encoder(written(tensors), trained=False)
    fresh, again = (
        untrained_like(encoder, [1], [], FeatureSettings(None))[0]
        for encoder in (encoder, load_encoder(written(tensors)))
    )
    assert torch.equal(fresh.features.window, tensors[WINDOW])
    assert HiddenStates(fresh).fingerprint == HiddenStates(again).fingerprint
    assert not torch.equal(
        fresh.conv.linear.weight, tensors["model.conv.linear.weight"]
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({WINDOW: None}, f"lacks {WINDOW}: download it from"),
        ({ROTARY: None}, f"lacks {ROTARY}: download it from"),
        ({"model.conv.linear.weight": None}, "lacks model.conv.linear.weight"),
        ({"model.conv.linear.bias": None}, "missing: model.conv.linear.bias"),
        ({WINDOW: torch.ones(1024)}, "is no MusicFM at 25 frames a second"),
        ({ROTARY: torch.ones(8)}, "inv_freq is not of the base 10000"),
        (
            {"model.stranger": torch.ones(1)},
            "no MusicFM checkpoint has: model.stranger",
        ),
        ({"model.conv.linear.bias": torch.full((32,), torch.nan)}, "conv.linear.bias"),
    ],
)
def test_other_checkpoints_are_refused(tensors, written, change, error):
    tensors |= change
    tensors = {name: value for name, value in tensors.items() if value is not None}
    with pytest.raises(UserError, match=error):
        load_encoder(written(tensors))


def test_files_that_lack_or_that_run_code_are_refused(tensors, written):
    with pytest.raises(UserError, match="Files that would execute code are refused"):
        load_encoder(written(tensors, callbacks=Evil()))
    path = written(tensors)
    torch.save(tensors, path)
    with pytest.raises(UserError, match="must hold named tensors under 'state_dict'"):
        load_encoder(path)
    statistics = path.with_name("msd_stats.json")
    statistics.write_text("{}")
    with pytest.raises(UserError, match="does not state melspec_2048_mean and"):
        load_encoder(path)
    statistics.unlink()
    with pytest.raises(NoModel, match=r"needs msd_stats\.json beside it: download"):
        load_encoder(path)
    with pytest.raises(NoModel, match=r"There is no .*other\.pt"):
        load_encoder(path.with_name("other.pt"))
