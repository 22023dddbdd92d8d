"""What is learned does not follow from the number of processes."""

from types import SimpleNamespace

import pytest
import torch

from muq_plugins.brains import AtomicCheckpointer, StageBrain
from muq_plugins.brains.processes import share_clips, share_pairs
from muq_plugins.evaluation.run_files import read_metrics
from tests.forks import in_two_processes
from tests.unit.brains.conftest import HPARAMS, ToyStage

#: Updates, steps between rows, between validations, and between checkpoints
LIMIT, LOG, VALID, SAVE = 12, 4, 3, 5
TIMES = ("time", "audio_seconds_per_second")


class Killed(BaseException):
    """As from kill -9: nothing is saved."""


def train(folder, make_loaders, killed_after=None, run_opts=None, spoiled=None):
    """Trains with the proportions of README's command, to the end or to a kill.

    The micro-batch of that place in the third update is `spoiled`: not a number.
    """
    brain = StageBrain(
        modules={"toy": ToyStage()},
        opt_class=lambda parameters: torch.optim.AdamW(parameters, 0.05),
        hparams={
            **HPARAMS,
            "output_folder": str(folder),
            "optimizer_step_limit": LIMIT,
            "clips_per_update": 8,
            "log_interval": LOG,
            "valid_interval": VALID,
            "ckpt_interval_steps": SAVE,
        },
        run_opts={"device": "cpu", **(run_opts or {})},
        checkpointer=AtomicCheckpointer(folder / "save"),
    )

    def end(batch, output, loss, should_step):
        if should_step and brain.optimizer_step == killed_after:
            raise Killed

    def begin(batch, should_step):
        place = brain.micro_batches % brain.grad_accumulation_factor
        if (brain.optimizer_step, place) == (2, spoiled):
            batch.wavs.fill_(float("nan"))

    brain.on_fit_batch_start, brain.on_fit_batch_end = begin, end
    try:
        brain.fit(*make_loaders(brain))
    except Killed:
        return None
    return brain.module.state_dict()


def work(rank, folder, manifest):
    """One of two processes: from the beginning, and on from a run of one."""
    options = {"distributed_launch": True, "distributed_backend": "gloo"}
    for run, ends in (("two", [None]), ("went_on", [None]), ("both", [7, None])):
        for end in ends:
            state = train(folder / run, share_of(manifest), end, options)
    torch.save(state, folder / f"state.{rank}")
    # Only the second process hears what is not finite.
    spoiled = 0 if rank else None
    state = train(folder / "two_spoiled", share_of(manifest), None, options, spoiled)
    torch.save(state, folder / f"spoiled.{rank}")


def share_of(manifest):
    """What makes the loaders of a Brain."""

    def make(brain):
        parts = dict.fromkeys(("train", "valid", "test"), manifest)
        return brain.make_loaders(SimpleNamespace(**parts))[:2]

    return make


@pytest.fixture(scope="module")
def runs(tmp_path_factory, manifest):
    """One process and two, uninterrupted and not, and one that two go on with."""
    folder = tmp_path_factory.mktemp("processes")
    state = train(folder / "one", share_of(manifest))
    spoiled = train(folder / "one_spoiled", share_of(manifest), spoiled=1)
    torch.save(spoiled, folder / "spoiled.one")
    assert train(folder / "killed", share_of(manifest), 7) is None
    train(folder / "killed", share_of(manifest))
    assert train(folder / "went_on", share_of(manifest), 7) is None
    in_two_processes(work, folder, manifest)
    return folder, state


def rows_of(folder):
    rows = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def test_a_killed_run_has_the_rows_of_one_that_was_not(runs):
    folder, _ = runs
    assert rows_of(folder / "killed") == rows_of(folder / "one")


@pytest.mark.parametrize("run", ["two", "went_on", "both", "two_spoiled"])
def test_two_processes_have_the_rows_of_one(runs, run):
    folder, _ = runs
    expected = "one_spoiled" if run == "two_spoiled" else "one"
    one, other = rows_of(folder / expected), rows_of(folder / run)
    for mine, expected in zip(other, one, strict=True):
        strict = [k for k, v in expected.items() if not isinstance(v, (int, float))]
        for name in strict:
            assert mine.pop(name) == expected.pop(name)
        assert mine == pytest.approx(expected, rel=1e-5)


def test_two_processes_end_with_the_weights_and_statistics_of_one(runs):
    folder, one = runs
    first, second = (torch.load(folder / f"state.{rank}") for rank in (0, 1))
    for name, value in one.items():
        if name.endswith("num_batches_tracked"):
            continue
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)


def test_what_one_process_hears_spoils_the_statistics_of_none(runs):
    folder, clean = runs
    names = ("spoiled.0", "spoiled.1", "spoiled.one")
    first, second, one = (torch.load(folder / name) for name in names)
    for name, value in one.items():
        assert value.isfinite().all(), name
        if name.endswith("num_batches_tracked"):
            continue
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(clean[name], value) for name, value in one.items())


def test_an_update_is_whole_batches_for_each_process():
    assert share_clips(8, 8, 1) == 1
    assert share_clips(8, 4, 2) == 1
    assert [share_clips(192, 3, n) for n in (1, 2, 8, 64)] == [64, 32, 8, 1]
    assert share_pairs(32, 2) == 16


@pytest.mark.parametrize(
    "sizes, ways",
    [
        # 14 clips on two processes were seven batches of one.
        ((14, 4, 2), "--batch_size 1 or 7, or --clips_per_update 8 or 16."),
        (
            (8, 8, 2),
            "--batch_size 4, or --clips_per_update 16, or --nproc_per_node 1.",
        ),
        ((10, 4, 3), "--clips_per_update 12."),
        ((4, 8, 1), "--batch_size 4, or --clips_per_update 8."),
        ((0, 4, 1), "--clips_per_update 4."),
        ((8, 0, 1), "--batch_size 1 or 2"),
    ],
)
def test_others_are_refused_with_the_nearest_good_numbers(sizes, ways):
    with pytest.raises(ValueError) as refusal:
        share_clips(*sizes)
    assert ways in str(refusal.value)


def test_pairs_are_shared_evenly():
    with pytest.raises(ValueError, match="--clips_per_update 30 or 32"):
        share_pairs(31, 2)
