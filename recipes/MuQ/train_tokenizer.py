#!/usr/bin/env python3
"""Trains a tokenizer: stage 1 of MuQ (arXiv 2501.01108).

On the embedded corpus, or on any folder of recordings:

> python recipes/MuQ/train_tokenizer.py hparams/mel_rvq.yaml
> python recipes/MuQ/train_tokenizer.py hparams/mel_rvq.yaml --data_folder /my/music
"""

import os
from pathlib import Path

# Before torch is imported: threads that wait for each other must not take the cores
# of other programs. On two busy cores this makes training about ten times faster.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import speechbrain as sb
from speechbrain.utils.distributed import run_on_main

from muq_plugins.data.mel_statistics import normalise
from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.evaluation.inspection import reconstruction_examples
from muq_plugins.evaluation.pages import headline, report
from muq_plugins.evaluation.run_files import save_diagnostics
from muq_plugins.experiment import (
    load_experiment,
    note_inputs,
    run_script,
    save_experiment,
)
from muq_plugins.inference.tokenizer import is_saved_tokenizer, save_tokenizer
from muq_plugins.lobes import Target


def train_tokenizer(experiment):
    """Trains the tokenizer of an experiment and returns its run folder."""
    hparams = experiment.hparams
    folder = Path(hparams["output_folder"])
    if is_saved_tokenizer(folder / "inference", experiment.yaml_text):
        return folder  # an earlier run of the same experiment has finished
    run_on_main(save_experiment, args=[experiment, folder])
    manifests = prepare_manifests(**hparams["data"])
    stage = hparams["modules"]["tokenizer"]
    normalise(stage.features, manifests, hparams["mel_statistics"])
    teacher = getattr(stage.features, "config", {}).get("teacher")
    models = {} if teacher is None else {"teacher": teacher}
    run_on_main(note_inputs, args=[folder, manifests.facts(), models])

    brain = hparams["brain"](
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=experiment.run_opts,
        checkpointer=hparams["checkpointer"],
    )
    train_loader, valid_loader, test_loader = brain.make_loaders(manifests)
    brain.fit(train_loader, valid_loader)
    statistics = brain.validate(test_loader, kind="test")

    def finish():
        target = Target(stage.features, stage.quantizer)
        examples = reconstruction_examples(target, valid_loader.dataset[0].wav[None])
        save_diagnostics(folder, code_counts=statistics.code_counts, **examples)
        page = report(folder)
        save_tokenizer(folder / "inference", target, experiment.yaml_text)
        print("\n".join([*headline(folder), f"Tokenizer report: {page}"]))

    run_on_main(finish)
    return folder


def main(argv):
    """Trains the tokenizer that the command line asks for."""
    experiment = load_experiment(argv)
    sb.utils.distributed.ddp_init_group(experiment.run_opts)
    output_folder = experiment.hparams["output_folder"]
    run_on_main(save_experiment, args=[experiment, output_folder])
    sb.create_experiment_directory(output_folder)
    train_tokenizer(experiment)


if __name__ == "__main__":
    run_script(main)
