"""A run folder is one experiment: what it was made with, and who works in it.

``hyperparams.yaml`` says what all that was learned in the folder was learned with;
``history.jsonl`` has a line for each start, and what changed then.
"""

import copy
import datetime
import hashlib
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from ruamel.yaml.comments import TaggedScalar

from muq_plugins.errors import UserError
from muq_plugins.experiment.extends import parse_yaml, spell, tag_of
from muq_plugins.files import append_json_line, locked, open_json_lines, read_json_lines

HYPERPARAMS = "hyperparams.yaml"
HISTORY = "history.jsonl"
LOCK = "run.lock"

#: Keys of a run that may change from one start to the next, since they do not change
#: what one update learns. All others are refused once something has been learned.
#: What is no key (device, number of processes) may change too, and is noted as well.
MAY_CHANGE = frozenset(
    {
        # How long. The learning rate follows the new limit, which is said.
        "optimizer_step_limit",
        "number_of_epochs",
        "iterations",
        # How often something is written, and how much of it is kept
        "log_interval",
        "valid_interval",
        "ckpt_interval_minutes",
        "ckpt_interval_steps",
        "checkpoints_to_keep",
        "loggers",
        # When to give up or to complain, and what is measured at the end
        "max_bad_fraction",
        "labels.max_bad_fraction",
        "nonfinite_patience",
        "chance_patience",
        "final_probe",
        # Speed and memory
        "num_workers",
        "chunk_size",
        "fsdp",
        "gradient_checkpointing",
        "encoder.gradient_checkpointing",
        "features.batch_size",
        # Where something is kept that says itself what it is
        "output_folder",
        "data.corpus_folder",
        "labels.corpus_folder",
        "clips.prepare.corpus_folder",
        "data.manifest_folder",
        "notes.notes_folder",
        "labels.folder",
        "features.folder",
        "latents_folder",
    }
)

#: A study learns nothing in its folder: each of its runs has one of its own, named
#: after a hash of its values. Only what it is called must stay.
STUDY_FIXED = frozenset({"study", "experiment"})

_logger = logging.getLogger(__name__)
_held: dict[Path, ExitStack] = {}  # locks, until this process ends


def values(text: str) -> dict[str, Any]:
    """What a merged experiment says, by dotted key.

    References stay as they are written, so that a value counts once; comments, order
    and the way numbers are written do not count.
    """
    return dict(_leaves(parse_yaml(text, "the merged experiment"), ()))


def hash_values(*texts: str) -> str:
    """A short hash of what some merged experiments say."""
    content = json.dumps([values(text) for text in texts], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def _leaves(node: Any, location: tuple) -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping; of a mapping that is called, its tag too.

    An empty mapping says nothing, so that a key for further parts changes no hash.
    """
    if not isinstance(node, dict):
        value = _plain(node)
        if location[-1] == "experiment" and str(value).endswith(".yaml"):
            value = Path(value).name  # wherever the command is run
        yield spell(location), value
        return
    if tag_of(node):
        yield spell(location), tag_of(node)
    for key, child in node.items():
        yield from _leaves(child, (*location, key))


def _plain(node: Any) -> Any:
    """A node as JSON can hold it."""
    if isinstance(node, TaggedScalar):
        return f"{tag_of(node)} {' '.join(str(node.value).split())}".strip()
    if isinstance(node, (dict, list)):
        if isinstance(node, dict):
            content: Any = {str(key): _plain(child) for key, child in node.items()}
        else:
            content = [_plain(child) for child in node]
        return {tag_of(node): content} if tag_of(node) else content
    if isinstance(node, float):
        return int(node) if node.is_integer() else float(node)
    if isinstance(node, int) and not isinstance(node, bool):
        return int(node)
    return node if node is None or isinstance(node, bool) else str(node)


def check_run(experiment, folder: str | os.PathLike) -> None:
    """Refuses what `open_run` would, where long work comes before it; writes nothing.

    Of a run that is there, nobody else may take the folder from now on.
    """
    folder = Path(folder)
    _differences(experiment, folder, study=False)
    if (folder / LOCK).exists():
        _hold(folder)


def open_run(experiment, folder: Path, study: bool = False) -> None:
    """Makes sure that an experiment may work in a folder, before anything is written.

    Nobody else may work there until this process ends, except in the folder of a study.
    """
    _differences(experiment, folder, study)
    folder.mkdir(parents=True, exist_ok=True)
    if not study:
        _hold(folder)
    # Again, since another process may have begun in the meantime.
    changed = _differences(experiment, folder, study)
    step = steps_done(folder)
    row = {
        "step": step,
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": _command(experiment.argv),
        "device": experiment.run_opts.device,
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
    }
    before = _last(folder, "command")
    for name in ("device", "processes"):
        if before and before[name] != row[name] and has_results(folder):
            changed[name] = [before[name], row[name]]
    for key, (old, new) in () if study else changed.items():
        _logger.warning(
            f"{folder}: {key} changes from {_shown(old)} to {_shown(new)}, from step "
            f"{step} on."
        )
    if "optimizer_step_limit" in changed and step:
        _logger.warning(_about_learning_rate(experiment, folder, step))
    _note(folder, {**row, "changed": changed})


def note_inputs(folder: str | os.PathLike, data: Mapping, models: Mapping) -> None:
    """Notes what a run learns from, and compares it with what it learned from so far.

    ``data`` describes the music: other music is said, and the run goes on. ``models``
    are hashes of trained models, by what they are: another model is refused.
    """
    folder = Path(folder)
    now, before = {"data": dict(data), "models": dict(models)}, _last(folder, "models")
    step = steps_done(folder)
    if before and has_results(folder):
        others = [
            name
            for name, value in models.items()
            if before["models"].get(name, value) != value
        ]
        if others:
            raise UserError(
                f"{folder}: the {' and the '.join(others)} that this run has learned "
                f"from (up to step {step}) has changed where it lies. Put the "
                f"old one back, or choose another folder (--output_folder ...)."
            )
        if before["data"] != now["data"]:
            _logger.warning(
                f"{folder}: the music has changed since the last start "
                f"({_shown(before['data'])}, now {_shown(now['data'])}). From step "
                f"{step} on the run hears what is there now; choose another folder "
                f"(--output_folder ...) to train on it from the beginning."
            )
    if not before or {name: before[name] for name in now} != now:
        _note(folder, {"step": step, **now})


def _differences(experiment, folder: Path, study: bool) -> dict[str, list]:
    """Values that differ and may; others are an error if anything was learned."""
    path = folder / HYPERPARAMS
    if not path.is_file() or not (study or has_results(folder)):
        return {}
    text = path.read_text(encoding="utf-8")
    old, new, step = values(text), values(experiment.yaml_text), steps_done(folder)
    if "tokenizer.experiment" in old and "tokenizer.experiment" not in new:
        raise UserError(
            f"{folder} was made when a tokenizer had an experiment file of its own: "
            f"finish it with the version that began it (0.1.0), or give this one a "
            f"folder of its own (--output_folder ...). Its models are read as ever."
        )
    changed = {
        key: [old.get(key, "(not there)"), new.get(key, "(not there)")]
        for key in [*new, *(key for key in old if key not in new)]
        if (key not in old or key not in new or not _same(old[key], new[key]))
        and key != "output_folder"  # this one, whatever it is called
    }
    refused = {
        key: pair
        for key, pair in changed.items()
        if (key in STUDY_FIXED if study else not _may_change(key, new))
    }
    # A folder of train_tokenizer.py alone has the checkpoints of that stage.
    alone = any(folder.glob("save/CKPT*/tokenizer.ckpt"))
    name = "tokenizer.optimizer_step_limit" if alone else "optimizer_step_limit"
    limit = new.get(name)
    if isinstance(limit, int) and limit < step:
        refused[name] = [
            old.get(name),
            f"{limit}, which is fewer than are done",
        ]
    if refused:
        done = f" (up to step {step})" if step else ""  # an update, or an epoch
        lines = [
            f"  {key}: {_shown(old)} there, {_shown(new)} here"
            for key, (old, new) in refused.items()
        ]
        more = [f"  and {len(lines) - 20} more"] if len(lines) > 20 else []
        raise UserError(
            "\n".join(
                [
                    f"{folder} holds the results of another experiment{done}:",
                    *lines[:20],
                    *more,
                    "Nothing was changed. Give this one a folder of its own "
                    "(--output_folder ...), or go back to the values that are there"
                    f"{_started_with(text)}.",
                ]
            )
        )
    return changed


def _may_change(key: str, experiment: Mapping[str, Any]) -> bool:
    """Whether a key may change in a folder with results."""
    if key == "optimizer_step_limit":
        # Of all models of an iteration: a teacher that learns on is another teacher.
        return "iterations" not in experiment
    name = re.split(r"overrides\.|^tokenizer\.", key)[-1]
    return name in MAY_CHANGE and not (name != key and name == "optimizer_step_limit")


def _same(old: Any, new: Any) -> bool:
    """Equal, or two names of one file or folder."""
    if old == new and isinstance(old, bool) == isinstance(new, bool):
        return True
    try:
        return isinstance(old, str) and os.path.samefile(old, new)
    except (OSError, TypeError, ValueError):
        return False


def _started_with(text: str) -> str:
    """The command line that stands above the values, if it does."""
    lines = text.splitlines()[:2]
    if len(lines) < 2 or not lines[0].startswith("# Generated from"):
        return ""
    return f" ({lines[1].removeprefix('# ')})"


def has_results(folder: Path) -> bool:
    """Whether a folder holds anything that was learned or measured.

    A run that ended before its first checkpoint leaves nothing: it begins anew.
    """
    results = ("save/CKPT*", "inference", "scores.json", "zero_shot.json")
    stages = [*folder.glob("tokenizer"), *folder.glob("iteration-*")]
    found = any(any(folder.glob(name)) for name in results)
    return found or any(map(has_results, stages))


def steps_done(folder: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    steps = [0]
    for path in folder.glob("save/CKPT*/CKPT.yaml"):
        try:
            steps.append(yaml.safe_load(path.read_text(encoding="utf-8"))["step"])
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            continue  # damaged, which is said when it is to be loaded
    return max(steps)


def _about_learning_rate(experiment, folder: Path, step: int) -> str:
    """What another limit does to the learning rate."""
    text = "The learning rate follows lr_schedule with the new limit"
    schedule = experiment.hparams.get("lr_schedule")
    if schedule is None:
        return f"{text}."
    stand_in = SimpleNamespace(param_groups=[{"lr": 0.0}])
    copy.deepcopy(schedule)(stand_in, step + 1)
    rates = [
        row["lr"]
        for row in read_json_lines(folder / "metrics.jsonl")
        if "lr" in row and row.get("step", 0) <= step
    ]
    last = f"it was {rates[-1]:.3g} up to step {step} and " if rates else "it "
    return f"{text}: {last}goes on at {stand_in.param_groups[0]['lr']:.3g}."


def _hold(folder: Path) -> None:
    """Keeps others out of a folder until this process ends; no worker inherits it."""
    folder = folder.resolve()
    if folder in _held:
        return
    lock = ExitStack()
    if lock.enter_context(locked(folder, LOCK, wait=False)):
        _held[folder] = lock
        return
    who = _last(folder, "command") or {}
    raise UserError(
        f"Another run works in {folder}: process {who.get('pid', '?')} on "
        f"{who.get('host', '?')}, since {who.get('started', '?')} "
        f"({who.get('command', '?')}). Wait for it or stop it, or choose another "
        f"folder (--output_folder ...)."
    )


def _command(argv: list[str]) -> str:
    return " ".join([Path(sys.argv[0]).name, *argv])


def _shown(value: Any) -> str:
    """A value for a message: short, and as a file would have it."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _last(folder: Path, key: str) -> dict | None:
    """The newest line of the history that has a key."""
    rows = read_json_lines(folder / HISTORY)
    return next((row for row in reversed(rows) if key in row), None)


def _note(folder: Path, row: Mapping) -> None:
    with open_json_lines(folder / HISTORY) as file:
        append_json_line(file, dict(row))
