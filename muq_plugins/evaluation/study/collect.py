"""From a run folder to its record, and from records to the file of a study.

A record is all that a study reads of a run: its folder is needed no more.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from muq_plugins.errors import UserError
from muq_plugins.evaluation.probing.results import (
    LINEAR,
    TRAINED,
    TaskResult,
    load_predictions,
    load_results,
)
from muq_plugins.evaluation.run_files import (
    METRICS_FILE,
    load_diagnostics,
    read_metrics,
    select,
)
from muq_plugins.evaluation.zero_shot.scores import load_scores
from muq_plugins.files import read_json, replace_file
from muq_plugins.lobes import codes

STUDY_FILE = "study.json"
FORMAT = 2  # in 1, hits are one text; still read
TESTED = ("cross_entropy", "accuracy", "code_entropy")
PACKAGES = ("torch", "speechbrain", "muq_plugins")


def collect_study(
    folder: str | Path,
    about: dict[str, Any],
    records: Iterable[tuple[str, int, str | Path]],
    probes: Iterable[str],
    missing: Iterable[tuple[str, int]],
) -> Path:
    """Writes ``study.json``: what a study asks (``about``) and what its runs gave.

    ``records`` are experiment, seed and record of all that has finished, ``probes`` the
    names of the study's probes, ``missing`` experiment and seed of the rest. Runs of
    experiments that ``about`` does not name are left out.
    """
    probes, named = list(probes), about["experiments"]
    shared: dict[str, dict] = {"tasks": {}, "tests": {}}  # equal for all runs
    runs, machines = [], []
    for experiment, seed, path in records:
        if experiment not in named:
            continue
        record = read_json(path, "delete it; the run is done again")
        run = {"experiment": experiment, "seed": seed, "record": Path(path).stem}
        run |= record["numbers"]
        if probes:
            run["probe"] = {}
        for name, task in record["tasks"].items():
            if name.partition("/")[0] not in probes:
                continue
            _add(shared["tasks"], name, task, path)
            run["probe"][name] = {
                features: scores
                for features, scores in record["probe"][name].items()
                # What the base is compared with too is the same for all.
                if features == TRAINED or experiment == about["base"]
            }
        for name, test in record["tests"].items():
            _add(shared["tests"], name, test, path)
            run.setdefault("scores", {})[name] = record["scores"][name]
        runs.append(run)
        machines.append(record["machine"])
    content = {
        "format": FORMAT,
        **about,
        "machine": _all_of(machines),
        **({"scores": shared["tests"]} if shared["tests"] else {}),
        "tasks": shared["tasks"],
        "runs": runs,
        "missing": [list(pair) for pair in missing if pair[0] in named],
    }
    path = Path(folder) / STUDY_FILE
    replace_file(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


def refuse_loss(folder: str | Path, found: Iterable[tuple[str, int]]) -> None:
    """Refuses to replace a report by one that lacks runs which it tells of."""
    path = Path(folder) / STUDY_FILE
    if not path.is_file():
        return
    remedy = "delete it, and it is written from the records that are there"
    told = [(run["experiment"], run["seed"]) for run in read_json(path, remedy)["runs"]]
    if lost := sorted(set(told) - set(found)):
        named = ", ".join(f"{name} with seed {seed}" for name, seed in lost)
        raise UserError(
            f"{path} tells of {named}, and there is no record of that: give "
            f"records_folder where it is, or leave --only_report out to run it again."
        )


def _add(known: dict[str, dict], name: str, test: dict, path: str | Path) -> None:
    """Takes down what runs were tested with, which must be the same for all."""
    if known.setdefault(name, test) != test:
        raise UserError(
            f"{path} was tested for {name} on other clips than the records before it: "
            f"delete it, and the folder of its run, and run the study again."
        )


def _all_of(machines: list[dict]) -> dict[str, str]:
    """What runs were made on: every value that occurs, of several devices each."""
    found: dict[str, set[str]] = {}
    for machine in machines:
        for key, value in machine.items():
            found.setdefault(key, set()).update(str(value).split(", "))
    return {key: " or ".join(sorted(values)) for key, values in found.items()}


def run_record(
    run_folder: str | Path, probes: Iterable[str], devices: Iterable[str]
) -> dict[str, Any]:
    """All that a study reads of a run that has just ended, on this machine.

    ``probes`` are the names of its probes.
    """
    tasks, read = {}, {}
    for probe in probes:
        folder = Path(run_folder) / "probes" / probe
        for result in load_results(folder):
            name = f"{probe}/{result.label}"
            tasks[name], read[name] = _probe_record(folder, result)
    mulan = load_scores(run_folder)
    tests, scores = _music_record(mulan) if mulan else ({}, {})
    return {
        "machine": describe_machine(devices),
        "numbers": run_numbers(run_folder),
        **{"tasks": tasks, "probe": read, "tests": tests, "scores": scores},
    }


def run_numbers(run_folder: str | Path) -> dict[str, Any]:
    """The numbers of a finished training that a study compares."""
    run_folder = Path(run_folder)
    stage = "mulan" if load_scores(run_folder) else "pretrain"
    rows = select(read_metrics(run_folder / METRICS_FILE), stage=stage)
    test = _last_test(rows, run_folder)
    with safe_open(run_folder / "inference/model.safetensors", "numpy") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]
    numbers = {
        "updates": test["step"],
        "audio_seconds": test["audio_seconds"],
        "training_seconds": round(test["time"], 1),
        "parameters": sum(map(math.prod, shapes)),
    }
    counts = load_diagnostics(run_folder).get("code_counts")
    if stage == "mulan" or counts is None:  # or it has several objectives, or no codes
        return numbers
    learning = select(rows, kind="valid")
    # What the tokenizer cost, which no budget counts, and how good it is.
    tokenizer = run_folder / "tokenizer"
    trained: dict[str, Any] = {}
    if (tokenizer / METRICS_FILE).is_file():
        rows = select(read_metrics(tokenizer / METRICS_FILE), stage="tokenizer")
        trained = _last_test(rows, tokenizer)
    return {
        **numbers,
        "num_codebooks": len(counts),
        "codebook_size": counts.shape[1],
        "learning": {
            "updates": [row["step"] for row in learning],
            "cross_entropy": [_short(row["cross_entropy"]) for row in learning],
        },
        **{name: _short(test[name]) for name in TESTED},
        "entropy_bias": _short(float(codes.entropy_bias(counts).mean())),
        "usage": _short(codes.usage(counts).tolist()),
        "perplexity": _short(codes.perplexity(counts).tolist()),
        "tokenizer_updates": trained.get("step"),
        "tokenizer_audio_seconds": trained.get("audio_seconds"),
        "tokenizer_seconds": round(trained["time"], 1) if trained else None,
        "reconstruction_error_per_level": _short(
            trained.get("reconstruction_error_per_level")
        ),
    }


def _music_record(scores: dict) -> tuple[dict, dict]:
    """What music and text were tested with, equal for all runs, and scores of one."""
    retrieval, tagging = scores["retrieval"], scores["tagging"].get("instrument", {})
    language = next(iter(retrieval))  # English, or that of the captions given
    to_music, to_text = retrieval[language].values()
    names = ("map_at_10", "recall_at_1", "recall_at_5", "recall_at_10", "median_rank")
    places = {name: (to_music, name) for name in names}
    places["music_to_text"] = to_text, "map_at_10"
    if "zh" in retrieval and language != "zh":
        places["chinese"] = retrieval["zh"]["text to music"], "map_at_10"
    if language in tagging:
        for name in ("roc_auc", "average_precision"):
            places[name] = tagging[language], name
    tests, found = {}, {}
    for name, (part, key) in places.items():
        chance = part["chance"]
        if not isinstance(chance, dict):
            chance = {"roc_auc": 0.5, "average_precision": chance}
        tests[name] = {"chance": _short(chance[key])}
        found[name] = {"value": _short(part[key]["value"])}
        queries = part.get("per_query", {})
        if key in queries:
            _, pieces = np.unique(queries["group"], return_inverse=True)
            tests[name]["pieces"] = pieces.tolist()
            found[name]["per_query"] = queries[key]
        elif key in part.get("draws", {}):
            found[name]["draws"] = part["draws"][key]
    return tests, found


def _probe_record(folder: Path, result: TaskResult) -> tuple[dict, dict]:
    """The task, equal for all runs, and the scores of this one."""
    predictions = load_predictions(folder, result.label)
    targets = predictions.get("targets")  # none of frames
    _, pieces = np.unique(predictions["groups"], return_inverse=True)
    task = {
        "level": result.level,
        "chance": _short(result.chance),
        "classes": result.classes,
        **({} if targets is None else {"targets": targets.tolist()}),
        "pieces": pieces.tolist(),
    }
    scores = {}
    for name in dict.fromkeys(row.features for row in result.rows):
        curve = result.curve(name, LINEAR) or [result.row(name, LINEAR, None)]
        chosen = next(index for index, row in enumerate(curve) if row.chosen)
        predicted = predictions[f"{name}/{LINEAR}/{curve[chosen].layer}"]
        scores[name] = {
            "layers": [_short(row.value) for row in curve],
            "chosen": chosen,
            "value": _short(curve[chosen].value),
        }
        if targets is None:
            scores[name]["per_clip"] = _short(predicted.mean(axis=0).tolist())
        else:  # of each initialisation of an untrained encoder
            scores[name]["hits"] = [
                "".join("01"[hit] for hit in hits)
                for hits in (predicted == targets).tolist()
            ]
    return task, scores


def _last_test(rows: list[dict], folder: Path) -> dict:
    found = select(rows, kind="test")
    if not found:
        raise UserError(f"{folder / METRICS_FILE} has no test row: not finished.")
    return found[-1]


def _short(value):
    """Numbers of six digits, which are enough and keep the file small."""
    if isinstance(value, list):
        return [_short(item) for item in value]
    return value if value is None else float(f"{value:.6g}")


def describe_study(hparams: dict[str, Any], command: str) -> dict[str, Any]:
    """What a study's file says before its runs."""
    return {
        "study": hparams["study"],
        "title": hparams["title"],
        "base": hparams["base"],
        "seeds": hparams["seeds"],
        "budget": hparams["budget"],
        "groups": hparams["groups"],
        "questions": hparams["questions"],
        "command": command,
        "experiments": compared_experiments(hparams),
    }


def compared_experiments(hparams: dict[str, Any]) -> dict[str, dict]:
    """All but those that are only there as inputs of others, in no group."""
    wanted = hparams["experiments"]
    inputs = {name: about.get("inputs") or {} for name, about in wanted.items()}
    shown = {name for group in hparams["groups"] for name in group["experiments"]}
    hidden = {name for needed in inputs.values() for name in needed.values()} - shown
    return {
        name: {
            "label": about["label"],
            "file": Path(about["experiment"]).name,
            "overrides": {
                **(about.get("overrides") or {}),
                **{key: f"run of {other}" for key, other in inputs[name].items()},
            },
        }
        for name, about in wanted.items()
        if name not in hidden
    }


def describe_machine(devices: Iterable[str]) -> dict[str, str | int]:
    """Machine, devices ("cpu", "cuda:0") and versions, to be printed beside figures."""
    names = [
        torch.cuda.get_device_name(device) if device.startswith("cuda") else device
        for device in devices
    ]
    return {
        "processor": cpu_name(),
        "cores": os.cpu_count() or 1,
        "device": ", ".join(dict.fromkeys(names)),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def cpu_name() -> str:
    """Name of the processor, as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
