"""What a study runs: a folder and some commands for every experiment and seed.

A folder is named after everything that its run depends on, so studies that share a
folder of runs share the runs too, and a changed setting never meets an old result.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from muq_plugins.errors import UserError
from muq_plugins.experiment.command_line import parse_arguments
from muq_plugins.experiment.experiment import (
    Experiment,
    check_stage,
    save_experiment,
)
from muq_plugins.experiment.extends import hint, parse_yaml, resolve_experiment
from muq_plugins.experiment.run_folder import LOCK, hash_values
from muq_plugins.files import POLL_SECONDS, locked, read_json, write_json

EXPERIMENT_KEYS = ("experiment", "label", "overrides", "inputs", "script")
PROBE_KEYS = ("experiment", "overrides")
TRAIN = "train"
TRAIN_SCRIPT = "train.py"
FINISHED_FILE = "finished.json"
STUDY_LOCK = ".study.lock"


@dataclass(frozen=True)
class Command:
    """One step of a run."""

    name: str  # "train", or the name of a probe
    script: str  # the recipe
    arguments: list[str]  # its command line
    key: str  # hash of the settings that its result depends on


@dataclass(frozen=True)
class PlannedRun:
    """One experiment with one seed."""

    experiment: str  # its name in the study
    seed: int  # of everything that is random in the run
    folder: Path  # the run folder
    commands: list[Command]  # in order
    inputs: tuple[PlannedRun, ...] = ()  # runs that must have been trained before


def plan_runs(
    experiments: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    budget: Mapping[str, Any],
    probes: Mapping[str, Mapping[str, Any]] | None,
    runs_folder: str | Path,
) -> list[PlannedRun]:
    """All runs of a study, one seed after another."""
    if not experiments or not seeds:
        raise UserError("A study needs at least one experiment and one seed.")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds must differ from each other, got {list(seeds)}.")
    for name, wanted in experiments.items():
        _check_entry(name, wanted, EXPERIMENT_KEYS)
    for name, wanted in (probes or {}).items():
        _check_entry(name, wanted, PROBE_KEYS)
    ordered = _with_inputs_first(experiments)
    runs: dict[tuple[str, int], PlannedRun] = {}
    for seed in seeds:
        for name in ordered:
            inputs = {
                key: runs[other, seed]
                for key, other in (experiments[name].get("inputs") or {}).items()
            }
            runs[name, seed] = _plan_run(
                *(name, experiments[name], inputs, seed, budget, probes or {}),
                runs_folder,
            )
    return list(runs.values())


def _check_entry(name: str, wanted: Any, known: Sequence[str]) -> None:
    if not isinstance(wanted, Mapping) or "experiment" not in wanted:
        raise UserError(
            f"{name} must be a mapping with the key experiment (a YAML file) and any "
            f"of {', '.join(known[1:])}, got {wanted!r}."
        )
    for key in wanted:
        if key not in known:
            raise UserError(f"{name}: unknown key {key!r}{hint(key, known)}.")
    path = Path(wanted["experiment"])
    if not path.is_file():
        raise UserError(f"{name}: there is no experiment {path}.")


def _with_inputs_first(experiments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names in such an order that each comes after those that it needs."""
    needed = {name: [] for name in experiments}
    for name, wanted in experiments.items():
        for other in (wanted.get("inputs") or {}).values():
            if other not in experiments:
                raise UserError(
                    f"{name}: its input {other!r} is no experiment of this study"
                    f"{hint(other, list(experiments))}."
                )
            needed[name].append(other)
    try:
        return list(TopologicalSorter(needed).static_order())
    except CycleError as error:
        raise UserError(
            f"{', '.join(error.args[1][1:])}: these need each other's runs in a "
            f"circle, so none can be the first: change their inputs."
        ) from error


def _plan_run(
    name: str,
    wanted: Mapping[str, Any],
    inputs: Mapping[str, PlannedRun],
    seed: int,
    budget: Mapping[str, Any],
    probes: Mapping[str, Mapping[str, Any]],
    runs_folder: str | Path,
) -> PlannedRun:
    folders = {key: str(run.folder) for key, run in inputs.items()}
    overrides = {**(wanted.get("overrides") or {}), **folders}
    if broken := sorted(set(overrides) & {*budget, "seed", "output_folder"}):
        raise UserError(
            f"{name} overrides {', '.join(broken)}, which must be the same for all "
            f"experiments of a study, or is set by it: take it out."
        )
    path = Path(wanted["experiment"])
    settings = {**budget, **overrides, "seed": seed}
    key = _key(path, settings)
    folder = Path(runs_folder) / f"{path.stem}-{seed}-{key}"
    arguments = [str(path), *_options({**settings, "output_folder": str(folder)})]
    commands = [Command(TRAIN, wanted.get("script", TRAIN_SCRIPT), arguments, key)]
    for probe, asked in probes.items():
        path = Path(asked["experiment"])
        settings = {**(asked.get("overrides") or {}), "encoder": str(folder)}
        where = {"output_folder": str(_probe_folder(folder, probe))}
        arguments = [str(path), *_options({**settings, **where})]
        commands.append(Command(probe, "probe.py", arguments, _key(path, settings)))
    return PlannedRun(name, seed, folder, commands, tuple(inputs.values()))


def _probe_folder(folder: Path, probe: str) -> Path:
    return folder / "probes" / probe


def _key(path: Path, settings: Mapping[str, Any]) -> str:
    """A hash of what the experiment and its stages say, not of how they say it."""
    return hash_values(*_texts(path, settings))


def _texts(path: Path, settings: Mapping[str, Any] | None = None) -> Iterator[str]:
    text = resolve_experiment(path, dict(settings or {}))
    yield text
    for stage in parse_yaml(text, str(path)).values():
        if isinstance(stage, Mapping) and "experiment" in stage:
            yield from _texts(Path(stage["experiment"]))


def _check_commands(run: PlannedRun, recipes: Path) -> None:
    """What each command would refuse at once, whenever its turn came."""
    for command in run.commands:
        if not (recipes / command.script).is_file():
            raise UserError(
                f"{run.experiment}: there is no recipe {recipes / command.script}."
            )
        parsed = parse_arguments(command.arguments)
        try:
            check_stage({"experiment": parsed.path, "overrides": parsed.overrides})
        except UserError as error:
            raise UserError(f"{run.experiment}: {error}") from error


def _options(settings: Mapping[str, Any]) -> list[str]:
    """Settings as a command line."""
    options = []
    for key, value in settings.items():
        options += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return options


@dataclass(frozen=True)
class Failure:
    """A command that ended with an error."""

    run: PlannedRun  # its run
    command: Command  # the command
    log: Path  # what it printed


def is_finished(run: PlannedRun, command: Command) -> bool:
    """Tells whether a command of a run has been carried out."""
    return _finished(run.folder).get(command.name) == command.key


def is_complete(run: PlannedRun) -> bool:
    """Tells whether all commands of a run have been carried out."""
    return all(is_finished(run, command) for command in run.commands)


def carry_out(
    runs: Sequence[PlannedRun],
    recipes: str | Path,
    devices: Sequence[str],
    say: Callable[[str], None] = print,
) -> list[Failure]:
    """Runs everything that is not finished yet.

    A run waits until its inputs have been trained. One that fails does not stop the
    others, except those that it is an input of. Ctrl-C stops the commands that are
    running, each of which writes a checkpoint first.
    """
    if not devices:
        raise UserError("devices must name at least one device, for example [cpu].")
    waiting = list(runs)
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
                    if all(_is_trained(other) for other in run.inputs):
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
                failure = _carry_out_run(run, recipes, device, environment, stop, say)
            # Such as a full disk: the others may still go on.
            except (OSError, UserError) as error:
                say(f"{run.experiment}, seed {run.seed} FAILED: {error}")
                failure = Failure(run, run.commands[0], run.folder)
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
        missing = next(other for other in run.inputs if not _is_trained(other))
        say(
            f"{run.experiment}, seed {run.seed} left out: it needs the run of "
            f"{missing.experiment} in {missing.folder}"
        )
    return failures


def _is_trained(run: PlannedRun) -> bool:
    return all(is_finished(run, c) for c in run.commands if c.name == TRAIN)


def _carry_out_run(run, recipes, device, environment, stop, say) -> Failure | None:
    if is_complete(run):
        return None
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
                folder = _probe_folder(run.folder, command.name)
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
    experiment: Experiment, recipes: str | Path
) -> tuple[list[PlannedRun], list[Failure]]:
    """Plans a study, saves it, and runs what is not finished."""
    refuse_run_options(experiment)
    hparams = experiment.hparams
    runs = plan_runs(
        hparams["experiments"],
        hparams["seeds"],
        hparams["budget"],
        hparams.get("probes"),
        hparams["runs_folder"],
    )
    for run in runs[: len(hparams["experiments"])]:  # seeds make no difference
        _check_commands(run, Path(recipes))
    save_experiment(experiment, hparams["output_folder"], study=True)
    if hparams["only_report"]:
        return runs, []
    return runs, carry_out(runs, recipes, hparams["devices"])


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
    return f"python recipes/MuQ/{script} {words}"
