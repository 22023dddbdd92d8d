"""Running an experiment: the file that reproduces it, and mistakes as one message.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import os
import shlex
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from muq_plugins.experiment.experiment import Experiment
from muq_plugins.experiment.tree import ExperimentError


def save_experiment(experiment: Experiment, folder: str | os.PathLike) -> Path:
    """Write the merged experiment as ``hyperparams.yaml``, whole or not at all.

    Arguments
    ---------
    experiment : Experiment
        What to save.
    folder : str or PathLike
        Where; made if it is not there. In distributed runs call this on the main
        process only.

    Returns
    -------
    Path
        The file. Running it gives the same experiment.

    Raises
    ------
    ExperimentError
        If the folder cannot be written.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "muq.yaml").write_text("seed: 1\\n")
    >>> from muq_plugins.experiment import load_experiment
    >>> experiment = load_experiment([str(folder / "muq.yaml"), "--seed=2"])
    >>> save_experiment(experiment, folder / "results").name
    'hyperparams.yaml'
    """
    header = (
        f"Generated from {experiment.path} with the arguments:\n"
        f"{shlex.join(experiment.argv)}"
    )
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    folder = Path(folder)
    target = folder / "hyperparams.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A name of its own, as two runs may share the folder; no ".yaml", as an
        # interrupted write must not look like an experiment.
        partial = folder / f".hyperparams-{uuid.uuid4().hex}"
        try:
            partial.write_text(comment + experiment.yaml_text, encoding="utf-8")
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
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
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as interruption:
        print(interruption or "Stopped.", file=sys.stderr)
        raise SystemExit(130) from None
