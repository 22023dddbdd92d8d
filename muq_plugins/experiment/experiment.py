"""Loading an experiment: from the command line to objects.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.run_opts import HELP_TEXTS, RunOptions

from muq_plugins.experiment.arguments import parse_arguments
from muq_plugins.experiment.checks import check_callables, check_placeholders
from muq_plugins.experiment.files import resolve_experiment
from muq_plugins.experiment.run_options import COMMAND_LINE_OPTIONS
from muq_plugins.experiment.tree import parse_yaml


@dataclass(frozen=True)
class Experiment:
    """One experiment, ready to run.

    Arguments
    ---------
    hparams : dict
        The values and objects of the YAML file, by key.
    run_opts : RunOptions
        SpeechBrain's run options, for the Brain and for ``ddp_init_group``.
    overrides : dict
        The values that the command line gave for keys of the file.
    yaml_text : str
        The merged file with the overrides applied; it reproduces the run by itself.
    path : Path
        The YAML file that was asked for.
    argv : list of str
        The command line.

    Example
    -------
    >>> file = getfixture("tmp_path") / "muq.yaml"
    >>> _ = file.write_text("name: ab\\ncount: !new:collections.Counter [!ref <name>]")
    >>> experiment = load_experiment([str(file), "--name", "aab"])
    >>> experiment.hparams["count"]
    Counter({'a': 2, 'b': 1})
    """

    hparams: dict[str, Any]
    run_opts: RunOptions
    overrides: dict[str, Any]
    yaml_text: str
    path: Path
    argv: list[str]


def load_experiment(argv: list[str]) -> Experiment:
    """Load the experiment that a command line asks for.

    Arguments
    ---------
    argv : list of str
        ``sys.argv[1:]``: the YAML file, then ``--key value`` for its keys (nested
        ones with dots) and for SpeechBrain's run options.

    Returns
    -------
    Experiment
        With all its objects built. Processes are not yet connected: call
        ``speechbrain.utils.distributed.ddp_init_group(experiment.run_opts)`` next.

    Raises
    ------
    ExperimentError
        If the file or the command line is wrong.

    Example
    -------
    >>> file = getfixture("tmp_path") / "muq.yaml"
    >>> _ = file.write_text("seed: 1\\nencoder: {num_layers: 2}\\n")
    >>> argv = [str(file), "--encoder.num_layers", "4", "--device", "cpu"]
    >>> load_experiment(argv).hparams
    {'seed': 1, 'encoder': {'num_layers': 4}}
    """
    if {"-h", "--help"} & set(argv):
        _print_help(argv)
        raise SystemExit(0)
    command = parse_arguments(argv)
    text = resolve_experiment(command.path, command.overrides)
    return Experiment(
        hparams=load_hparams(text),
        run_opts=command.run_opts,
        overrides=command.overrides,
        yaml_text=text,
        path=Path(command.path),
        argv=list(argv),
    )


def load_hparams(text: str) -> dict[str, Any]:
    """Build the objects of a merged experiment.

    Arguments
    ---------
    text : str
        What ``resolve_experiment`` gives.

    Returns
    -------
    dict
        Values and objects by key.

    Raises
    ------
    ExperimentError
        If a value is still missing, or a class, function or argument is unknown.

    Example
    -------
    >>> load_hparams("width: 2\\nact: !new:torch.nn.Linear [!ref <width>, 3]")["act"]
    Linear(in_features=2, out_features=3, bias=True)
    """
    tree = parse_yaml(text, "the merged experiment")
    check_placeholders(tree)
    check_callables(tree)
    return load_hyperpyyaml(text)


def _print_help(argv: list[str]) -> None:
    script = Path(sys.argv[0]).name
    print(f"usage: {script} EXPERIMENT.yaml [--key VALUE ...] [--run_option VALUE ...]")
    for path in [argument for argument in argv if argument.endswith(".yaml")][:1]:
        print(f"\nKeys of {path} (nested ones are given with dots):\n")
        print(resolve_experiment(path))
    print("\nRun options of SpeechBrain:\n")
    for option in sorted(COMMAND_LINE_OPTIONS):
        print(f"  --{option}\n      {HELP_TEXTS.get(option, 'A list of module keys.')}")
