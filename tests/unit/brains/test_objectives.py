"""Objectives in a Brain: resumed, left out, and on two processes."""

from types import SimpleNamespace

import pytest
import torch
from speechbrain.nnet.schedulers import WarmCoolDecayLRSchedule

from muq_plugins.brains import AtomicCheckpointer, PretrainBrain
from muq_plugins.evaluation.run_files import read_metrics, select
from muq_plugins.lobes import (
    Augmentation,
    BlockMasking,
    CodePrediction,
    ConstantQ,
    ContrastiveViews,
    Distillation,
    LatentRegression,
    LogMel,
    MultiCodebookHead,
    Pretraining,
    RandomProjection,
    StackedFrames,
    Target,
    TeacherFeatures,
    VectorHead,
    VectorRegression,
    WaveformTransformer,
)
from tests.forks import in_two_processes
from tests.unit.brains.conftest import HPARAMS

UPDATES = 4


def views(student):
    asked = ContrastiveViews(Augmentation(), 32, view_seconds=0.12)
    return Pretraining(None, student, {"views": asked})


def latents(student):
    asked = LatentRegression(student, 1, 0.9, 0.99, 3, visible_weight=1.0)
    return Pretraining(BlockMasking(0.5, 0.04), student, {"latents": asked})


def vectors(student):
    features = ConstantQ(num_bins=24, bins_per_octave=12, f_min=440.0)
    asked = VectorRegression(features, VectorHead(32, 24), visible_weight=1.0)
    return Pretraining(BlockMasking(0.5, 0.04), student, {"vectors": asked})


def distillation(student):
    torch.manual_seed(1)
    teacher = WaveformTransformer(
        16, 1, 4, 32, conv_channels=8, position_groups=4, dropout=0.0
    )
    asked = Distillation(TeacherFeatures(teacher, 1, "a1b2"), VectorHead(32, 16))
    return Pretraining(None, student, {"distillation": asked})


def codes(student):
    asked = {}
    for name, codebooks, entries in (("coarse", 1, 8), ("fine", 3, 32)):
        target = Target(
            StackedFrames(LogMel()), RandomProjection(512, codebooks, entries)
        )
        head = MultiCodebookHead(32, codebooks, entries)
        asked[name] = CodePrediction(target, head, visible_weight=0.5)
    return Pretraining(BlockMasking(0.5, 0.04), student, asked, {"fine": 0.25})


#: What makes the stage, and the batches of one process, and of each of two. Views are
#: told apart over all processes; frames stand alone.
KINDS = {
    "views": (views, 4, 2),
    "latents": (latents, 2, 2),
    "vectors": (vectors, 2, 2),
    "distillation": (distillation, 2, 2),
    "codes": (codes, 2, 2),
}


def make_brain(folder, kind, size, updates=UPDATES, run_opts=None, lr=0.1):
    torch.manual_seed(0)
    # Nothing in it depends on what else is in a batch.
    student = WaveformTransformer(
        32, 1, 4, 64, conv_channels=8, position_groups=4, dropout=0.0
    )
    return PretrainBrain(
        modules={"pretrain": KINDS[kind][0](student)},
        # Adam would blow up rounding where a gradient is 0.
        opt_class=lambda parameters: torch.optim.SGD(parameters, lr, momentum=0.5),
        hparams={
            **HPARAMS,
            "output_folder": str(folder),
            "optimizer_step_limit": updates,
            "batch_size": size,
            "clip_seconds": 0.16,
        },
        run_opts={"device": "cpu", **(run_opts or {})},
        checkpointer=AtomicCheckpointer(folder / "save"),
    )


def make_loaders(brain, manifest):
    parts = dict.fromkeys(("train", "valid", "test"), manifest)
    return brain.make_loaders(SimpleNamespace(**parts))


def train(folder, manifest, kind, size, updates=UPDATES, run_opts=None, spoiled=None):
    """Trains; the gradient of update `spoiled` is not a number."""
    brain = make_brain(folder, kind, size, updates, run_opts)
    score = brain.compute_objectives

    def compute_objectives(predictions, batch, stage):
        loss = score(predictions, batch, stage)
        return loss * float("nan") if brain.optimizer_step == spoiled else loss

    brain.compute_objectives = compute_objectives
    brain.fit(*make_loaders(brain, manifest)[:2])
    return brain.module.state_dict()


def differences(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_is_exact(kind, manifest, tmp_path):
    size = KINDS[kind][1]
    whole = train(tmp_path / "whole", manifest, kind, size)
    for updates in (1, 3, 4):
        torch.rand(updates)  # whatever happened in between
        part = train(tmp_path / "parts", manifest, kind, size, updates)
    assert differences(whole, part) == []
    rows = [read_metrics(tmp_path / x / "metrics.jsonl") for x in ("whole", "parts")]
    losses = [[row["loss"] for row in select(run, kind="train")] for run in rows]
    assert len(losses[0]) == UPDATES and losses[0] == losses[1]


def test_validation_tells_over_how_many_directions_the_encoder_spreads(
    manifest, tmp_path
):
    brain = make_brain(tmp_path, "views", 4)
    valid = make_loaders(brain, manifest)[1]
    brain.validate(valid)
    brain.modules.eval()
    with torch.no_grad():
        heard = [brain.module.encoder(x.wavs, x.wav_lens) for x in valid]
    frames = torch.cat([x.last_hidden_state.flatten(0, 1) for x in heard]).double()
    singular = torch.linalg.svdvals(frames - frames.mean(0))
    shares = singular / singular.sum()
    rank = torch.exp(-(shares * shares.log()).sum()) / frames.shape[1]
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    assert row["encoder_rank"] == pytest.approx(float(rank), rel=1e-4)


@pytest.mark.parametrize(
    ("better", "warmup", "step"), [(-0.1, 0, None), (0.1, 0, 2), (0.1, 3, 3)]
)
def test_who_learns_nothing_is_called_out_at_a_tenth_and_once(
    better, warmup, step, manifest, tmp_path, caplog
):
    brain = make_brain(tmp_path, "codes", 4, updates=20, lr=0.0)
    stage = brain.module
    brain.hparams.lr_schedule = WarmCoolDecayLRSchedule(0.0, warmup, 20 - warmup, 20)
    looks, summary = [], stage.summary

    def measured(means, totals):
        """As if the coarse codes were predicted, or were not."""
        row = summary(means, totals)
        looks.append(brain.optimizer_step)
        for name in ("coarse", "fine"):
            means[f"{name}/cross_entropy"] = row[f"{name}/code_entropy"] - 0.1
        means["coarse/cross_entropy"] += 0.1 + better
        return row

    stage.summary = measured
    brain.fit(*make_loaders(brain, manifest)[:2])
    assert looks[:3] == [2, 3, 6]
    said = [x.message for x in caplog.records if "Nothing has been" in x.message]
    assert len(said) == (step is not None)
    if said:
        begin = f"Step {step} of 20: coarse: Masked cross-entropy is "
        assert said[0].startswith(begin)
        assert "a counting model has" in said[0]


def test_an_update_that_is_left_out_does_not_move_the_teacher(manifest, tmp_path):
    before, after = (
        train(tmp_path / str(updates), manifest, "latents", 4, updates, spoiled=1)
        for updates in (1, 2)
    )
    assert before["objectives.latents.updates"] == 1
    assert differences(before, after) == []


def work(rank, folder, manifest):
    """One of two processes."""
    options = {"distributed_launch": True, "distributed_backend": "gloo"}
    for kind, (_, _, size) in KINDS.items():
        state = train(folder / f"two_{kind}", manifest, kind, size, 4, options)
        torch.save(state, folder / f"{kind}.{rank}")


def test_two_processes_learn_what_one_learns(manifest, tmp_path):
    in_two_processes(work, tmp_path, manifest)
    for kind, (_, size, _) in KINDS.items():
        alone = train(tmp_path / f"one_{kind}", manifest, kind, size)
        rows = [
            select(read_metrics(tmp_path / f"{n}_{kind}/metrics.jsonl"), kind="train")
            for n in ("one", "two")
        ]
        losses = [[row["loss"] for row in run] for run in rows]
        assert len(losses[0]) == UPDATES
        assert losses[1] == pytest.approx(losses[0], rel=1e-5), kind
        states = [torch.load(tmp_path / f"{kind}.{rank}") for rank in (0, 1)]
        assert differences(*states) == []
        for name, value in alone.items():
            torch.testing.assert_close(
                states[0][name], value, rtol=1e-4, atol=1e-5, msg=name
            )
