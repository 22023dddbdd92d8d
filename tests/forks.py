"""Processes that start at once: forks of one that has imported what they import.

It has computed nothing, so a command is the same; only seconds of imports are saved.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "MuQ"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.preloaded"])


class Fork:
    """A script, or `muq_plugins`, that runs in a process and a group of its own."""

    def __init__(self, script, *arguments, **environment):
        self.command = [str(part) for part in (script, *arguments)]
        self.folder = TemporaryDirectory()
        environment = {**os.environ, **environment}
        given = self.command, self.folder.name, environment
        self.process = FORKS.Process(target=_run, args=given)
        self.process.start()

    def result(self, timeout=300):
        """Waits for its end, and gives its exit code and what it printed."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.command, timeout)
        with self.folder as folder:
            printed = [Path(folder, name).read_text() for name in ("out", "err")]
        return subprocess.CompletedProcess(
            self.command, self.process.exitcode, *printed
        )

    def kill(self):
        """Kills it, and all that it has started, with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()


def _run(command, folder, environment):
    """Becomes the command, printing into files of the folder."""
    os.setsid()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.argv = command
    if command[0] == "muq_plugins":
        runpy.run_module("muq_plugins", run_name="__main__")
        return
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name="__main__")


def checked(result):
    """The result of a command that ended well."""
    if result.returncode:
        raise AssertionError(
            f"{result.args} ended with {result.returncode}:\n"
            f"{result.stdout}\n{result.stderr}"
        )
    return result


def fork_ranks(script, *arguments, **environment):
    """Forks two processes of a script, in the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    ranks = [
        Fork(script, *arguments, RANK=rank, LOCAL_RANK=rank, **environment)
        for rank in "01"
    ]
    return [rank.result() for rank in ranks]


def in_two_processes(work, folder, *arguments):
    """Has two processes that train together call ``work(rank, folder, ...)``."""
    workers = [
        FORKS.Process(target=_train_together, args=(rank, work, folder, *arguments))
        for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
        worker.kill()
    assert [worker.exitcode for worker in workers] == [0, 0]


def _train_together(rank, work, folder, *arguments):
    """Becomes one of the two, on one thread."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    method = f"file://{Path(folder, 'rendezvous')}"
    dist.init_process_group("gloo", method, world_size=2, rank=rank)
    try:
        work(rank, folder, *arguments)
    finally:
        dist.destroy_process_group()
