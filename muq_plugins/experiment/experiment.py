"""Loading an experiment: from the command line to objects."""

from __future__ import annotations

import atexit
import dataclasses
import inspect
import itertools
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import ruamel.yaml
import torch.distributed as dist
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml.nodes import MappingNode
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import HELP_TEXTS, RunOptions

from muq_plugins.errors import (
    ENDING,
    Interrupted,
    UserError,
    duration,
    refusal,
    shown,
    words_of,
)
from muq_plugins.experiment.budgets import BUDGETS, OPTION, spend
from muq_plugins.experiment.checks import (
    check_callables,
    check_numbers,
    check_placeholders,
)
from muq_plugins.experiment.command_line import parse_arguments
from muq_plugins.experiment.extends import (
    CALLABLE_TAGS,
    COMMAND_LINE_OPTIONS,
    TRAINING_SETTINGS,
    Location,
    dump_yaml,
    hint,
    parse_yaml,
    resolve_experiment,
    roots_of,
    spell,
)
from muq_plugins.experiment.run_folder import HYPERPARAMS, open_run
from muq_plugins.files import replace_file
from muq_plugins.shipped import find_experiment

logger = get_logger(__name__)

# Libraries that say every step they take, which nobody looks for in the log of a run.
TALKATIVE = (
    "PIL",
    "asyncio",
    "filelock",
    "fsspec",
    "h5py",
    "httpcore",
    "httpx",
    "huggingface_hub",
    "matplotlib",
    "numba",
    "onnx_ir",
    "onnxscript",
    "urllib3",
)


# The recipes of a file, by a key that only such files have.
RECIPES_OF = {
    "save_vectors": ("recipes/MuQ/distil.py", "recipes/MuQ/measure_statistics.py"),
    "iterations": ("recipes/MuQ/train.py",),
    "experiments": ("recipes/MuQ/ablate.py",),
    "text_model": ("recipes/MuQ/train_mulan.py",),
    "prompts": ("recipes/MuQ/zero_shot.py",),
    "reader": ("recipes/MuQ/probe.py",),
    "protocol": ("recipes/MARBLE/probe.py",),
    "epoch_counter": ("recipes/Recognition/train.py",),
}
# Of one with a student or a target, which may have any further keys of one's own.
TRAINING = (
    "recipes/MuQ/train.py",
    "recipes/MuQ/train_tokenizer.py",
    "recipes/MuQ/extract_labels.py",
    "recipes/MuQ/measure_statistics.py",
)


@dataclass(frozen=True)
class Experiment:
    """One experiment, ready to run."""

    hparams: dict[str, Any]  # the values and objects of the YAML file, by key
    # speechBrain's run options, for the Brain and for ``ddp_init_group``
    run_opts: RunOptions
    # the values that the command line gave for keys of the file
    overrides: dict[str, Any]
    # the merged file with the overrides applied; it reproduces the run by itself
    yaml_text: str
    path: Path  # the YAML file that was asked for
    argv: list[str]  # the command line

    def run_opts_of_earlier_stage(self) -> RunOptions:
        """Run options such as the device hold for all stages; training settings given
        on the command line, such as the number of updates, for the one asked for.
        """
        given = self.run_opts.overridden_args - TRAINING_SETTINGS
        return dataclasses.replace(self.run_opts, overridden_args=given)


def load_experiment(argv: list[str]) -> Experiment:
    """Load the experiment that a command line asks for."""
    if {"-h", "--help"} & set(argv):
        _print_help(argv)
        raise SystemExit(0)
    command = parse_arguments(argv)
    path = find_experiment(command.path)
    overrides = command.overrides
    if OPTION in overrides:
        overrides = spend(str(path), overrides)
    text = resolve_experiment(path, overrides)
    _refuse_other_recipes(path, text)
    return Experiment(
        hparams=load_hparams(text),
        run_opts=command.run_opts,
        overrides=overrides,
        yaml_text=text,
        path=path,
        argv=list(argv),
    )


def _refuse_other_recipes(path: Path, text: str) -> None:
    """Refuses a file of another recipe than the one of ours that runs."""
    running = "/".join(Path(sys.argv[0]).resolve().parts[-3:])
    if running not in {*TRAINING, *itertools.chain(*RECIPES_OF.values())}:
        return
    tree = parse_yaml(text, str(path))
    trains = "pretrain" in (tree.get("modules") or {}) or "target" in tree
    keys = ["save_vectors"] if trains else RECIPES_OF
    wanted = next((RECIPES_OF[key] for key in keys if key in tree), None)
    if wanted is None and trains:
        wanted = TRAINING
    if wanted is not None and running not in wanted:
        raise UserError(f"{path} is for {wanted[0]}, not {running}.")


def load_hparams(text: str) -> dict[str, Any]:
    """Build the objects of a merged experiment."""
    _check(text)
    return load_hyperpyyaml(text, loader=_Loader)


def _check(text: str) -> dict[str, Any]:
    """What is wrong with a merged experiment, as far as its text can tell."""
    tree = parse_yaml(text, "the merged experiment")
    check_placeholders(tree)
    check_callables(tree)
    check_numbers(tree)
    return tree


class _Loader(ruamel.yaml.Loader):
    """Says which part of an experiment cannot be built."""

    def construct_object(self, node, *args, **kwargs):
        """Notes the way to each part while it is built."""
        self.way = [*getattr(self, "way", []), node]
        try:
            return super().construct_object(node, *args, **kwargs)
        except UserError:
            raise
        except (ValueError, OSError) as error:
            if not node.tag.startswith(CALLABLE_TAGS):
                raise
            raise UserError(f"{spell(self._location())}: {error}") from error
        finally:
            self.way = self.way[:-1]

    def _location(self) -> Location:
        """The keys that lead to the part that is built."""
        steps = []
        for parent, child in itertools.pairwise(self.way):
            items = enumerate(parent.value)
            if isinstance(parent, MappingNode):
                items = ((key.value, value) for key, value in parent.value)
            steps += [key for key, value in items if value is child][:1]
        return tuple(steps)


def _print_help(argv: list[str]) -> None:
    script = Path(sys.argv[0]).name
    print(f"usage: {script} EXPERIMENT.yaml [--key VALUE ...] [--run_option VALUE ...]")
    if about := inspect.getdoc(sys.modules["__main__"]):
        print(f"\n{about}")
    for path in [argument for argument in argv if argument.endswith(".yaml")][:1]:
        print(f"\nKeys of {path} (nested ones are given with dots):\n")
        print(resolve_experiment(find_experiment(path)))
    else:
        print("\n--help after an experiment file lists its keys.")
    names = "|".join(BUDGETS)
    print(
        f"\n  --{OPTION} {names}\n      Shortens all stages together, for a first look."
    )
    print("\nRun options of SpeechBrain:\n")
    for option in sorted(COMMAND_LINE_OPTIONS):
        print(f"  --{option}\n      {HELP_TEXTS.get(option, 'A list of module keys.')}")


def check_stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Refuses what is known to fail when its turn comes, and gives its plain values.

    Nothing is built, since what it needs may not have been made yet.
    """
    path = Path(stage["experiment"])
    with _named(path):
        return _check(resolve_experiment(path, dict(stage.get("overrides") or {})))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says in which of several files something is wrong."""
    try:
        yield
    except UserError as error:
        known = str(path) in str(error)
        raise UserError(str(error) if known else f"{path}: {error}") from error


def load_stage(experiment: Experiment, stage: dict[str, Any]) -> Experiment:
    """Loads the experiment of an earlier stage, as another experiment wants it."""
    path = Path(stage["experiment"])
    overrides = stage["overrides"]
    text = resolve_experiment(path, overrides)
    return Experiment(
        hparams=load_hparams(text),
        run_opts=experiment.run_opts_of_earlier_stage(),
        overrides=dict(overrides),
        yaml_text=text,
        path=path,
        argv=experiment.argv,
    )


def load_part(path: str | os.PathLike, key: str) -> Any:
    """One object of an experiment, with all that it refers to and nothing else."""
    tree = parse_yaml(resolve_experiment(path), str(path))
    if key not in tree:
        raise UserError(f"{path} has no {key}{hint(key, tree)}.")
    wanted, waiting = set(), [key]
    while waiting:
        wanted.add(name := waiting.pop())
        waiting += [name for name in roots_of(tree[name]) if name not in wanted]
    kept = {name: value for name, value in tree.items() if name in wanted}
    with _named(Path(path)):
        return load_hparams(dump_yaml(kept))[key]


def stages(names: Iterable[str], of: str = "") -> Iterator[None]:
    """Tells, at each `next`, which stage of a run begins, on the main process."""
    names, began = list(names), time.monotonic()
    for number, name in enumerate(names, start=1):
        taken = f", {duration(time.monotonic() - began)} so far" * (number > 1)
        words = f"{of}stage {number} of {len(names)}: {name}{taken}"
        logger.info(words[0].upper() + words[1:])
        yield


def each_model(experiment: Experiment) -> Iterator[Experiment]:
    """Loads the models of an experiment with iterations, one when it is its turn.

    Whoever iterates trains each model before asking for the next one, but what is
    wrong with the files of any is found now. Training settings on the command line,
    such as the number of updates, hold for all of them.
    """
    hparams = experiment.hparams
    teacher, iterations = hparams["teacher"], hparams["iterations"]
    if not isinstance(iterations, int) or iterations < 1:
        raise UserError(
            f"{experiment.path}: iterations is {iterations!r}, but must be a number of "
            f"at least 1: how many models learn from the one before."
        )
    stages = []
    for number in range(0 if teacher is None else 1, iterations + 1):
        folder = f"{hparams['output_folder']}/iteration-{number}"
        stages.append(_model(experiment, teacher, folder))
        teacher = folder
    for stage in stages:
        check_stage(stage)
    return (load_stage(experiment, stage) for stage in stages)


def _model(experiment: Experiment, teacher: str | None, folder: str) -> dict[str, Any]:
    """The stage of one model, with the references to its teacher resolved."""
    overrides = {**experiment.overrides, "teacher": teacher}
    hparams = load_hparams(resolve_experiment(experiment.path, overrides))
    stage = hparams["first"] if teacher is None else hparams["iteration"]
    given = experiment.overrides.items()
    overrides = {
        **hparams["overrides"],
        **stage["overrides"],
        # Such as --optimizer_step_limit: here there is nothing else to set.
        **{name: value for name, value in given if name in TRAINING_SETTINGS},
        "output_folder": folder,
    }
    return {**stage, "overrides": overrides}


def refuse_training_options(run_opts: RunOptions, values: Iterable[str]) -> None:
    """Refuses, where nothing is trained, what only a training follows.

    ``values`` are the keys of the experiment. It would do nothing, but stand beside the
    results as if they were made with it.
    """
    given = run_opts.overridden_args - {"device", "noprogressbar"}
    given |= TRAINING_SETTINGS & set(values)
    if given:
        raise UserError(
            f"{', '.join(sorted(given))}: only a training follows this, and nothing is "
            f"trained here. Leave it out."
        )


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
        raise UserError(
            f"Cannot write {target}: {error}. Choose a folder that you may write to."
        ) from error
    return target


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run a script so that what a person can mend reads as one message.

    So does an interruption, which ends with the exit status of its signal: 130 for
    Ctrl-C, 143 for SIGTERM, 129 for a terminal that was closed.
    """
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with _ended_by_signals():
            main(sys.argv[1:])
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
            # The threads of a group that a DistributedDataParallel has used outlive it.
            # If one meets the end of the interpreter, the process aborts, and torchrun
            # calls a run failed that has done all its work: so end without that end.
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    except UserError as error:
        _end(f"error: {words_of(error)}", 2)
    except KeyboardInterrupt as interruption:
        number = getattr(interruption, "number", signal.SIGINT)
        _end(str(interruption) or "Stopped.", 128 + number)
    except Exception as error:
        if (words := refusal(error)) is None:
            raise
        _end(f"error: {words}", 2)


def _end(words: str, code: int) -> NoReturn:
    print(shown(words), file=sys.stderr)
    raise SystemExit(code)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ends whatever is done as Ctrl-C does, so that what is half done is cleared away.

    What is ignored stays ignored: ``nohup`` says so of closed terminals.
    """

    def end(number: int, frame: object) -> None:
        raise Interrupted(number=number)

    before = {}
    for number in ENDING:
        if signal.getsignal(number) == signal.SIG_DFL:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
