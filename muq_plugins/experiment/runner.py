"""Carrying out a study: every command once, and a record of what each run has found.

A record is one small file. With it a run is finished, on any machine, and its folder is
needed no more, unless another run needs the model in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muq_plugins.errors import UserError
from muq_plugins.experiment.command_line import parse_arguments
from muq_plugins.experiment.experiment import (
    Experiment,
    check_stage,
    refuse_training_options,
    save_experiment,
)
from muq_plugins.experiment.plan import (
    TRAIN,
    Command,
    PlannedRun,
    plan_runs,
    probe_folder,
)
from muq_plugins.experiment.run_folder import LOCK
from muq_plugins.files import (
    POLL_SECONDS,
    locked,
    read_json,
    replace_file,
    write_json,
)
from muq_plugins.shipped import PACKAGE, ROOT

FINISHED_FILE = "finished.json"
STUDY_LOCK = ".study.lock"
RECORD_FORMAT = 1


def _check_commands(run: PlannedRun, recipes: Path) -> None:
    """What each command would refuse at once, whenever its turn came."""
    for command in run.commands:
        if not (recipes / command.script).is_file():
            raise UserError(
                f"{run.experiment}: there is no recipe {recipes / command.script}."
            )
        parsed = parse_arguments(command.arguments)
        try:
            stage = {"experiment": parsed.path, "overrides": parsed.overrides}
            values = check_stage(stage)
            if command.name != TRAIN:  # a probe
                refuse_training_options(parsed.run_opts, values)
        except UserError as error:
            raise UserError(f"{run.experiment}: {error}") from error


@dataclass(frozen=True)
class Failure:
    """A command that ended with an error."""

    run: PlannedRun  # its run
    command: Command  # the command
    log: Path  # what it printed


def is_recorded(run: PlannedRun) -> bool:
    """Tells whether a run has a record, of the same commands."""
    return _keys(run).items() <= _recorded(record_of(run)).items()


def record_of(run: PlannedRun) -> Path:
    """The file with the record of a run, or the one that it is to get.

    A study that asks other things of the same model, or asks otherwise, has a file
    beside that of the first: no record is overwritten by one that knows less.
    """
    wanted, there = _keys(run), _recorded(run.record)
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    beside = run.record.with_stem(f"{run.record.stem}-{digest[:8]}")
    if wanted.items() <= there.items():
        return run.record
    first = there.items() <= wanted.items() and not beside.is_file()
    return run.record if first else beside


def _keys(run: PlannedRun) -> dict[str, str]:
    return {command.name: command.key for command in run.commands}


def _recorded(path: Path) -> dict[str, str]:
    """The commands of a record, and their keys; nothing where there is none."""
    if not path.is_file():
        return {}
    remedy = "delete it; the run is done again"
    record = read_json(path, remedy)
    if not isinstance(record, dict) or record.get("format") != RECORD_FORMAT:
        raise UserError(
            f"{path} is no record of format {RECORD_FORMAT}, which this version "
            f"reads: {remedy}."
        )
    return record["commands"]


def _record(run: PlannedRun, found: Callable[[PlannedRun], dict[str, Any]]) -> None:
    """Keeps what a run has found, unless there is a record already."""
    if is_recorded(run):
        return
    content = {
        "format": RECORD_FORMAT,
        "experiment": Path(run.commands[0].arguments[0]).name,
        "settings": run.settings,
        "commands": _keys(run),
        **found(run),
    }
    lines = (f"{json.dumps(key)}: {json.dumps(content[key])}" for key in content)
    replace_file(record_of(run), ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def is_finished(run: PlannedRun, command: Command) -> bool:
    """Tells whether a command of a run has been carried out in its folder."""
    return _finished(run.folder).get(command.name) == command.key


def carry_out(
    runs: Sequence[PlannedRun],
    recipes: str | Path,
    devices: Sequence[str],
    found: Callable[[PlannedRun], dict[str, Any]],
    say: Callable[[str], None] = print,
) -> list[Failure]:
    """Runs everything that is not finished yet, and records what each run has found.

    A run waits until its inputs have been trained. One that fails does not stop the
    others, except those that it is an input of. Ctrl-C stops the commands that are
    running, each of which writes a checkpoint first.
    """
    if not devices:
        raise UserError("devices must name at least one device, for example [cpu].")
    waiting = _to_do(runs, say)
    working: list[PlannedRun] = []
    choice = threading.Lock()
    stop = threading.Event()
    failures: list[Failure] = []
    environment = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(devices))),
        **os.environ,
    }

    def take_next() -> PlannedRun | None:
        while not stop.is_set():
            with choice:
                for run in waiting:
                    if _missing_input(run) is None:
                        waiting.remove(run)
                        working.append(run)
                        return run
                if not working or not waiting:
                    return None
            stop.wait(POLL_SECONDS)
        return None

    def work(device: str) -> None:
        while (run := take_next()) is not None:
            try:
                where = recipes, device, environment
                failure = _carry_out_run(run, *where, found, stop, say)
            # Such as a full disk or a damaged file: the others may still go on.
            except Exception as error:
                words = f"{type(error).__name__}: {error}"
                say(f"{run.experiment}, seed {run.seed} FAILED: {words}")
                failure = Failure(run, run.commands[0], run.folder)
            finally:
                with choice:
                    working.remove(run)
            if failure is not None:
                failures.append(failure)

    threads = [threading.Thread(target=work, args=[device]) for device in devices]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:  # of Ctrl-C: the commands that run write their checkpoints
        stop.set()
        for thread in threads:
            thread.join()
    for run in waiting:
        missing = _missing_input(run)
        say(
            f"{run.experiment}, seed {run.seed} left out: it needs the run of "
            f"{missing.experiment} in {missing.folder}"
        )
    return failures


def _to_do(runs: Sequence[PlannedRun], say: Callable[[str], None]) -> list[PlannedRun]:
    """Runs without a record, and the trainings of others whose models they need."""
    needed: dict[Path, str] = {}
    found = []
    for run in reversed(runs):  # inputs come before those that need them
        trained = _is_trained(run)
        if is_recorded(run):
            if trained or run.folder not in needed:
                continue
            say(
                f"{run.experiment}, seed {run.seed} is recorded, but "
                f"{needed[run.folder]} needs its model, which is not in {run.folder}: "
                f"it is trained again."
            )
            train = [command for command in run.commands if command.name == TRAIN]
            run = replace(run, commands=train)
        if not trained:
            needed |= {other.folder: run.experiment for other in run.inputs}
        found.append(run)
    return found[::-1]


def _missing_input(run: PlannedRun) -> PlannedRun | None:
    """A run without which this one cannot be trained, if it still has to be."""
    if _is_trained(run):
        return None
    return next((other for other in run.inputs if not _is_trained(other)), None)


def _is_trained(run: PlannedRun) -> bool:
    return all(is_finished(run, c) for c in run.commands if c.name == TRAIN)


def _carry_out_run(
    run, recipes, device, environment, found, stop, say
) -> Failure | None:
    run.folder.mkdir(parents=True, exist_ok=True)
    with _alone(run.folder, STUDY_LOCK, stop, say):
        for command in run.commands:
            # A training outlives a study that is killed; it holds its run folder.
            with _alone(run.folder, LOCK, stop, say):
                pass
            if stop.is_set():
                return None
            if is_finished(run, command):
                continue
            name = f"{run.experiment}, seed {run.seed}: {command.name}"
            log = run.folder / f"{command.name}.log"
            if command.name in _finished(run.folder):
                # The study asks something else now: the old answer makes room.
                folder = probe_folder(run.folder, command.name)
                shutil.rmtree(folder, ignore_errors=True)
            say(f"{name} on {device} ...")
            start = time.monotonic()
            status = _run(command, recipes, device, environment, stop, log)
            if stop.is_set():
                return None
            if status:
                say(f"{name} FAILED with {status}; see {log}")
                return Failure(run, command, log)
            _note(run.folder, command)
            say(f"{name} done in {time.monotonic() - start:.0f} s")
        _record(run, found)
    return None


@contextmanager
def _alone(folder: Path, name: str, stop, say) -> Iterator[None]:
    """Waits until nobody else works in a folder, or until it is told to stop."""
    told = False
    while not stop.is_set():
        with locked(folder, name, wait=False) as mine:
            if mine:
                yield
                return
        if not told:
            say(f"Waiting for another process that works in {folder} ...")
            told = True
        time.sleep(POLL_SECONDS)
    yield


def _run(command, recipes, device, environment, stop, log) -> int:
    """Runs one command to its end and returns its exit status."""
    script = str(Path(recipes) / command.script)
    options = ["--device", device, "--noprogressbar"]
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, script, *command.arguments, *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        while process.poll() is None:
            if stop.wait(POLL_SECONDS):
                process.terminate()
                return process.wait()
    return process.returncode


def _finished(folder: Path) -> dict[str, str]:
    path = folder / FINISHED_FILE
    return read_json(path, "delete it; the run is done again") if path.is_file() else {}


def _note(folder: Path, command: Command) -> None:
    """Remembers that a command has finished, whole or not at all."""
    write_json(folder / FINISHED_FILE, {**_finished(folder), command.name: command.key})


def run_study(
    experiment: Experiment,
    recipes: str | Path,
    found: Callable[[PlannedRun], dict[str, Any]],
) -> tuple[list[PlannedRun], list[Failure]]:
    """Plans a study, saves it, and runs what is not finished.

    ``found`` reads from the folder of a run what its record holds.
    """
    refuse_run_options(experiment)
    hparams = experiment.hparams
    records = hparams["records_folder"]
    if hparams["only_report"] and "records_folder" in experiment.overrides:
        if not os.path.isdir(records):
            raise UserError(f"There is no folder {records}, where records would be.")
    runs = plan_runs(
        hparams["experiments"],
        hparams["seeds"],
        hparams["budget"],
        hparams.get("probes"),
        hparams["runs_folder"],
        records,
    )
    for run in runs[: len(hparams["experiments"])]:  # seeds make no difference
        _check_commands(run, Path(recipes))
    save_experiment(experiment, hparams["output_folder"], study=True)
    if not hparams["only_report"]:
        return runs, carry_out(runs, recipes, hparams["devices"], found)
    for run in runs:
        if all(is_finished(run, command) for command in run.commands):
            _record(run, found)
    return runs, []


def refuse_run_options(experiment: Experiment) -> None:
    """Refuses options that would reach none of the commands of a study."""
    given = experiment.run_opts.overridden_args
    if given:
        raise UserError(
            f"{', '.join(sorted(given))}: a study takes no run options. Set devices "
            f"for where it runs, and budget for training settings."
        )


def study_command(script: str, argv: Sequence[str]) -> str:
    """The command that runs a study, also if this one only looks at it."""
    words = re.sub(r" --only_report[ =]\S+", "", shlex.join(argv))
    if ROOT == PACKAGE:  # installed, without a checkout
        return f"muq-plugins {Path(script).stem} {words}"
    return f"python recipes/MuQ/{script} {words}"
