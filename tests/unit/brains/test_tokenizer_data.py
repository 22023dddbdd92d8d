"""Is there enough for the codebooks of a tokenizer to learn from?"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from muq_plugins.brains import TokenizerBrain
from muq_plugins.data.preparation import Manifests
from muq_plugins.lobes import LogMel, ResidualVQ, StackedFrames, TokenizerTraining
from tests.unit.brains.conftest import HPARAMS


@pytest.fixture
def make_loaders(manifest, tmp_path):
    """Makes the loaders of a tokenizer with codebooks of a size."""

    def make(codebook_size, updates, **parts):
        quantizer = ResidualVQ(512, 1, codebook_size)
        brain = TokenizerBrain(
            modules={
                "tokenizer": TokenizerTraining(StackedFrames(LogMel()), quantizer)
            },
            opt_class=lambda parameters: torch.optim.Adam(parameters, 0.01),
            hparams={
                **HPARAMS,
                "optimizer_step_limit": updates,
                "batch_size": 2,
                "clip_seconds": 0.12,
                "output_folder": str(tmp_path / "run"),
            },
            run_opts={"device": "cpu"},
        )
        corpus = Manifests(Path("corpus"), manifest, manifest, manifest)
        return brain.make_loaders(replace(corpus, **parts))

    return make


def test_as_many_entries_as_frames_are_enough(make_loaders):
    # 12 files of 0.2 s at 25 Hz are 60 frames, and 5 updates of 4 clips as many.
    train_loader, *_ = make_loaders(60, updates=5)
    assert next(iter(train_loader)).wavs.shape == (2, 2880)


def test_more_entries_than_frames_that_are_heard_are_refused(make_loaders):
    message = "codebook_size is 61, .* only 60 .* in 20 clips of 0.12 s: raise optim"
    with pytest.raises(ValueError, match=message):
        make_loaders(61, updates=5)
    message = "codebook_size is 60, but there are only 48 training frames"
    with pytest.raises(ValueError, match=message):
        make_loaders(60, updates=4)


def test_more_entries_than_the_training_part_has_frames_are_refused(
    make_loaders, manifest
):
    message = r"is 61, but the training part of corpus has only 60 frames \(2 s of"
    with pytest.raises(ValueError, match=message):
        make_loaders(61, updates=500)
    few = dict(list(manifest.items())[:4])
    with pytest.raises(ValueError, match="has only 20 frames .*: add recordings, or"):
        make_loaders(60, updates=500, train=few)
