"""Runs a recipe in child processes and kills them, without importing it each time.

`python kill_driver.py PLAN.json` where the plan holds the script's arguments and
a list of delays in seconds. For each delay a child runs the script and is killed with
SIGKILL that long after its first checkpoint is asked for; a last child runs to the end.

A child is a fork of this process, which has imported everything and computed
nothing: the command is the same, only seconds of imports are saved.
"""

import json
import os
import random
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "MuQ" / "train.py"


def main(plan):
    sys.path.insert(0, str(SCRIPT.parent))
    script = runpy.run_path(str(SCRIPT), run_name="recipe")
    save, outcomes = Path(plan["save"]), []
    generator = random.Random(plan["seed"])
    for _ in range(plan["kills"]):
        child = start(script, plan["arguments"])
        # Wait until this child has begun to work, then for a random moment: it may be
        # anywhere in a step, in validation, or in the middle of writing a checkpoint.
        marker = newest(save)
        while newest(save) == marker and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.002)
        time.sleep(generator.uniform(0.0, plan["longest_delay"]))
        try:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            outcomes.append(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
        except (ProcessLookupError, ChildProcessError):
            outcomes.append(0)  # it had finished before
    _, status = os.waitpid(start(script, plan["arguments"]), 0)
    print(json.dumps({"kills": outcomes, "last": os.waitstatus_to_exitcode(status)}))


def newest(save):
    """What the folder of checkpoints holds now, a half-written one included."""
    # os.walk passes over a folder that vanishes meanwhile; rglob raises.
    return sorted(
        f"{top}/{name}" for top, inner, files in os.walk(save) for name in inner + files
    )


def start(script, arguments):
    """Forks a child that runs the script as a user would."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(os.devnull, os.O_WRONLY)
        os.dup2(log, 1)
        script["main"](arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
