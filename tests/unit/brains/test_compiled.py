"""Compiling: one graph of each part, whatever the length of a batch."""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from muq_plugins.errors import UserError
from muq_plugins.lobes import (
    AudioTower,
    ContrastiveTraining,
    DecoupledContrastive,
    LogMel,
    MuQEncoder,
    RandomProjection,
    TokenizerTraining,
)
from tests.unit.brains.test_waits import fit, make_brain
from tests.unit.data.recordings import noise_manifest


@pytest.fixture
def counted(monkeypatch):
    """Graphs are executed as they are: what is tested is what is put into them."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    counters.clear()
    yield counters
    torch.compiler.reset()


def test_lengths_do_not_compile_again(counted, tmp_path):
    lengths = [0.40, 0.28, 0.36, 0.20, 0.32, 0.24]
    clips = noise_manifest(tmp_path, lengths, level=0.3, subtype="FLOAT")
    # Padded and not, each for the first length and then for any; of two parts.
    most, graphs, states = 2 * 2 * 2, [], []
    for options in ({}, {"compile": True}):
        sizes = {"batch_size": 2, "clips_per_update": 2, "optimizer_step_limit": 8}
        brain = make_brain(tmp_path / str(options), **sizes, **options)
        brain.on_fit_batch_end = lambda *_: graphs.append(
            counted["stats"]["unique_graphs"]
        )
        fit(brain, clips)
        states.append(brain.module.state_dict())
    assert 0 < graphs[-1] <= most and graphs[-1] == graphs[-4]
    assert not counted["graph_break"] and not counted["unimplemented"]
    eager, compiled = states
    assert list(eager) == list(compiled)
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)


def test_what_compiling_does_not_go_with(tmp_path):
    brain = make_brain(tmp_path, compile=True, compile_module_keys=["encoder"])
    with pytest.raises(UserError, match=r"\['encoder'\]: a stage has one module, pre"):
        brain.on_fit_start()
    encoder = MuQEncoder(16, 1, 2, 32, 2, gradient_checkpointing=True)
    with pytest.raises(ValueError, match="switch one of the two off"):
        encoder.compile()


def test_each_stage_compiles_its_encoder_alone(counted, tmp_path):
    tower = AudioTower(MuQEncoder(16, 1, 2, 32, 2), latent_width=8)
    texts = torch.nn.Module()
    texts.latent_width, texts.average_padding = 8, False
    stages = {
        "encoder.": make_brain(tmp_path).module,
        "audio_tower.encoder.": ContrastiveTraining(
            tower, texts, DecoupledContrastive(temperature=14.0)
        ),
        None: TokenizerTraining(LogMel(), RandomProjection(128, 1, 8)),
    }
    for place, stage in stages.items():
        stage.compile()
        parts = stage.named_modules()
        compiled = [name for name, part in parts if part._compiled_call_impl]
        expected = [f"{place}conv", f"{place}conformer"] if place else []
        assert compiled == expected
