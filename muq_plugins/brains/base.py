"""The common base of all Brains: SpeechBrain's loop, made trustworthy.

What differs from `speechbrain.Brain`, and why, stands at each override. The
loop counts optimizer updates instead of epochs: an endless stream of clips has no
epochs, and validation, checkpoints and the end of training come at fixed steps.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
import yaml
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from muq_plugins.brains.checkpoints import RandomStates
from muq_plugins.brains.fsdp import FSDP, WholeOptimizer, whole
from muq_plugins.brains.logbook import Logbook, RunningStatistics
from muq_plugins.brains.processes import (
    any_of,
    average_batch_norms,
    follow_all_batches,
    largest_of,
    rank,
    share_clips,
    world_size,
)
from muq_plugins.data.clips import (
    ClipBatch,
    clip_key,
    evaluation_loader,
    training_loader,
)
from muq_plugins.data.preparation import Manifests
from muq_plugins.errors import (
    ENDING,
    Interrupted,
    UserError,
    duration,
    given_by_user,
)
from muq_plugins.lobes.finite import Refusals, finite
from muq_plugins.lobes.objectives.base import StageOutput

logger = get_logger(__name__)

# Updates after which it is known how long one takes.
FIRST_STEPS = 10


class TrainingInterrupted(Interrupted):
    """Training was asked to stop, and has written a checkpoint."""


class Interrupts:
    """Turns what asks to end into a request, for the time of a ``with`` block.

    The loop looks at `requested` after each update, so that a run never stops in
    the middle of one. A second Ctrl-C stops at once; what is ignored stays ignored.
    """

    def __init__(self):
        self.requested = False
        self.number = int(signal.SIGINT)
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame) -> None:
        if self.requested:
            if number == signal.SIGINT:
                raise Interrupted
            return
        self.requested, self.number = True, number
        if number == getattr(signal, "SIGHUP", None):
            _leave_terminal()
        logger.warning(
            "Stopping after this update and writing a checkpoint; "
            "press Ctrl-C again to stop at once."
        )


def _leave_terminal() -> None:
    """Writes no more to a terminal that was closed: that would end the run at once."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        if os.isatty(output):
            os.dup2(nowhere, output)
    os.close(nowhere)


@sb.utils.checkpoints.register_checkpoint_hooks
class StageBrain(sb.Brain):
    """Trains the one module of a stage.

    The module returns a `StageOutput`; the Brain needs to know nothing else about
    it. If the module has a method ``after_update``, it is called after each
    optimizer update; what ``summary(means, totals)`` gives stands in validation rows,
    and ``measures``, what its numbers mean, in the run folder.

    Arguments
    ---------
    modules : dict
        Exactly one entry: the name of the stage and its module.
    opt_class : callable
        Makes the optimizer from parameters.
    hparams : dict
        Needs ``seed``, ``output_folder``, ``optimizer_step_limit``, ``batch_size``
        (clips in a micro-batch, which are normalised together), ``clips_per_update``
        (of all processes together: a multiple of ``batch_size`` for each of them; the
        gradients of as many micro-batches as that takes are accumulated),
        ``lr_schedule`` (called with the optimizer and the number of the update),
        ``log_interval`` and ``valid_interval`` (in updates), ``checkpoints_to_keep``
        and ``max_bad_fraction``; may have ``loggers``, names of `LOGGERS`, and
        ``fsdp``, whether each of several processes trains a share.
    run_opts : dict or RunOptions or None
        Options from the command line; they win over ``hparams``.
    checkpointer : AtomicCheckpointer or None
        None trains without checkpoints.

    Raises
    ------
    ValueError
        If there is not exactly one module or no ``optimizer_step_limit``, or if the
        processes cannot share the clips of an update in whole micro-batches.
    """

    # Whether it is validated at a tenth of the updates, too.
    looks_early = False
    # Whether ``fsdp`` is for it.
    knows_fsdp = False

    def __init__(
        self,
        modules: dict[str, nn.Module],
        opt_class=None,
        hparams: dict[str, Any] | None = None,
        run_opts=None,
        checkpointer=None,
    ):
        if len(modules) != 1:
            raise UserError(
                f"A stage has exactly one module, got {sorted(modules)}: put the parts "
                f"into one module whose forward computes the loss."
            )
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        if self.optimizer_step_limit is None:
            raise UserError(
                "optimizer_step_limit is not set: it is the number of updates after "
                "which training ends. Add it to the YAML."
            )
        if self.max_grad_norm is not None and self.max_grad_norm < 0:
            raise UserError(
                f"max_grad_norm is {self.max_grad_norm}: a negative limit would turn "
                f"the gradient around. Use 0 or null to switch clipping off."
            )
        (self.stage_name,) = modules
        self.module: nn.Module = self.modules[self.stage_name]
        self.shares: FSDP | None = None  # what is trained in its place
        self.micro_batches = 0  # that this process has seen in the whole run
        self.grad_norm = torch.zeros(())
        self.refusals = Refusals()
        # Whether the newest updates were left out, 1 or 0, on the device.
        self.left_out: list[Tensor] = []
        self.statistics_before: list[tuple[Tensor, Tensor]] = []  # now, then
        self.logbook = Logbook(
            self.hparams.output_folder,
            self.stage_name,
            self.hparams.max_bad_fraction,
            getattr(self.module, "measures", {}),
            getattr(self.hparams, "loggers", None) or (),
        )
        self.grad_accumulation_factor = share_clips(
            self.hparams.clips_per_update, self.hparams.batch_size, world_size()
        )
        self.evaluation_batch_size = self.hparams.batch_size
        self._use_training_precision_for_evaluation(hparams, run_opts)
        if checkpointer is not None:
            # SpeechBrain adds the Brain and the optimizer; without the random
            # states a resumed run would differ from an uninterrupted one.
            checkpointer.add_recoverable(self.stage_name, self.module)
            checkpointer.add_recoverable("random_states", RandomStates())

    # What a stage defines ---------------------------------------------------

    def describe(self, statistics: RunningStatistics, stage: sb.Stage) -> dict:
        """Turns statistics into the named numbers of a metrics row.

        Outside training the stage's module adds what it says about itself.

        Arguments
        ---------
        statistics : RunningStatistics
            Sums over batches and processes.
        stage : sb.Stage
            What they were gathered in.

        Returns
        -------
        dict
            Name to number or list of numbers.
        """
        row = {name: mean.tolist() for name, mean in statistics.means().items()}
        if stage is not sb.Stage.TRAIN and hasattr(self.module, "summary"):
            with given_by_user():  # such as music of which nothing was masked
                row |= self.module.summary(row, statistics.totals)
        return row

    def progress(self, row: dict[str, Any]) -> dict[str, str]:
        """Chooses what the progress bar shows of a metrics row.

        Arguments
        ---------
        row : dict
            The newest metrics.

        Returns
        -------
        dict
            Label to text.
        """
        shown = {"loss": f"{row['loss']:.3f}"}
        if "accuracy" in row:
            shown["accuracy"] = f"{row['accuracy']:.1%}"
        shown["audio"] = f"{row['audio_seconds_per_second']:.0f} s/s"
        return shown

    # The loop ---------------------------------------------------------------

    def fit(
        self,
        train_loader: DataLoader,
        valid_loader: DataLoader | None = None,
        progressbar: bool | None = None,
    ) -> None:
        """Trains until ``optimizer_step_limit``, from the newest checkpoint on.

        SpeechBrain's loop restarts gradient accumulation at each epoch and throws
        the tail away; here the stream of micro-batches has no end, so nothing is
        dropped, and its position is part of the checkpoint.

        Arguments
        ---------
        train_loader : DataLoader
            Endless, with a `ClipSampler` as its batch sampler.
        valid_loader : DataLoader or None
            This process's share of the validation batches.
        progressbar : bool or None
            Show a progress bar; by default unless ``--noprogressbar`` is given.

        Raises
        ------
        TrainingInterrupted
            After Ctrl-C, SIGTERM or SIGHUP, once a checkpoint is written.
        """
        if self.test_only:
            logger.info("Test only: skipping training.")
            return
        self.on_fit_start()
        limit = self.optimizer_step_limit
        if self.optimizer_step >= limit:
            logger.info(
                f"Training is complete: {self.optimizer_step} updates are done."
            )
            return
        train_loader.batch_sampler.set_position(self.micro_batches)
        files = len(train_loader.dataset.ids)
        show = (not self.noprogressbar) if progressbar is None else progressbar
        self._set_train_mode()
        self.zero_grad(set_to_none=True)
        self.logbook.start_clock()
        started = last_checkpoint = time.monotonic()
        first = self.optimizer_step
        with (
            Interrupts() as interrupts,
            tqdm(
                desc=self.stage_name,
                total=limit,
                initial=self.optimizer_step,
                unit="step",
                dynamic_ncols=True,
                disable=not (show and if_main_process()),
            ) as bar,
        ):
            for batch in train_loader:
                self.fit_batch(batch)
                if self.micro_batches % self.grad_accumulation_factor:
                    continue
                step = self.optimizer_step
                bar.update()
                done = step >= limit
                if done or step % self.hparams.log_interval == 0:
                    self._log_train(files)
                    bar.set_postfix(self.progress(self.logbook.row))
                early = self.looks_early and step == limit // 10
                look = done or early or step % self.hparams.valid_interval == 0
                if look and valid_loader is not None:
                    self.validate(valid_loader)
                # What a bar shows all the time.
                made = step - first
                told = made == FIRST_STEPS or look and made > FIRST_STEPS
                if told and not (show or done):
                    pace = (time.monotonic() - started) / made
                    left = duration((limit - step) * pace)
                    logger.info(f"Step {step} of {limit}: about {left} left.")
                minutes = (time.monotonic() - last_checkpoint) / 60
                due = 0 < self.ckpt_interval_minutes < minutes
                due |= (
                    0 < self.ckpt_interval_steps and not step % self.ckpt_interval_steps
                )
                stop, due = any_of(interrupts.requested, due)
                if due or stop or done:
                    self.save_checkpoint()
                    last_checkpoint = time.monotonic()
                if done:
                    break
                if stop:
                    raise TrainingInterrupted(
                        f"Stopped at step {step} of {limit}, with a checkpoint. Run "
                        f"the same command again to go on.",
                        interrupts.number,
                    )

    def fit_batch(self, batch: ClipBatch) -> Tensor:
        """One micro-batch, and an update if it completes one.

        Differs from SpeechBrain in what random numbers depend on: dropout is
        seeded by the update and by the place of the micro-batch in it, so neither
        resuming nor the number of processes changes what is learned.

        Arguments
        ---------
        batch : ClipBatch
            The micro-batch.

        Returns
        -------
        Tensor
            The loss, detached.
        """
        position = self.micro_batches % self.grad_accumulation_factor
        should_step = position + 1 == self.grad_accumulation_factor
        place = position * world_size() + rank()
        torch.manual_seed(clip_key(self.hparams.seed, self.optimizer_step, str(place)))

        if position == 0:
            # Running statistics move in the forward pass, before anybody can know
            # whether the update will be left out.
            self.statistics_before = [
                (buffer, buffer.clone())
                for part in self.module.modules()
                if part.training
                for buffer in part.buffers(recurse=False)
            ]
        batch = batch.to(self.device)
        self.on_fit_batch_start(batch, should_step)
        with self.no_sync(not should_step):
            with self.training_ctx, self.refusals.collect():
                output = self.compute_forward(batch, sb.Stage.TRAIN)
                loss = self.compute_objectives(output, batch, sb.Stage.TRAIN)
            scaled = self.scaler.scale(loss / self.grad_accumulation_factor)
            scaled.backward()
        self.logbook.add(batch, output)
        self.micro_batches += 1
        if should_step:
            self.optimizers_step()
        self.on_fit_batch_end(batch, output, loss, should_step)
        return loss.detach()

    def compute_forward(self, batch: ClipBatch, stage: sb.Stage) -> StageOutput:
        """Calls the stage's module.

        Arguments
        ---------
        batch : ClipBatch
            A micro-batch on the right device.
        stage : sb.Stage
            Training goes through DDP's wrapper; evaluation must not, because it
            would wait for processes whose share has fewer batches.

        Returns
        -------
        StageOutput
            Loss and statistics.
        """
        training = stage is sb.Stage.TRAIN
        module = self.modules[self.stage_name] if training else self.module
        return module(batch.wavs, batch.wav_lens, batch.clip_keys, batch.crops)

    def compute_objectives(
        self, predictions: StageOutput, batch: ClipBatch, stage: sb.Stage
    ) -> Tensor:
        """Takes the loss that the module has computed.

        Arguments
        ---------
        predictions : StageOutput
            From `compute_forward`.
        batch : ClipBatch
            Unused.
        stage : sb.Stage
            Unused.

        Returns
        -------
        Tensor
            Scalar.
        """
        return predictions.loss

    def optimizers_step(self) -> None:
        """One optimizer update.

        Differs from SpeechBrain: the gradient norm is taken over all parameter
        groups, not the first one; None and 0 switch clipping off instead of
        zeroing the gradient; an update whose gradient is not finite is left out,
        and too many in a row are an error. An optimizer that leaves updates out by
        itself, as torch's fused ones do, is not waited for: `look_back` tells later.

        Raises
        ------
        UserError
            After more than ``nonfinite_patience`` such updates in a row.
        """
        self.hparams.lr_schedule(self.optimizer, self.optimizer_step + 1)
        self.scaler.unscale_(self.optimizer)
        parameters = [
            parameter
            for group in self.optimizer.param_groups
            for parameter in group["params"]
        ]
        limit = self.max_grad_norm or math.inf
        self.grad_norm = whole(torch.nn.utils.clip_grad_norm_(parameters, limit))
        bad = self._is_not_finite()
        self.left_out.append(bad)
        after_update = getattr(self.module, "after_update", None)
        if not getattr(self.module, "follows_updates", True):
            after_update = None
        self.optimizer_step += 1
        if (
            after_update is None
            and self.shares is None
            and getattr(self.optimizer, "_step_supports_amp_scaling", False)
            and not self.scaler.is_enabled()
        ):
            self._step_unless(bad)
        else:
            if bad:
                self._undo_statistics()
                self.optimizer.zero_grad(set_to_none=True)
            self._count_left_out()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if after_update is not None and not bad:
                after_update()
        self.optimizer.zero_grad(set_to_none=True)

    def _is_not_finite(self) -> Tensor:
        """1.0 if the gradient or a running statistic is not finite, else 0.0.

        The gradient is that of all processes, the running statistics are of each.
        """
        good = self.grad_norm.isfinite()
        buffers = [
            buffer.flatten()
            for buffer, _ in self.statistics_before
            if buffer.is_floating_point()
        ]
        if buffers:
            good = good & finite(torch.cat(buffers))
        return largest_of((~good).float())

    def _step_unless(self, bad: Tensor) -> None:
        """An update, or nothing at all, as the device finds out when it gets there."""
        for buffer, before in self.statistics_before:
            buffer.copy_(torch.where(bad.bool(), before, buffer))
        # As `torch.amp.GradScaler` says it.
        self.optimizer.grad_scale, self.optimizer.found_inf = None, bad
        self.optimizer.step()
        del self.optimizer.grad_scale, self.optimizer.found_inf

    def _undo_statistics(self) -> None:
        """Undoes what an update that is not finite has done so far."""
        for buffer, before in self.statistics_before:
            buffer.copy_(before)

    def look_back(self) -> None:
        """Asks the device what went wrong since it was asked last.

        Whatever is written down is written after that.

        Raises
        ------
        UserError
            If audio, or what a frozen part computes of it, is not finite, or after more
            than ``nonfinite_patience`` updates in a row that were left out.
        """
        with given_by_user():
            self.refusals.tell()
        self._count_left_out()

    def _count_left_out(self) -> None:
        """Says which of the newest updates were left out, and when it is too much."""
        flags, self.left_out = self.left_out, []
        first = self.optimizer_step - len(flags)
        for step, bad in enumerate(torch.stack(flags).tolist() if flags else (), first):
            if not bad:
                self.nonfinite_count = 0
                continue
            # In float16 the scaler finds its scale with such updates, not below 1.
            if self.scaler.is_enabled() and self.scaler.get_scale() >= 1:
                continue
            self.nonfinite_count += 1
            if self.nonfinite_count > self.nonfinite_patience:
                raise UserError(
                    f"The gradient was not finite for {self.nonfinite_count} updates "
                    f"in a row, up to step {step}: lower the learning rate or "
                    f"max_grad_norm, or train with --precision fp32."
                )
            logger.warning(
                f"Step {step}: the gradient or a running statistic is not finite, the "
                f"update is left out ({self.nonfinite_count} of "
                f"{self.nonfinite_patience})."
            )

    def validate(self, loader: DataLoader, kind: str = "valid") -> RunningStatistics:
        """Evaluates the module and writes a metrics row.

        Differs from SpeechBrain: each process takes its share of the batches and
        the sums of all are added, and the precision is that of training.

        Arguments
        ---------
        loader : DataLoader
            This process's share of the batches.
        kind : str
            Name of the row: "valid" or "test".

        Returns
        -------
        RunningStatistics
            Sums over all processes.
        """
        self.look_back()
        stage = sb.Stage.VALID if kind == "valid" else sb.Stage.TEST
        statistics, failures = RunningStatistics(), []
        with self.logbook.pause():
            self._bring_together()
            self.modules.eval()
            with torch.no_grad(), self.evaluation_ctx:
                for batch in loader:
                    failures += batch.failures
                    if len(batch) > 0:  # else no file of this batch could be read
                        batch = batch.to(self.device)
                        statistics.add(self.compute_forward(batch, stage))
            statistics.reduce()
            self.logbook.report_failures(failures, len(loader.dataset.ids))
            values = self.describe(statistics, stage)
            self.logbook.write(kind, self.optimizer_step, values)
            self._set_train_mode()
        return statistics

    # Start-up ---------------------------------------------------------------

    def make_loaders(
        self, manifests: Manifests
    ) -> tuple[DataLoader, DataLoader, DataLoader]:
        """Makes the loaders of this process's share of the data.

        Arguments
        ---------
        manifests : Manifests
            The parts of the corpus.

        Returns
        -------
        tuple of DataLoader
            Training (endless), validation and test. They are shaped by the
            hparams ``clip_seconds``, ``batch_size``, ``num_workers``,
            ``windows_per_clip`` and ``max_windows``.
        """
        hparams = self.hparams
        parts = manifests.train, manifests.valid, manifests.test
        self.logbook.files = sum(map(len, parts))
        share = {
            "clip_seconds": hparams.clip_seconds,
            "sample_rate": getattr(self.module, "sample_rate", 24000),
            "rank": rank(),
            "world_size": world_size(),
            "num_workers": hparams.num_workers,
            "pin_memory": self.device_type == "cuda",
        }
        windows = {
            "batch_size": self.evaluation_batch_size,
            "windows_per_clip": hparams.windows_per_clip,
            "max_windows": hparams.max_windows,
        }
        return (
            training_loader(
                manifests.train,
                batch_size=hparams.batch_size,
                seed=hparams.seed,
                **share,
            ),
            evaluation_loader(manifests.valid, **windows, **share),
            evaluation_loader(manifests.test, **windows, **share),
        )

    def init_optimizers(self) -> None:
        """Makes the optimizer of the parameters that want a gradient.

        Differs from SpeechBrain, which hands frozen parameters to the optimizer as
        well, where weight decay may reach them.
        """
        trained = self.module if self.shares is None else self.shares.twin
        parameters = [p for p in trained.parameters() if p.requires_grad]
        if not parameters:
            raise UserError(f"The {self.stage_name} module has no trainable parameter.")
        groups: Any = parameters
        if self.remove_vector_weight_decay:
            groups = [
                {"params": [p for p in parameters if p.dim() > 1]},
                {
                    "params": [p for p in parameters if p.dim() <= 1],
                    "weight_decay": 0.0,
                },
            ]
        self.optimizer = self.opt_class(groups)
        self.optimizers_dict = {"optimizer": self.optimizer}
        if self.checkpointer is not None:
            kept = (
                self.optimizer
                if self.shares is None
                else WholeOptimizer(self.optimizer)
            )
            self.checkpointer.add_recoverable("optimizer", kept)

    def on_fit_start(self) -> None:
        """Compiles, wraps and resumes; metrics beyond the checkpoint are dropped."""
        self.nonfinite_count = 0
        super().on_fit_start()
        if self.shares is not None:
            self.shares.scatter()
        self.logbook.forget_after(self.optimizer_step)
        step, limit = self.optimizer_step, self.optimizer_step_limit
        if 0 < step < limit:
            seconds = self.logbook.seconds + self.logbook.elapsed
            left = duration((limit - step) * seconds / step)
            logger.info(
                f"Going on from step {step} of {limit}: {left} of training are left at "
                f"its pace so far."
            )

    def _compile(self) -> None:
        """Has the module compile what it can of itself.

        SpeechBrain compiles it as a whole, which breaks into many graphs, and for every
        length of a batch again.
        """
        if self.compile_module_keys not in (None, [self.stage_name]):
            raise UserError(
                f"compile_module_keys is {self.compile_module_keys}: a stage has one "
                f"module, {self.stage_name}, which --compile compiles. Leave it out."
            )
        if self.compile:
            self.module.compile(
                mode=self.compile_mode,
                fullgraph=self.compile_using_fullgraph,
                # None begins with the first length, and then takes any.
                dynamic=self.compile_using_dynamic_shape_tracing or None,
            )

    def _wrap_distributed(self) -> None:
        """Wraps the module for several processes, without SyncBatchNorm.

        SpeechBrain converts torch's batch normalisation, which other people's encoders
        have, to one that does not run on CPU and makes a result depend on the number
        of processes.
        """
        if not self.distributed_launch:
            return
        follow_all_batches(self.module)
        if self.knows_fsdp and getattr(self.hparams, "fsdp", False):
            self.modules[self.stage_name] = self.shares = FSDP(self.module)
            return
        # Without device_ids, which would bring lengths and keys to the device as well.
        wrapped = DistributedDataParallel(
            self.module, find_unused_parameters=self.find_unused_parameters
        )
        # Running statistics are those of all processes, not of the first. (The argument
        # of this name is deprecated since torch 2.14.)
        wrapped.broadcast_buffers = False
        self.modules[self.stage_name] = wrapped

    def _use_training_precision_for_evaluation(self, hparams, run_opts) -> None:
        """SpeechBrain validates in fp32 unless told otherwise; we do as in training."""
        chosen = getattr(run_opts, "overridden_args", None) or run_opts or {}
        if "eval_precision" not in (hparams or {}) and "eval_precision" not in chosen:
            self.eval_precision = self.precision
            self.evaluation_ctx = self.training_ctx

    # Bookkeeping ------------------------------------------------------------

    def _bring_together(self) -> None:
        """Gives the module of each process what all of them have learned."""
        average_batch_norms(self.module)
        if self.shares is not None:
            self.shares.gather()

    def _set_train_mode(self) -> None:
        """Training mode, except for parts whose parameters are all frozen.

        SpeechBrain puts them in training mode as well: their dropout would be on
        and their running statistics would move.
        """
        self.modules.train()
        for part in self.module.modules():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()

    def _log_train(self, files: int) -> None:
        """Writes the metrics row of the updates since the last one."""
        self.look_back()
        statistics, speed = self.logbook.end_stretch(files)
        values = self.describe(statistics, sb.Stage.TRAIN)
        values["lr"] = self.optimizer.param_groups[0]["lr"]
        values["grad_norm"] = float(self.grad_norm)
        values["audio_seconds_per_second"] = speed
        self.logbook.write("train", self.optimizer_step, values)

    def save_checkpoint(self) -> None:
        """Saves a checkpoint and deletes all but the newest ones."""
        self.look_back()
        # What the main process writes stands for all of them.
        self._bring_together()
        self.logbook.agree()
        if self.checkpointer is None:
            return
        self.checkpointer.save_and_keep_only(
            meta={"step": self.optimizer_step},
            num_to_keep=self.hparams.checkpoints_to_keep,
            verbosity=10,
        )

    @sb.utils.checkpoints.mark_as_saver
    def _save(self, path: str | Path) -> None:
        """What cannot be derived; the position in the data follows from the step."""
        state = {
            "optimizer_step": self.optimizer_step,
            "logbook": self.logbook.state(),
        }
        # JSON, which YAML 1.2 includes and Python reads faster
        Path(path).write_text(json.dumps(state), encoding="utf-8")

    @sb.utils.checkpoints.mark_as_loader
    def _recover(self, path: str | Path, end_of_epoch: bool) -> None:
        """The inverse of `_save`."""
        text = Path(path).read_text(encoding="utf-8")
        state = json.loads(text) if text.startswith("{") else yaml.safe_load(text)
        self.optimizer_step = state["optimizer_step"]
        # Versions up to 0.1.0 kept no unfinished stretch, and this beside the step.
        self.logbook.restore(state.get("logbook", state))
        # Checkpoints are made between updates, and an update takes the same clips
        # however many processes and micro-batches share it.
        self.micro_batches = self.optimizer_step * self.grad_accumulation_factor
