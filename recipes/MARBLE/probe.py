#!/usr/bin/env python3
"""MARBLE: how good is a frozen encoder on published tasks of music?

> python recipes/MARBLE/probe.py hparams/marble/gtzan_genre.yaml \
    --data_folder /data/GTZAN --encoder results/muq/1234
> python recipes/MARBLE/probe.py hparams/marble/all.yaml --data_root /data \
    --encoder OpenMuQ/MuQ-large-msd-iter --protocol v1_constrained

On the embedded corpus, or on labels of your own:

> python recipes/MARBLE/probe.py hparams/marble/embedded.yaml \
    --encoder results/muq/1234
> python recipes/MARBLE/probe.py hparams/marble/own.yaml --encoder results/muq/1234 \
    --labels.path /my/labels.csv --labels.group artist --tasks "[{label: genre}]"

Features and finished layers are kept: what was interrupted goes on.
"""

import os

# Before torch is imported: threads that wait for each other must not take the cores
# of other programs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from functools import lru_cache
from pathlib import Path

import speechbrain as sb
from speechbrain.utils.distributed import infer_device

from muq_plugins.errors import UserError
from muq_plugins.evaluation.marble.own import OWN, own_task
from muq_plugins.evaluation.marble.page import marble_headline, marble_report
from muq_plugins.evaluation.marble.protocols import find_protocol
from muq_plugins.evaluation.marble.run import marble_task
from muq_plugins.evaluation.marble.similarity import (
    SIMILARITY_TASKS,
    Compared,
    open_similarity,
    similarity_results,
)
from muq_plugins.evaluation.marble.task import open_task
from muq_plugins.evaluation.marble.tasks import TASKS, find_task
from muq_plugins.evaluation.probing.clips import check_seeds
from muq_plugins.evaluation.probing.features import (
    ChromaFrames,
    FeatureSettings,
    HiddenStates,
    LogMelFrames,
    untrained_like,
)
from muq_plugins.evaluation.probing.results import predictions_file, save_results
from muq_plugins.experiment import (
    check_run,
    load_experiment,
    load_part,
    refuse_training_options,
    run_script,
    save_experiment,
)
from muq_plugins.inference.cli.options import pick_device
from muq_plugins.inference.encoders import load_encoder

PLAIN = {"log_mel": LogMelFrames, "chroma": ChromaFrames}
UNTRAINED = "untrained:"


def listed(name, value):
    """A list, of which a single entry may be given without brackets."""
    if isinstance(value, str | dict):
        return [value]
    if not isinstance(value, list):
        raise UserError(f"{name} must be a list, such as [one, other], got {value!r}.")
    return value


def check(hparams):
    """Refuses mistakes that would show after hours, or never."""
    for name in ("seeds", "untrained_seeds"):
        check_seeds(hparams[name], name)
    features, folders = hparams["features"], hparams["folders"]
    if features.folder is None:
        raise UserError("features.folder must be a folder: probes read from its files.")
    plain = FeatureSettings(features.folder, batch_size=features.batch_size)
    if features != plain:
        raise UserError(
            "features.window_seconds and features.max_windows are of "
            "recipes/MuQ/probe.py: MARBLE hears whole recordings, in the clips of a "
            "task (own_clips on labels of your own). Leave them out."
        )
    if not isinstance(folders, dict):
        raise UserError(
            "folders must be a mapping from data sets to their folders in data_root, "
            f"such as {{GTZAN: gtzan-genre}}, got {folders!r}."
        )
    known = {one.sheet.name for one in (*TASKS.values(), *SIMILARITY_TASKS.values())}
    for name in folders:
        if name not in known:
            raise UserError(
                f"folders: there is no data set {name!r}. There are: "
                f"{', '.join(sorted(known))}."
            )
    if folders and hparams["data_root"] is None:
        raise UserError("folders are names in data_root, which is not given.")


def find_tasks(hparams):
    """The tasks of an experiment: published ones by name, mappings on own labels."""
    labels, found = hparams["labels"] and lru_cache(hparams["labels"]), {}
    for one in listed("tasks", hparams["tasks"]):
        if isinstance(one, dict):
            task = own_task(one, labels, **hparams["own_clips"])
        else:
            task = find_task(one)
        file = predictions_file("", task.name).name
        if file in found:
            raise UserError(
                f"The tasks {found[file].name!r} and {task.name!r} would both be kept "
                f"in {file}: leave one out, or run it with another output_folder."
            )
        found[file] = task
    return [*found.values()]


def open_tasks(hparams, protocol):
    """The tasks whose data are there; says of the others what they lack."""
    opened, root = [], hparams["data_root"]
    tasks = find_tasks(hparams)
    for task in tasks:
        if task.sheet is OWN:  # before a corpus is rendered
            protocol.plan(task)
    for task in tasks:
        if task.sheet is OWN:
            opened.append(open_task(task, "", hparams["leave_out_missing"]))
            continue
        is_similarity = task.name in SIMILARITY_TASKS
        folder = hparams["data_folder"]
        if root is not None:
            folder = Path(root) / hparams["folders"].get(
                task.sheet.name, task.sheet.name
            )
        if folder is None:
            raise UserError("Give data_folder, or data_root for several data sets.")
        try:
            if not is_similarity:
                protocol.plan(task)
            if root is not None and not folder.is_dir():
                raise task.sheet.lacks(folder, "there is no such folder.")
            open_one = open_similarity if is_similarity else open_task
            opened.append(open_one(task, folder, hparams["leave_out_missing"]))
        except UserError as error:
            if root is None:
                raise
            print(f"Left out: {task.name}. {error}")
    if not opened:
        raise UserError(f"None of the {len(tasks)} tasks can be done.")
    return opened


def find_devices(hparams, run_opts):
    """Where encoders run: side by side on all of `devices`, or on that of --device."""
    names = hparams["devices"]
    if names is None:
        return [run_opts.device or infer_device()]
    if run_opts.device is not None:
        raise UserError("Give --device, or --devices for several, not both.")
    if not names or not isinstance(names, list):
        raise UserError(
            f"devices must be a list such as [cuda:0, cuda:1], or null, got {names!r}."
        )
    return [pick_device(str(name)) for name in names]


def make_extractors(source, hparams, devices, recordings):
    """What a name in `encoder` or `beside` reads: several if it has initialisations."""
    device, *others = devices
    if source in PLAIN:
        return [PLAIN[source]()]
    name = source.removeprefix(UNTRAINED)
    if name == source:
        return [HiddenStates(load_encoder(name, device), others)]
    if name.endswith((".yaml", ".yml")):
        encoder = load_part(name, "encoder").to(device)
    else:
        encoder = load_encoder(name, device, trained=False)
    seeds, features = hparams["untrained_seeds"], hparams["features"]
    untrained = untrained_like(encoder, seeds, recordings, features)
    return [HiddenStates(one, others) for one in untrained]


def describe(name, extractors):
    """What an encoder reads, in a line."""
    first, count = extractors[0], len(extractors)
    return (
        f"{name}: {first.sample_rate} Hz, {first.frame_rate:g} frames a second, "
        f"{first.layers} hidden states{f', {count} initialisations' * (count > 1)}."
    )


def main(argv):
    """Does the tasks that the command line asks for."""
    experiment = load_experiment(argv)
    hparams, run_opts = experiment.hparams, experiment.run_opts
    refuse_training_options(run_opts, hparams)
    check(hparams)
    beside = listed("beside", hparams["beside"])
    protocol, folder = find_protocol(hparams["protocol"]), hparams["output_folder"]
    devices = find_devices(hparams, run_opts)
    check_run(experiment, folder)
    opened = open_tasks(hparams, protocol)
    recordings = [one for task in opened for one in task.recordings]
    names = dict.fromkeys([str(hparams["encoder"]), *beside])
    encoders = {
        name: make_extractors(name, hparams, devices, recordings) for name in names
    }
    print("\n".join(describe(*one) for one in encoders.items()))
    save_experiment(experiment, folder)
    sb.create_experiment_directory(folder)
    results, features = [], hparams["features"]
    show = not run_opts.noprogressbar
    for task in opened:
        kept = features.folder, features.batch_size, show
        if isinstance(task, Compared):
            results += similarity_results(task, encoders, *kept)
        else:
            work = task, encoders, protocol, hparams["seeds"]
            results.append(marble_task(*work, *kept))
        save_results(folder, results)
    report = marble_report(folder, f"{hparams['encoder']}, {protocol.name}")
    print("\n".join([*marble_headline(results), f"Report: {report}"]))


if __name__ == "__main__":
    run_script(main)
