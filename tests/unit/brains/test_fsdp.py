"""Processes that hold a share each learn what processes learn that hold all."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from muq_plugins.brains import AtomicCheckpointer, PretrainBrain
from muq_plugins.brains.fsdp import check_fsdp
from muq_plugins.errors import UserError
from muq_plugins.evaluation.run_files import read_metrics
from muq_plugins.lobes import (
    BlockMasking,
    LogMel,
    MaskedPrediction,
    MultiCodebookHead,
    MuQEncoder,
    RandomProjection,
    StackedFrames,
    Target,
)
from tests.forks import in_two_processes
from tests.unit.brains.conftest import HPARAMS
from tests.unit.data.recordings import noise_manifest

LIMIT, HALF = 6, 3
#: Whether shares train, and up to which update, in the commands of a run
RUNS = {
    "ddp": [(False, LIMIT)],
    "fsdp": [(True, LIMIT)],
    "ddp_then_fsdp": [(False, HALF), (True, LIMIT)],
    "fsdp_then_ddp": [(True, HALF), (False, LIMIT)],
}


def make_stage():
    torch.manual_seed(3)
    return MaskedPrediction(
        BlockMasking(),
        Target(StackedFrames(LogMel()), RandomProjection(512, 2, 64)),
        MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4),
        MultiCodebookHead(32, 2, 64),
    )


def train(folder, manifest, fsdp, limit):
    """Trains on one of two processes; the second one hears NaN in the third update."""
    brain = PretrainBrain(
        modules={"pretrain": make_stage()},
        # With an eps that keeps rounding errors of gradients that are 0 what they are.
        opt_class=lambda weights: torch.optim.AdamW(weights, 0.01, eps=1e-3),
        hparams={
            **HPARAMS,
            "output_folder": str(folder),
            "optimizer_step_limit": limit,
            "clip_seconds": 0.5,
            "batch_size": 2,
            "clips_per_update": 8,
            "fsdp": fsdp,
        },
        run_opts={
            "device": "cpu",
            "distributed_launch": True,
            "distributed_backend": "gloo",
        },
        checkpointer=AtomicCheckpointer(folder / "save"),
    )

    def begin(batch, should_step):
        if brain.optimizer_step == 2 and dist.get_rank():
            batch.wavs.fill_(float("nan"))

    brain.on_fit_batch_start = begin
    parts = dict.fromkeys(("train", "valid", "test"), manifest)
    training, validation, _ = brain.make_loaders(SimpleNamespace(**parts))
    brain.refusals.tell = lambda: None  # that is what is spoiled here
    brain.fit(training, validation)
    state = brain.optimizer.state_dict()["state"]
    moments = [values["exp_avg"] for values in state.values()]
    local = sum(getattr(m, "_local_tensor", m).numel() for m in moments)
    return brain.module.state_dict(), local / sum(m.numel() for m in moments)


def work(rank, folder, manifest):
    """One of two processes."""
    for name, commands in RUNS.items():
        for fsdp, limit in commands:
            result = train(folder / name, manifest, fsdp, limit)
        torch.save(result, folder / f"{name}.{rank}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of two processes, which share five batches of validation as 3 and 2."""
    folder = tmp_path_factory.mktemp("fsdp")
    noise = noise_manifest(folder, [0.6] * 9, level=0.35, subtype="FLOAT")
    manifest = {str(index): entry for index, entry in enumerate(noise.values())}
    in_two_processes(work, folder, manifest)
    return folder


@pytest.mark.parametrize("name", [name for name in RUNS if name != "ddp"])
def test_shares_learn_what_all_learn_and_go_on_from_each_other(runs, name):
    rows = [read_metrics(runs / run / "metrics.jsonl") for run in ("ddp", name)]
    for kind in ("train", "valid"):
        losses = [
            {row["step"]: row["loss"] for row in found if row["kind"] == kind}
            for found in rows
        ]
        if kind == "train":
            assert [run.pop(3) for run in losses] == [None, None]  # as it was spoiled
        assert len(losses[0]) >= 2
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    (expected, _), (state, _) = (torch.load(runs / f"{run}.0") for run in ("ddp", name))
    for key, value in expected.items():
        assert torch.allclose(state[key], value, rtol=1e-4, atol=1e-5), key


def test_each_process_ends_with_the_whole_and_holds_half_of_the_optimizer(runs):
    (first, share), (second, _) = (torch.load(runs / f"fsdp.{rank}") for rank in "01")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert 0.5 <= share < 0.55
    _, everything = torch.load(runs / "ddp.0")
    assert everything == 1


def test_what_shares_cannot_do_is_refused():
    def check(module=None, **given):
        options = SimpleNamespace(overridden_args=set(given), **given)
        check_fsdp(module or make_stage(), {"fsdp": True, "precision": "bf16"}, options)

    check()
    check(precision="fp32")
    with pytest.raises(UserError, match="give --precision bf16 or fp32"):
        check(precision="fp16")
    with pytest.raises(UserError, match="give --precision bf16 or fp32"):
        check(auto_mix_prec=True)  # which SpeechBrain makes fp16 of
    with pytest.raises(UserError, match="compile is set"):
        check(compile=True)
    with pytest.raises(UserError, match="follows the encoder's weights"):
        check(SimpleNamespace(follows_updates=True))
