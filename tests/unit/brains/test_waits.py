"""Training does not wait for its device before it writes something down."""

from types import SimpleNamespace

import pytest
import torch

from muq_plugins.brains import AtomicCheckpointer, PretrainBrain
from muq_plugins.errors import UserError
from muq_plugins.lobes import (
    BlockMasking,
    CodePrediction,
    LogMel,
    MultiCodebookHead,
    MuQEncoder,
    Pretraining,
    RandomProjection,
    ResidualVQ,
    SpanMasking,
    StackedFrames,
    Target,
    VectorHead,
    VectorRegression,
)
from tests.accelerator import DEVICE, Accelerator
from tests.unit.brains.conftest import HPARAMS
from tests.unit.data.recordings import noise_manifest


def codes(quantizer, visible_weight):
    target = Target(StackedFrames(LogMel()), quantizer)
    head = MultiCodebookHead(16, quantizer.num_codebooks, quantizer.codebook_size)
    return CodePrediction(target, head, visible_weight, [1.0, 0.5])


def objectives(kind):
    asked = {"codes": codes(ResidualVQ(512, 2, 16), 0.0)}
    if kind == "several":
        asked["random"] = codes(RandomProjection(512, 2, 16), 1.0)
        spectrum = StackedFrames(LogMel())
        asked["vectors"] = VectorRegression(spectrum, VectorHead(16, 512), 1.0)
    return asked


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Every other clip is shorter than the others, so that batches are padded."""
    folder = tmp_path_factory.mktemp("noise")
    return noise_manifest(folder, [0.4, 0.25] * 4, level=0.3, subtype="FLOAT")


def fused(parameters):
    return torch.optim.AdamW(parameters, 0.01, fused=True)


def make_brain(folder, kind="one", masking=None, checkpointer=None, **changes):
    torch.manual_seed(0)
    encoder = MuQEncoder(16, 1, num_heads=2, ffn_width=32, conv_channels=2)
    stage = Pretraining(masking or BlockMasking(0.5, 0.08), encoder, objectives(kind))
    return PretrainBrain(
        modules={"pretrain": stage},
        opt_class=fused,
        hparams={
            **HPARAMS,
            "output_folder": str(folder),
            "clip_seconds": 0.4,
            "clips_per_update": 8,
            "optimizer_step_limit": 4,
            "log_interval": 2,
            **changes,
        },
        run_opts={"device": "cpu"},
        checkpointer=checkpointer,
    )


def fit(brain, manifest):
    parts = dict.fromkeys(("train", "valid", "test"), manifest)
    brain.fit(brain.make_loaders(SimpleNamespace(**parts))[0])


@pytest.mark.parametrize(
    ("kind", "masking"),
    [("one", None), ("several", None), ("one", SpanMasking(0.5, 0.2))],
    ids=["one objective", "several objectives", "spans"],
)
@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
def test_only_what_is_written_down_is_waited_for(noise, tmp_path, kind, masking):
    brain = make_brain(tmp_path, kind, masking)
    accelerator = Accelerator()
    accelerator.place(*brain.module.parameters(), *brain.module.buffers())
    brain.device, before = str(DEVICE), {}
    write = brain._log_train

    def log(files):
        before[brain.optimizer_step] = list(accelerator.waits)
        write(files)
        accelerator.waits.clear()

    brain._log_train = log
    with accelerator.watch():
        fit(brain, noise)
    assert before == {2: [], 4: []}


def spoil(brain, *steps):
    """Makes the gradient of some updates overflow."""
    score = brain.compute_objectives

    def compute_objectives(predictions, batch, stage):
        loss = score(predictions, batch, stage)
        return loss * float("nan") if brain.optimizer_step in steps else loss

    brain.compute_objectives = compute_objectives


def test_the_device_leaves_out_what_is_not_finite(noise, tmp_path, caplog):
    brain, seen = make_brain(tmp_path), {}
    spoil(brain, 1)

    def look(batch, outputs, loss, should_step):
        states = brain.optimizer.state.values()
        kept = [*brain.module.state_dict().values()]
        kept += [value for state in states for value in state.values()]
        if should_step:
            seen[brain.optimizer_step] = [value.clone() for value in kept]

    brain.on_fit_batch_end = look
    fit(brain, noise)
    assert all(map(torch.equal, seen[2], seen[1]))
    assert not all(map(torch.equal, seen[3], seen[2]))
    assert all(value.isfinite().all() for value in seen[4])
    assert caplog.text.count("is left out") == 1 and "Step 1: the grad" in caplog.text


def test_too_many_in_a_row_end_the_run_before_anything_is_written(noise, tmp_path):
    brain = make_brain(tmp_path, nonfinite_patience=1)
    spoil(brain, 0, 1)
    with pytest.raises(UserError, match="2 updates in a row, up to step 1"):
        fit(brain, noise)
    assert not brain.logbook.metrics_log.path.exists()


def test_audio_that_is_not_finite_is_told_before_anything_is_written(noise, tmp_path):
    brain = make_brain(tmp_path)

    def hear(batch, should_step):
        if brain.micro_batches == 1:
            batch.wavs[0, 7] = float("inf")

    brain.on_fit_batch_start = hear
    with pytest.raises(ValueError, match="Waveforms hold NaN, infinite samples"):
        fit(brain, noise)
    assert not brain.logbook.metrics_log.path.exists()
    assert brain.optimizer_step == 2  # and not before


def test_a_fused_optimizer_resumes_bit_for_bit(noise, tmp_path):
    states = []
    for folder, limits in (("whole", [4]), ("parts", [1, 4])):
        for limit in limits:
            saver = AtomicCheckpointer(tmp_path / folder / "save")
            changes = {"optimizer_step_limit": limit}
            brain = make_brain(tmp_path / folder, checkpointer=saver, **changes)
            fit(brain, noise)
        states.append(brain.module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
