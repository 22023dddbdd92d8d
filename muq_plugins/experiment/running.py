"""Running an experiment: the file that reproduces it, and mistakes as one message.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from muq_plugins.errors import UserError
from muq_plugins.experiment.experiment import Experiment
from muq_plugins.experiment.run_folder import HYPERPARAMS, open_run
from muq_plugins.experiment.tree import ExperimentError
from muq_plugins.files import replace_file


def save_experiment(
    experiment: Experiment, folder: str | os.PathLike, study: bool = False
) -> Path:
    """Begins a run: the folder is this experiment's, and its alone while it runs.

    Results of another experiment are left as they are, and so is a folder in which
    somebody works; else ``hyperparams.yaml`` says what to run to get the same. In
    distributed runs call this on the main process only.
    """
    header = (
        f"Generated from {experiment.path} with the arguments:\n"
        f"{shlex.join(experiment.argv)}"
    )
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    target = Path(folder) / HYPERPARAMS
    try:
        open_run(experiment, target.parent, study)
        replace_file(target, (comment + experiment.yaml_text).encode())
    except OSError as error:
        raise ExperimentError(
            f"Cannot write {target}: {error}. Choose a folder that you may write to."
        ) from error
    return target


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run a script so that mistakes in experiments read as one message.

    So does an interruption with Ctrl-C, which ends with the exit status 130.

    Arguments
    ---------
    main : Callable
        Takes ``sys.argv[1:]``.

    Example
    -------
    >>> def main(argv):
    ...     raise ExperimentError("muq.yaml: unknown key 'sede'")
    >>> run_script(main)
    Traceback (most recent call last):
    ...
    SystemExit: 2
    """
    try:
        main(sys.argv[1:])
        # Else the threads of the process group are torn down whenever the interpreter
        # gets to them, which aborts a run that has done all its work now and then.
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
    except (ExperimentError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as interruption:
        print(interruption or "Stopped.", file=sys.stderr)
        raise SystemExit(130) from None
