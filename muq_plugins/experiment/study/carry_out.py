"""Carrying out a study: one command after another on each device.

Every command is a process of its own, as a person would start it. What is finished is
noted in its run folder and never done again; what was interrupted goes on.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from muq_plugins.experiment.study.plan import TRAIN, Command, PlannedRun

FINISHED_FILE = "finished.json"
LOCK_FILE = "study.lock"
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Failure:
    """A command that ended with an error.

    Arguments
    ---------
    run : PlannedRun
        Its run.
    command : Command
        The command.
    log : Path
        What it printed.

    Example
    -------
    >>> Failure(PlannedRun("bestrq", 1, Path("x"), []), None, Path("x/train.log")).log
    PosixPath('x/train.log')
    """

    run: PlannedRun
    command: Command
    log: Path


def is_finished(run: PlannedRun, command: Command) -> bool:
    """Tells whether a command of a run has been carried out.

    Arguments
    ---------
    run : PlannedRun
        The run.
    command : Command
        One of its commands.

    Returns
    -------
    bool
        False if it never was, or with other settings.

    Example
    -------
    >>> command = Command("train", "train.py", [], "1ec3")
    >>> is_finished(PlannedRun("muq", 1, Path("nowhere"), [command]), command)
    False
    """
    return _finished(run.folder).get(command.name) == command.key


def is_complete(run: PlannedRun) -> bool:
    """Tells whether all commands of a run have been carried out.

    Arguments
    ---------
    run : PlannedRun
        The run.

    Returns
    -------
    bool
        False if any of them was not, or with other settings.

    Example
    -------
    >>> command = Command("train", "train.py", [], "1ec3")
    >>> is_complete(PlannedRun("muq", 1, Path("nowhere"), [command]))
    False
    """
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

    Arguments
    ---------
    runs : sequence of PlannedRun
        What to run.
    recipes : str or Path
        Folder of the scripts.
    devices : sequence of str
        One run at a time on each entry: ``["cpu"]``, ``["cuda:0", "cuda:1"]``. An
        entry may occur several times; the CPU's cores are then shared out.
    say : callable
        Is told a line whenever a command starts or ends.

    Returns
    -------
    list of Failure
        What went wrong; the commands after a failed one are left out.

    Raises
    ------
    ValueError
        If no device is given.
    KeyboardInterrupt
        If it was stopped.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "train.py").write_text("import sys; print(sys.argv[1])")
    >>> run = PlannedRun("a", 1, folder / "run", [Command("train", "train.py", ["hi"],
    ...                                                   "1ec3")])
    >>> carry_out([run], folder, ["cpu"], say=lambda line: None)
    []
    >>> (folder / "run" / "train.log").read_text().splitlines()[0]
    'hi'
    """
    if not devices:
        raise ValueError("devices must name at least one device, for example [cpu].")
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
            except OSError as error:  # such as a full disk: the others may still go on
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
    except KeyboardInterrupt:
        stop.set()
        for thread in threads:
            thread.join()
        raise
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
    # The commands inherit the open file, so the lock outlives a study that is killed
    # for as long as its last command runs on.
    with open(run.folder / LOCK_FILE, "w") as lock:
        if not _lock(lock, run, stop, say):
            return None
        for command in run.commands:
            if is_finished(run, command):
                continue
            name = f"{run.experiment}, seed {run.seed}: {command.name}"
            log = run.folder / f"{command.name}.log"
            say(f"{name} on {device} ...")
            start = time.monotonic()
            status = _run(command, recipes, device, environment, stop, lock, log)
            if stop.is_set():
                return None
            if status:
                say(f"{name} FAILED with {status}; see {log}")
                return Failure(run, command, log)
            _note(run.folder, command)
            say(f"{name} done in {time.monotonic() - start:.0f} s")
    return None


def _lock(lock, run, stop, say) -> bool:
    """Waits until nobody else works in the folder; False if told to stop."""
    told = False
    while not stop.is_set():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if not told:
                say(f"Waiting for another process that works in {run.folder} ...")
                told = True
            time.sleep(POLL_SECONDS)
    return False


def _run(command, recipes, device, environment, stop, lock, log) -> int:
    """Runs one command to its end and returns its exit status."""
    script = str(Path(recipes) / command.script)
    options = ["--device", device, "--noprogressbar"]
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, script, *command.arguments, *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[lock.fileno()],
        )
        while process.poll() is None:
            if stop.wait(POLL_SECONDS):
                process.terminate()
                return process.wait()
    return process.returncode


def _finished(folder: Path) -> dict[str, str]:
    path = folder / FINISHED_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _note(folder: Path, command: Command) -> None:
    """Remembers that a command has finished, whole or not at all."""
    content = json.dumps({**_finished(folder), command.name: command.key}, indent=1)
    partial = folder / f"{FINISHED_FILE}.partial"
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, folder / FINISHED_FILE)
