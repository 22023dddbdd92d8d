"""A stage small enough to train in milliseconds, on clips that are really read."""

import pytest
import torch
from torch import nn

from muq_plugins.brains import AtomicCheckpointer, StageBrain
from muq_plugins.data.clips import evaluation_loader, training_loader
from muq_plugins.lobes import StageOutput
from tests.unit.data.recordings import noise_manifest


def constant_rate(optimizer, update):
    """A schedule that leaves the learning rate as it is."""


#: Of all Brains here; each changes what it is about.
HPARAMS = {
    "seed": 7,
    "optimizer_step_limit": 6,
    "batch_size": 4,
    "clips_per_update": 4,
    "clip_seconds": 0.1,
    "windows_per_clip": 1,
    "max_windows": None,
    "num_workers": 0,
    "lr_schedule": constant_rate,
    "log_interval": 1,
    "valid_interval": 3,
    "checkpoints_to_keep": 2,
    "max_bad_fraction": 0.1,
    "max_grad_norm": 5.0,
    "noprogressbar": True,
}


class ToyStage(nn.Module):
    """Predicts the mean square of a clip from its first samples."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.frozen = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5))
        self.frozen.requires_grad_(False)
        self.hidden = nn.Linear(16, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Linear(8, 1)
        self.updates = 0
        for parameter in self.parameters():
            parameter.data.normal_(0, 0.3, generator=generator)

    def forward(self, wavs, wav_lens, clip_keys, crops):
        noise = torch.stack(
            [
                torch.randn(16, generator=torch.Generator().manual_seed(key))
                for key in clip_keys.tolist()
            ]
        )
        hidden = self.frozen(wavs[:, :16] + noise)
        hidden = self.dropout(self.norm(torch.tanh(self.hidden(hidden))))
        errors = (self.out(hidden)[:, 0] - wavs.square().mean(1)).square()
        weight = torch.tensor(float(len(wavs)))
        return StageOutput(
            loss=errors.mean(),
            sums={"loss": errors.detach().sum()},
            weights={"loss": weight},
            totals={"code_counts": torch.ones(1, 2, dtype=torch.int64)},
        )

    def after_update(self):
        self.updates += 1


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    """Twelve short files with different noise."""
    folder = tmp_path_factory.mktemp("clips")
    noise = noise_manifest(folder, [0.2] * 12, level=0.35, subtype="FLOAT")
    return {str(index): entry for index, entry in enumerate(noise.values())}


@pytest.fixture
def make_brain(tmp_path):
    """Makes a Brain and its stage, with hparams changed as asked."""

    def make(run_opts=None, folder="run", checkpoints=True, **changes):
        output = tmp_path / folder
        learning_rate = changes.pop("lr", 0.05)
        hparams = {**HPARAMS, "output_folder": str(output), **changes}
        return StageBrain(
            modules={"toy": ToyStage()},
            opt_class=lambda parameters: torch.optim.AdamW(parameters, learning_rate),
            hparams=hparams,
            run_opts=run_opts or {"device": "cpu"},
            checkpointer=AtomicCheckpointer(output / "save") if checkpoints else None,
        )

    return make


@pytest.fixture
def loaders(manifest):
    """Training and validation loaders."""

    def make(brain):
        seed, size = brain.hparams.seed, brain.hparams.batch_size
        return (
            training_loader(manifest, 0.1, size, seed),
            evaluation_loader(manifest, 0.1, size, windows_per_clip=1),
        )

    return make
