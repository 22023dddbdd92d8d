"""What the common base fixes; every test fails with SpeechBrain's own loop.

The letters are those of the traps that were found by running SpeechBrain 1.1.2.
"""

import copy
import logging
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from speechbrain.utils.run_opts import RunOptions

from muq_plugins.brains import TrainingInterrupted, base, logbook
from muq_plugins.data.preparation import Manifests
from muq_plugins.errors import UserError
from muq_plugins.evaluation.run_files import read_metrics
from muq_plugins.lobes import StageOutput

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def manifest(manifest):
    """A copy for each test: some of them take files away."""
    return copy.deepcopy(manifest)


def weights(brain):
    return {name: value.clone() for name, value in brain.module.state_dict().items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_training_writes_metrics_and_checkpoints(make_brain, loaders):
    brain = make_brain()
    before = weights(brain)
    brain.fit(*loaders(brain))
    rows = read_metrics(brain.logbook.metrics_log.path)
    assert [r["step"] for r in rows if r["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in rows if r["kind"] == "valid"] == [3, 6]
    assert all(r["audio_seconds_per_second"] > 0 for r in rows if r["kind"] == "train")
    assert brain.module.updates == 6
    assert not torch.equal(before["out.weight"], weights(brain)["out.weight"])
    assert len(brain.checkpointer.list_checkpoints()) == 1


def test_a_run_option_that_was_not_given_does_not_replace_the_yaml(make_brain):  # a
    run_opts = RunOptions.from_command_line_args(["x.yaml", "--device", "cpu"])[1]
    brain = make_brain(run_opts, max_grad_norm=3.0, precision="bf16")
    assert (brain.max_grad_norm, brain.precision) == (3.0, "bf16")


def test_no_recipe_puts_the_run_options_over_the_hparams():  # a
    for script in (ROOT / "recipes").rglob("*.py"):
        assert "hparams.update(run_opts" not in script.read_text(encoding="utf-8")


@pytest.mark.parametrize("limit", [None, 0])
def test_none_and_zero_switch_clipping_off(make_brain, limit):  # b
    steps = []
    for norm in (limit, 1e9):
        brain = make_brain(folder=f"{limit}{norm}", max_grad_norm=norm)
        brain.on_fit_start()
        for parameter in brain.module.parameters():
            parameter.grad = torch.full_like(parameter, 100.0)
        brain.optimizers_step()
        steps.append(weights(brain))
    assert_equal(*steps)


def test_clipping_covers_all_parameter_groups(make_brain):  # b
    brain = make_brain(max_grad_norm=1.0, remove_vector_weight_decay=True)
    brain.opt_class = lambda groups: torch.optim.SGD(groups, lr=1.0)
    brain.on_fit_start()
    assert len(brain.optimizer.param_groups) == 2
    before = weights(brain)
    for parameter in brain.module.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    brain.optimizers_step()
    moved = sum(
        (value - before[name]).square().sum() for name, value in weights(brain).items()
    )
    torch.testing.assert_close(moved.sqrt(), torch.tensor(1.0), rtol=1e-4, atol=0)


def test_resuming_is_exact(make_brain, loaders):  # e
    whole = make_brain(folder="whole")
    whole.fit(*loaders(whole))
    for limit in (2, 5, 6):
        part = make_brain(folder="parts", optimizer_step_limit=limit)
        torch.rand(limit)  # whatever happened in between
        part.fit(*loaders(part))
    assert_equal(weights(whole), weights(part))
    for name in ("exp_avg", "exp_avg_sq", "step"):
        states = [
            [state[name] for state in brain.optimizer.state.values()]
            for brain in (whole, part)
        ]
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    rows = [read_metrics(brain.logbook.metrics_log.path) for brain in (whole, part)]
    losses = [[r["loss"] for r in run if r["kind"] == "train"] for run in rows]
    assert losses[0] == losses[1]


def test_resuming_with_other_micro_batches_goes_on_in_the_same_data(
    make_brain, loaders, manifest
):
    """As after a change of the number of processes or of the memory."""
    heard = {}
    for folder, sizes in (("whole", [4]), ("changed", [4, 2])):
        heard[folder] = []
        for size, limit in zip(sizes, [6] if len(sizes) == 1 else [3, 6], strict=True):
            brain = make_brain(
                folder=folder, batch_size=size, optimizer_step_limit=limit
            )
            brain.on_fit_batch_start = lambda batch, step, ids=heard[folder]: (
                ids.extend(batch.ids)
            )
            brain.fit(*loaders(brain))
    assert heard["changed"] == heard["whole"]


def test_a_finished_run_is_left_alone(make_brain, loaders):
    brain = make_brain()
    brain.fit(*loaders(brain))
    again = make_brain()
    again.fit(*loaders(again))
    assert_equal(weights(brain), weights(again))


def test_metrics_beyond_the_checkpoint_are_dropped(make_brain, loaders):
    brain = make_brain(optimizer_step_limit=2)
    brain.fit(*loaders(brain))
    # A kill after step 4, before its checkpoint.
    brain.logbook.metrics_log.write(
        {"kind": "train", "stage": "toy", "step": 4, "loss": 99.0}
    )
    again = make_brain(optimizer_step_limit=4)
    again.fit(*loaders(again))
    rows = [
        r for r in read_metrics(again.logbook.metrics_log.path) if r["kind"] == "train"
    ]
    assert [r["step"] for r in rows] == [1, 2, 3, 4]
    assert max(r["loss"] for r in rows) < 99


def test_it_tells_how_long_the_rest_takes(make_brain, loaders, monkeypatch, caplog):
    """By what updates have taken, 30 s here, also those before an interruption."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(base, "time", clock)
    monkeypatch.setattr(logbook, "time", clock)
    monkeypatch.setattr(base, "FIRST_STEPS", 1)
    caplog.set_level(logging.INFO)

    def told(limit, **changes):
        caplog.clear()
        brain = make_brain(optimizer_step_limit=limit, log_interval=4, **changes)

        def wait(*_):
            clock.now += 30

        brain.on_fit_batch_start = wait
        brain.fit(*loaders(brain))
        records = [record.getMessage() for record in caplog.records]
        return [words for words in records if "left" in words or "Going on" in words]

    assert told(2) == ["Step 1 of 2: about 30 s left."]
    assert told(6) == [
        "Going on from step 2 of 6: 2 min 0 s of training are left at its pace so far.",
        "Step 3 of 6: about 1 min 30 s left.",
    ]
    assert told(6) == []
    # A bar tells that itself.
    assert told(3, noprogressbar=False, folder="with a bar") == []


def test_accumulation_loses_nothing_at_the_end_of_an_epoch(make_brain, loaders):  # h
    # 12 clips are 3 micro-batches an epoch; updates take 2, so they straddle epochs.
    brain = make_brain(clips_per_update=8)
    heard = []
    brain.on_fit_batch_start = lambda batch, should_step: heard.extend(batch.ids)
    brain.fit(*loaders(brain))
    assert brain.micro_batches == 12 and brain.optimizer_step == 6
    assert all(heard.count(str(clip)) == 4 for clip in range(12))


def test_accumulated_gradients_are_the_mean_of_the_micro_batches(make_brain, loaders):
    brain = make_brain(clips_per_update=8, optimizer_step_limit=1)
    gradients, norms = [], []
    brain.on_fit_batch_end = lambda *args: norms.append(brain.grad_norm)
    step = brain.optimizers_step
    brain.optimizers_step = lambda: (
        gradients.append(brain.module.out.bias.grad.clone()),
        step(),
    )
    brain.fit(*loaders(brain))
    separate = []
    alone = make_brain(folder="alone", clips_per_update=8)
    alone.on_fit_start()
    alone._set_train_mode()
    alone.logbook.start_stretch()
    for _, batch in zip(range(2), loaders(alone)[0], strict=False):
        before = alone.module.out.bias.grad
        before = 0 if before is None else before.clone()
        alone.optimizers_step = lambda: None
        alone.fit_batch(batch)
        separate.append(alone.module.out.bias.grad - before)
    torch.testing.assert_close(gradients[0], sum(separate))
    assert norms[0] == 0 and norms[1] > 0


def test_dropout_depends_on_the_update_and_not_on_the_history(make_brain, loaders):  # i
    results = []
    for extra in (0, 5):
        brain, seeds = make_brain(folder=str(extra), clips_per_update=8), []
        brain.on_fit_batch_end = lambda *_, seeds=seeds: seeds.append(
            torch.initial_seed()
        )
        torch.rand(extra)
        brain.fit(*loaders(brain))
        results.append((seeds, weights(brain)))
    (seeds, learned), (again, the_same) = results
    assert seeds == again
    assert len(set(seeds)) == len(seeds) == 12  # of each micro-batch another one
    assert_equal(learned, the_same)


def test_frozen_parts_stay_in_evaluation_mode_and_unchanged(make_brain, loaders):  # j
    brain = make_brain()
    modes, before = [], weights(brain)
    brain.on_fit_batch_start = lambda *args: modes.append(
        (brain.module.frozen[1].training, brain.module.dropout.training)
    )
    brain.fit(*loaders(brain))
    # The dropout inside the frozen part has no parameters of its own.
    assert set(modes) == {(False, True)}
    assert torch.equal(before["frozen.0.weight"], weights(brain)["frozen.0.weight"])


def test_the_optimizer_gets_trainable_parameters_only(make_brain):
    brain = make_brain()
    brain.on_fit_start()
    (group,) = brain.optimizer.param_groups
    assert all(parameter.requires_grad for parameter in group["params"])
    assert len(group["params"]) == 6


def test_vectors_do_not_decay(make_brain):
    brain = make_brain(remove_vector_weight_decay=True)
    brain.on_fit_start()
    matrices, vectors = brain.optimizer.param_groups
    assert vectors["weight_decay"] == 0 < matrices["weight_decay"]


def test_evaluation_uses_the_precision_of_training(make_brain, loaders):  # k
    brain = make_brain(precision="bf16")
    seen = []
    forward = brain.module.forward
    brain.module.forward = lambda *args: (
        seen.append(torch.is_autocast_enabled("cpu")),
        forward(*args),
    )[1]
    brain.validate(loaders(brain)[1])
    assert seen and all(seen)


def test_validation_is_the_same_every_time(make_brain, loaders):
    brain = make_brain()
    loader = loaders(brain)[1]
    first = brain.validate(loader).means()["loss"]
    torch.rand(3)
    assert brain.validate(loader).means()["loss"] == first


def test_sums_keep_their_digits():
    statistics, one = logbook.RunningStatistics(), torch.tensor(1.0)
    for loss in (one * 2**24, one):
        statistics.add(StageOutput(loss, {"loss": loss}, {"loss": one}))
    assert statistics.means()["loss"].item() == 2**23 + 0.5


def test_validation_is_no_time_of_training(make_brain, loaders, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(logbook, "time", clock)
    brain = make_brain()
    brain.module.register_forward_hook(lambda *_: setattr(clock, "now", 30.0))
    brain.validate(loaders(brain)[1])
    assert clock.now == 30.0
    assert brain.logbook.state()["stretch"]["seconds"] == 0.0


def test_an_update_that_is_not_finite_is_left_out(make_brain):
    brain = make_brain(nonfinite_patience=2)
    brain.on_fit_start()
    before = weights(brain)
    for _ in range(2):
        for parameter in brain.module.parameters():
            parameter.grad = torch.full_like(parameter, float("nan"))
        brain.optimizers_step()
    assert_equal(before, weights(brain))
    for parameter in brain.module.parameters():
        parameter.grad = torch.full_like(parameter, float("inf"))
    with pytest.raises(UserError, match="3 updates in a row"):
        brain.optimizers_step()


def test_what_went_wrong_is_told_before_a_checkpoint(make_brain):
    brain = make_brain(nonfinite_patience=0)
    brain.on_fit_start()
    brain.optimizer_step, brain.left_out = 1, [torch.tensor(1.0)]
    with pytest.raises(UserError, match="1 updates in a row"):
        brain.save_checkpoint()
    assert brain.checkpointer.list_checkpoints() == []


def spoil(brain, step, place, value=float("nan")):
    """Makes one micro-batch of an update overflow."""

    def hear(batch, should_step):
        position = brain.micro_batches % brain.grad_accumulation_factor
        if (brain.optimizer_step, position) == (step, place):
            batch.wavs.fill_(value)

    brain.on_fit_batch_start = hear


def weights_after_updates(brain):
    """A dictionary that fills as training goes on."""
    seen = {}

    def look(batch, outputs, loss, should_step):
        if should_step:
            seen[brain.optimizer_step] = weights(brain)

    brain.on_fit_batch_end = look
    return seen


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_batch_that_overflows_leaves_nothing_behind(make_brain, loaders, place):
    brain = make_brain(clips_per_update=12)
    spoil(brain, 2, place)
    seen = weights_after_updates(brain)
    brain.fit(*loaders(brain))
    assert_equal(seen[3], seen[2])
    assert seen[2]["norm.num_batches_tracked"] == 6
    assert seen[6]["norm.num_batches_tracked"] == 15
    assert all(value.isfinite().all() for value in seen[6].values())
    assert brain.module.updates == 5  # nothing follows an update that was none
    rows = read_metrics(brain.logbook.metrics_log.path)
    assert all(row["loss"] > 0 for row in rows if row["kind"] == "valid")


def test_statistics_that_overflow_alone_are_not_kept(make_brain, loaders):
    brain = make_brain(nonfinite_patience=1)
    brain.module.hidden.register_forward_hook(
        lambda module, args, out: (
            out
            if brain.optimizer_step != 2 or not brain.module.training
            else (brain.module.norm.running_var.fill_(float("inf")), out)[1]
        )
    )
    seen = weights_after_updates(brain)
    brain.fit(*loaders(brain))
    assert_equal(seen[3], seen[2])
    assert seen[6]["norm.running_var"].isfinite().all()


def test_the_scaler_of_float16_finds_its_scale_or_gives_up(make_brain, loaders):
    brain = make_brain(nonfinite_patience=2, optimizer_step_limit=50)
    brain.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    before = weights(brain)
    brain.on_fit_batch_start = lambda batch, _: batch.wavs.fill_(float("nan"))
    with pytest.raises(UserError, match="3 updates in a row"):
        brain.fit(*loaders(brain))
    assert brain.scaler.get_scale() < 1
    assert_equal(before, weights(brain))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_stop_after_the_update_with_a_checkpoint(make_brain, loaders, name):
    number = getattr(signal, name, None) or pytest.skip(f"there is no {name} here")
    brain = make_brain()

    def interrupt(batch, outputs, loss, should_step):
        if brain.optimizer_step == 2:
            signal.raise_signal(number)
            if number != signal.SIGINT:  # of which only a second one stops at once
                signal.raise_signal(signal.SIGTERM)

    brain.on_fit_batch_end = interrupt
    with pytest.raises(TrainingInterrupted, match="step 2 of 6.*same command") as stop:
        brain.fit(*loaders(brain))
    assert stop.value.number == number
    again = make_brain()
    again.fit(*loaders(again))
    whole = make_brain(folder="whole")
    whole.fit(*loaders(whole))
    assert_equal(weights(again), weights(whole))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_grad_norm": -1.0}, "negative limit would turn the gradient"),
        ({"optimizer_step_limit": None}, "optimizer_step_limit is not set"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_brain, changes, message):
    with pytest.raises(UserError, match=message):
        make_brain(**changes)


def test_more_than_one_module_is_refused(make_brain):
    brain = make_brain()
    with pytest.raises(ValueError, match="exactly one module"):
        type(brain)({"a": brain.module, "b": brain.module})


def test_files_that_are_gone_are_replaced_counted_and_written_down(
    make_brain, loaders, manifest
):
    brain = make_brain()
    manifest["3"]["wav"] += ".gone"
    train_loader, valid_loader = loaders(brain)
    heard = []
    brain.on_fit_batch_start = lambda batch, should_step: heard.extend(batch.ids)
    brain.fit(train_loader, valid_loader)
    assert len(heard) == 24 and "3" not in heard
    assert len(brain.logbook.quarantine) == 1
    log = (brain.logbook.quarantine.path).read_text(encoding="utf-8")
    assert "3.wav.gone" in log and "missing" in log


def test_clips_are_read_at_the_rate_of_the_stage(make_brain, manifest, tmp_path):
    brain = make_brain()
    brain.module.sample_rate = 12000
    for loader in brain.make_loaders(Manifests(tmp_path, *[manifest] * 3)):
        assert next(iter(loader)).wavs.shape[1] == 1200


def test_bad_files_are_a_share_of_all_parts(make_brain, manifest, tmp_path):
    """One of a small part for validation does not stop a long training."""
    brain = make_brain(max_bad_fraction=0.1)
    few = dict(list(manifest.items())[:5])
    few["0"] = {**few["0"], "wav": few["0"]["wav"] + ".gone"}
    _, loader, _ = brain.make_loaders(Manifests(tmp_path, manifest, few, few))
    brain.validate(loader)
    assert len(brain.logbook.quarantine) == 1


def test_too_many_bad_files_stop_the_run(make_brain, loaders, manifest):
    brain = make_brain()
    for index in range(4):
        manifest[str(index)]["wav"] += ".gone"
    train_loader, valid_loader = loaders(brain)
    with pytest.raises(UserError, match="of 12 files could not be read"):
        brain.fit(train_loader, valid_loader)
