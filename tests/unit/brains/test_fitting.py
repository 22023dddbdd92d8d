"""A Brain that fits its quantizer at once."""

import pytest
import torch

from muq_plugins.brains import FittingBrain, fit_centres
from muq_plugins.data.clips import evaluation_loader, training_loader
from muq_plugins.evaluation.run_files import read_metrics
from muq_plugins.lobes import KMeans, Mfcc, TokenizerTraining
from tests.unit.brains.conftest import HPARAMS

SIZES = {"optimizer_step_limit": 5, "batch_size": 2}


@pytest.fixture
def fitted(manifest, tmp_path):
    """Makes a Brain that has fitted, and the loaders it used."""

    def make(folder="run", method=fit_centres):
        brain = FittingBrain(
            method=method,
            modules={"tokenizer": TokenizerTraining(Mfcc(), KMeans(39, 6))},
            hparams={**HPARAMS, **SIZES, "output_folder": str(tmp_path / folder)},
            run_opts={"device": "cpu"},
        )
        loaders = (
            training_loader(manifest, 0.1, 2, seed=7),
            evaluation_loader(manifest, 0.1, 2, windows_per_clip=1),
        )
        brain.fit(*loaders)
        return brain, loaders

    return make


def test_it_fits_the_frames_of_all_updates_and_says_so(fitted):
    given = []

    def method(quantizer, frames, seed):
        given.append((frames, seed))
        fit_centres(quantizer, frames, seed)

    brain, (train_loader, valid_loader) = fitted(method=method)
    ((frames, seed),) = given
    assert seed == 7 and frames.shape == (5 * 4 * 10, 39)
    rows = read_metrics(brain.logbook.metrics_log.path)
    assert [(row["kind"], row["step"]) for row in rows] == [("train", 5), ("valid", 5)]
    quantizer = brain.module.quantizer
    error = (frames - quantizer.decode(quantizer.encode(frames))).abs().mean()
    assert rows[0]["loss"] == pytest.approx(float(error), rel=1e-5)
    assert rows[0]["audio_seconds_per_second"] > 0
    assert len(rows[1]["usage"]) == 1 and rows[1]["usage"][0] > 0.5
    assert len(rows[1]["reconstruction_error_per_level"]) == 2
    statistics = brain.validate(valid_loader, kind="test")
    assert int(statistics.totals["code_counts"].sum()) == 12 * 10


def test_fitting_again_gives_the_same_centres_and_rows(fitted):
    first, again, other = fitted()[0], fitted()[0], fitted("other")[0]
    centres = [brain.module.quantizer.centres for brain in (first, again, other)]
    assert torch.equal(centres[0], centres[1]) and torch.equal(centres[0], centres[2])
    rows = read_metrics(again.logbook.metrics_log.path)
    assert [row["kind"] for row in rows] == ["train", "valid"]
