#!/usr/bin/env python3
"""Probes a frozen encoder: what can be read off each of its layers?

On the labels of the embedded corpus and of rendered single notes, on the notes alone,
or on a folder with a CSV file of labels:

> python recipes/MuQ/probe.py hparams/probe.yaml --encoder results/muq/1234
> python recipes/MuQ/probe.py hparams/probe_notes.yaml --encoder results/muq/1234
> python recipes/MuQ/probe.py hparams/probe_csv.yaml --encoder results/muq/1234 \
    --labels_csv /my/labels.csv --group artist --tasks "[{label: genre}]"

Features and finished tasks are kept: a probe that was interrupted goes on.
"""

import os

# Before torch is imported: threads that wait for each other must not take the cores
# of other programs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import speechbrain as sb
from speechbrain.utils.distributed import infer_device

from muq_plugins.evaluation.probing.clips import (
    check_labels,
    corpus_clips,
    corpus_of,
    csv_clips,
)
from muq_plugins.evaluation.probing.features import extractors_of, untrained_like
from muq_plugins.evaluation.probing.page import probing_headline, probing_report
from muq_plugins.evaluation.probing.run import probe
from muq_plugins.evaluation.probing.tasks import make_tasks
from muq_plugins.experiment import (
    check_run,
    load_experiment,
    refuse_training_options,
    run_script,
    save_experiment,
)
from muq_plugins.inference.muq import MuQ


def find_tasks(hparams):
    """What is probed for, and the clips of a CSV file; refuses labels of no clip."""
    tasks = make_tasks(hparams["tasks"], hparams["group"])
    if hparams["labels_csv"] is None:
        check_labels([task.key for task in tasks], hparams["corpora"])
        return tasks, None
    corpus = csv_clips(
        hparams["labels_csv"],
        hparams["audio_folder"],
        hparams["path_column"],
        hparams["split_column"],
    )
    corpora = [corpus]
    for task in tasks:
        corpus_of(task.key, corpora)
    return tasks, corpora


def main(argv):
    """Runs the probe that the command line asks for."""
    experiment = load_experiment(argv)
    hparams, run_opts = experiment.hparams, experiment.run_opts
    refuse_training_options(run_opts, hparams)
    folder = hparams["output_folder"]
    check_run(experiment, folder)
    tasks, corpora = find_tasks(hparams)
    model = MuQ.from_pretrained(
        hparams["encoder"], device=run_opts.device or infer_device()
    )
    save_experiment(experiment, folder)
    sb.create_experiment_directory(folder)
    if corpora is None:
        corpora = [corpus_clips(prepare()) for prepare in hparams["corpora"]]
    trained, features = model.mods.encoder, hparams["features"]
    clips = [clip for corpus in corpora for clip in corpus]
    untrained = untrained_like(trained, hparams["untrained_seeds"], clips, features)
    results = probe(
        folder,
        extractors_of(trained, untrained),
        corpora,
        tasks,
        features,
        hparams["reader"],
        hparams["seeds"],
        progress=not run_opts.noprogressbar,
    )
    report = probing_report(folder, str(hparams["encoder"]))
    print("\n".join([*probing_headline(results), f"Report: {report}"]))


if __name__ == "__main__":
    run_script(main)
