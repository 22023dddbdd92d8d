"""What a study runs: a folder and some commands for every experiment and seed.

A folder is named after everything that its run depends on, so studies that share a
folder of runs share the runs too, and a changed setting never meets an old result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from muq_plugins.errors import UserError
from muq_plugins.experiment.extends import hint, parse_yaml, resolve_experiment
from muq_plugins.experiment.run_folder import hash_values

EXPERIMENT_KEYS = ("experiment", "label", "overrides", "inputs", "script")
PROBE_KEYS = ("experiment", "overrides")
TRAIN = "train"
TRAIN_SCRIPT = "train.py"


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
    record: Path  # the file of what it has found, unless another study has it
    settings: Mapping[str, Any]  # what differs from its experiment file
    commands: list[Command]  # in order
    inputs: tuple[PlannedRun, ...] = ()  # runs that must have been trained before


def plan_runs(
    experiments: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    budget: Mapping[str, Any],
    probes: Mapping[str, Mapping[str, Any]] | None,
    runs_folder: str | Path,
    records_folder: str | Path,
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
                *(Path(runs_folder), Path(records_folder)),
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
    runs_folder: Path,
    records_folder: Path,
) -> PlannedRun:
    # A run goes by the name of its folder, so that keys are the same on any machine.
    names = {key: run.folder.name for key, run in inputs.items()}
    folders = {key: str(run.folder) for key, run in inputs.items()}
    overrides = {**(wanted.get("overrides") or {}), **names}
    if broken := sorted(set(overrides) & {*budget, "seed", "output_folder"}):
        raise UserError(
            f"{name} overrides {', '.join(broken)}, which must be the same for all "
            f"experiments of a study, or is set by it: take it out."
        )
    path = Path(wanted["experiment"])
    settings = {**budget, **overrides, "seed": seed}
    key = _key(path, settings)
    folder = runs_folder / f"{path.stem}-{seed}-{key}"
    here = {**settings, **folders, "output_folder": str(folder)}
    script = wanted.get("script", TRAIN_SCRIPT)
    commands = [Command(TRAIN, script, [str(path), *_options(here)], key)]
    for probe, asked in probes.items():
        file, changes = Path(asked["experiment"]), asked.get("overrides") or {}
        key = _key(file, {**changes, "encoder": folder.name})
        where = {"encoder": str(folder)}
        where["output_folder"] = str(probe_folder(folder, probe))
        arguments = [str(file), *_options({**changes, **where})]
        commands.append(Command(probe, "probe.py", arguments, key))
    record = records_folder / f"{folder.name}.json"
    needed = tuple(inputs.values())
    return PlannedRun(name, seed, folder, record, settings, commands, needed)


def probe_folder(folder: Path, probe: str) -> Path:
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


def _options(settings: Mapping[str, Any]) -> list[str]:
    """Settings as a command line."""
    options = []
    for key, value in settings.items():
        options += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return options
