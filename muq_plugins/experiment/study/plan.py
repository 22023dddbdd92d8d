"""What a study runs: a folder and some commands for every experiment and seed.

A folder is named after everything that its run depends on, so studies that share a
folder of runs share the runs too, and a changed setting never meets an old result.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muq_plugins.experiment.files import resolve_experiment
from muq_plugins.experiment.tree import ExperimentError, hint, parse_yaml

EXPERIMENT_KEYS = ("experiment", "label", "overrides", "inputs", "script")
PROBE_KEYS = ("experiment", "overrides")
TRAIN = "train"
TRAIN_SCRIPT = "train.py"


@dataclass(frozen=True)
class Command:
    """One step of a run.

    Arguments
    ---------
    name : str
        "train", or the name of a probe.
    script : str
        The recipe.
    arguments : list of str
        Its command line.
    key : str
        Hash of the settings that its result depends on.

    Example
    -------
    >>> Command("train", "train.py", ["muq.yaml", "--seed", "1"], "1ec3").script
    'train.py'
    """

    name: str
    script: str
    arguments: list[str]
    key: str


@dataclass(frozen=True)
class PlannedRun:
    """One experiment with one seed.

    Arguments
    ---------
    experiment : str
        Its name in the study.
    seed : int
        Of everything that is random in the run.
    folder : Path
        The run folder.
    commands : list of Command
        In order.
    inputs : tuple of PlannedRun
        Runs that must have been trained before.

    Example
    -------
    >>> PlannedRun("bestrq", 1, Path("results/runs/bestrq-1-1ec3"), []).seed
    1
    """

    experiment: str
    seed: int
    folder: Path
    commands: list[Command]
    inputs: tuple[PlannedRun, ...] = ()


def plan_runs(
    experiments: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    budget: Mapping[str, Any],
    probes: Mapping[str, Mapping[str, Any]] | None,
    yaml_folder: str | Path,
    runs_folder: str | Path,
) -> list[PlannedRun]:
    """All runs of a study, one seed after another.

    Arguments
    ---------
    experiments : mapping
        Name to ``experiment`` (a YAML file), ``label`` (for people) and, if wanted,
        ``overrides`` by dotted key, ``inputs`` (dotted key to the name of another
        experiment of the study, whose run folder with the same seed is the value) and
        ``script``, the recipe, if it is not ``train.py``.
    seeds : sequence of int
        Every experiment runs once with each.
    budget : mapping
        Overrides that hold for all experiments, by dotted key.
    probes : mapping or None
        Name to ``experiment`` and ``overrides`` of each probe of the trained encoder.
    yaml_folder : str or Path
        Where the YAML files are.
    runs_folder : str or Path
        Where the run folders are.

    Returns
    -------
    list of PlannedRun
        Every experiment with the first seed, then with the second, ...

    Raises
    ------
    ExperimentError
        If there is nothing to run, a file or key is unknown, an experiment wants
        another budget than the study, or experiments need each other in a circle.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "muq.yaml").write_text(
    ...     "seed: 1\\nsteps: 9\\noutput_folder: x\\ntokenizer: null\\n")
    >>> runs = plan_runs({"base": {"experiment": "muq.yaml", "label": "Base"}}, [1, 2],
    ...                  {"steps": 3}, None, folder, folder / "runs")
    >>> [(run.experiment, run.seed) for run in runs]
    [('base', 1), ('base', 2)]
    >>> runs[0].commands[0].arguments[1:5]
    ['--steps', '3', '--seed', '1']
    """
    if not experiments or not seeds:
        raise ExperimentError("A study needs at least one experiment and one seed.")
    if len(set(seeds)) < len(seeds):
        raise ExperimentError(f"seeds must differ from each other, got {list(seeds)}.")
    for name, wanted in experiments.items():
        _check_entry(name, wanted, yaml_folder, EXPERIMENT_KEYS)
    for name, wanted in (probes or {}).items():
        _check_entry(name, wanted, yaml_folder, PROBE_KEYS)
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
                *(yaml_folder, runs_folder),
            )
    return list(runs.values())


def _check_entry(
    name: str, wanted: Any, yaml_folder: str | Path, known: Sequence[str]
) -> None:
    if not isinstance(wanted, Mapping) or "experiment" not in wanted:
        raise ExperimentError(
            f"{name} must be a mapping with the key experiment (a YAML file) and any "
            f"of {', '.join(known[1:])}, got {wanted!r}."
        )
    for key in wanted:
        if key not in known:
            raise ExperimentError(f"{name}: unknown key {key!r}{hint(key, known)}.")
    path = Path(yaml_folder) / wanted["experiment"]
    if not path.is_file():
        raise ExperimentError(f"{name}: there is no experiment {path}.")


def _with_inputs_first(experiments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names in such an order that each comes after those that it needs."""
    needed = {}
    for name, wanted in experiments.items():
        needed[name] = list((wanted.get("inputs") or {}).values())
        for other in needed[name]:
            if other not in experiments:
                raise ExperimentError(
                    f"{name}: its input {other!r} is no experiment of this study"
                    f"{hint(other, list(experiments))}."
                )
    ordered: list[str] = []
    while len(ordered) < len(experiments):
        ready = [
            name
            for name in experiments
            if name not in ordered and set(needed[name]) <= set(ordered)
        ]
        if not ready:
            circle = ", ".join(name for name in experiments if name not in ordered)
            raise ExperimentError(
                f"{circle}: these need each other's runs in a circle, so none can be "
                f"the first: change their inputs."
            )
        ordered.append(ready[0])
    return ordered


def _plan_run(
    name: str,
    wanted: Mapping[str, Any],
    inputs: Mapping[str, PlannedRun],
    seed: int,
    budget: Mapping[str, Any],
    probes: Mapping[str, Mapping[str, Any]],
    yaml_folder: str | Path,
    runs_folder: str | Path,
) -> PlannedRun:
    folders = {key: str(run.folder) for key, run in inputs.items()}
    overrides = {**(wanted.get("overrides") or {}), **folders}
    if broken := sorted(set(overrides) & {*budget, "seed", "output_folder"}):
        raise ExperimentError(
            f"{name} overrides {', '.join(broken)}, which must be the same for all "
            f"experiments of a study, or is set by it: take it out."
        )
    path = Path(yaml_folder) / wanted["experiment"]
    settings = {**budget, **overrides, "seed": seed}
    key = _key(path, settings)
    folder = Path(runs_folder) / f"{path.stem}-{seed}-{key}"
    arguments = [str(path), *_options({**settings, "output_folder": str(folder)})]
    commands = [Command(TRAIN, wanted.get("script", TRAIN_SCRIPT), arguments, key)]
    for probe, asked in probes.items():
        path = Path(yaml_folder) / asked["experiment"]
        settings = {**(asked.get("overrides") or {}), "encoder": str(folder)}
        where = {"output_folder": str(folder / "probes" / probe)}
        arguments = [str(path), *_options({**settings, **where})]
        commands.append(Command(probe, "probe.py", arguments, _key(path, settings)))
    return PlannedRun(name, seed, folder, commands, tuple(inputs.values()))


def _key(path: Path, settings: Mapping[str, Any]) -> str:
    """A hash of the merged experiment, and of those of its stages."""
    text = resolve_experiment(path, dict(settings))
    merged = text
    for stage in parse_yaml(text, str(path)).values():
        if isinstance(stage, Mapping) and "experiment" in stage:
            merged += resolve_experiment(path.parent / stage["experiment"])
    return hashlib.sha256(merged.encode()).hexdigest()[:8]


def _options(settings: Mapping[str, Any]) -> list[str]:
    """Settings as a command line."""
    options = []
    for key, value in settings.items():
        options += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return options
