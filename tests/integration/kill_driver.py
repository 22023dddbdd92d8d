"""Runs a command in child processes and kills them, without importing it each time.

`python kill_driver.py PLAN.json` where the plan holds a recipe's script (or
"muq-plugins"), its arguments, the folder that it writes into, how many kills, and the
longest delay in seconds. Each child is killed with SIGKILL, with all that it started,
at a random moment after it first wrote something; a last child runs to the end.

A child is a fork of this process, which has imported everything and computed
nothing: the command is the same, only seconds of imports are saved.
"""

import importlib
import json
import os
import random
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "MuQ"
#: What the command line loads on first use.
LATE = ("inference.cli.encoder", "inference.cli.index", "inference.cli.work")


def main(plan):
    command = load(plan["script"])
    written, outcomes = Path(plan["written"]), []
    generator = random.Random(plan["seed"])
    for _ in range(plan["kills"]):
        # Wait until this child has begun to work, then for a random moment: it may be
        # anywhere in a step, in validation, or in the middle of writing a file.
        before = newest(written)
        child = start(command, plan["arguments"])
        while newest(written) == before and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.002)
        time.sleep(generator.uniform(0.0, plan["longest_delay"]))
        try:
            os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            outcomes.append(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
        except (ProcessLookupError, ChildProcessError):
            outcomes.append(0)  # it had finished before
    _, status = os.waitpid(start(command, plan["arguments"]), 0)
    print(json.dumps({"kills": outcomes, "last": os.waitstatus_to_exitcode(status)}))


def load(script):
    """The command as a function of its arguments."""
    if script == "muq-plugins":
        for name in LATE:
            importlib.import_module(f"muq_plugins.{name}")
        from muq_plugins.inference.cli.main import main as command

        return command
    sys.path.insert(0, str(RECIPES))
    return runpy.run_path(str(RECIPES / script), run_name="recipe")["main"]


def newest(folder):
    """What the folder holds now, half-written files included."""
    # os.walk passes over a folder that vanishes meanwhile; rglob raises.
    found = []
    for top, inner, files in os.walk(folder):
        for name in inner + files:
            try:
                found.append((f"{top}/{name}", os.stat(f"{top}/{name}").st_mtime_ns))
            except FileNotFoundError:
                pass
    return sorted(found)


def start(command, arguments):
    """Forks a child, with a group of its own, that runs it as a user would."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        log = os.open(os.devnull, os.O_WRONLY)
        os.dup2(log, 1)
        code = command(arguments) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
