#!/usr/bin/env python3
r"""Pre-trains MuQ by masked prediction of a tokenizer's codes (arXiv 2501.01108).

On the embedded corpus, or on any folder of recordings; a tokenizer is trained
first unless one is given:

> python recipes/MuQ/train.py hparams/muq.yaml
> python recipes/MuQ/train.py hparams/muq.yaml --data_folder /my/music \
    --output_folder results/my_music
> python recipes/MuQ/train.py hparams/muq.yaml --tokenizer_folder results/mel_rvq/1234 \
    --output_folder results/muq_of_mel_rvq

Then again on what the model has learned, as often as wanted:

> python recipes/MuQ/train.py hparams/muq_iter.yaml --teacher results/muq/1234
"""

import os
from pathlib import Path

# Before torch is imported: threads that wait for each other must not take the cores
# of other programs. On two busy cores this makes training about ten times faster.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import speechbrain as sb
from speechbrain.utils.distributed import infer_device, run_on_main
from train_tokenizer import (
    open_run,
    prepare,
    stages_of,
    targets_of,
    train_tokenizer,
)

from muq_plugins.brains import PretrainBrain
from muq_plugins.brains.fsdp import check_fsdp
from muq_plugins.errors import UserError
from muq_plugins.evaluation.iterations import iterations_report
from muq_plugins.evaluation.pages import headline, report
from muq_plugins.evaluation.probing.run import probe_run
from muq_plugins.evaluation.run_files import save_diagnostics
from muq_plugins.experiment import (
    each_model,
    load_experiment,
    run_script,
    save_experiment,
    stages,
)
from muq_plugins.inference.folders import find_model
from muq_plugins.inference.muq import save_muq
from muq_plugins.inference.teachers import credits_of


def train(experiment, progress):
    """Trains the model of an experiment and returns its run folder.

    ``progress`` is made by `stages`.
    """
    hparams, run_opts = experiment.hparams, experiment.run_opts
    if "pretrain" not in hparams.get("modules", {}):
        raise UserError(f"{experiment.path} has no student: use train_tokenizer.py.")
    stage = hparams["modules"]["pretrain"]
    check_fsdp(stage, hparams, run_opts)
    open_run(experiment, stage)
    sb.create_experiment_directory(hparams["output_folder"])  # keeps this script
    next(progress)
    manifests = prepare(experiment, stage)

    # The targets: with a tokenizer that is given, or trained first, or as it is made.
    tokenizers = {}
    for name, wanted in targets_of(hparams).items():
        folder, called = wanted["tokenizer_folder"], f"tokenizer{name and '_' + name}"
        if folder is None and wanted["tokenizer"] is not None:
            folder = Path(hparams["output_folder"]) / called
            next(progress)
            train_tokenizer(experiment, wanted, manifests, folder)
        if folder is not None:
            tokenizers[called] = folder
        if wanted["labels"] is not None:
            next(progress)
            target = wanted["target"].to(run_opts.device or infer_device())
            labelled = wanted["labels"].target_for(target, manifests)
            stage.replace_target(target, labelled)

    # The student.
    brain = PretrainBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    train_loader, valid_loader, test_loader = brain.make_loaders(manifests)
    next(progress)
    brain.fit(train_loader, valid_loader)
    next(progress)
    statistics = brain.validate(test_loader, kind="test")

    def finish():
        folder = Path(hparams["output_folder"])
        heard = "; ".join([manifests.heard(), *credits_of(stage)])
        save_muq(folder / "inference", stage.encoder, heard)
        save_diagnostics(folder, **statistics.totals)
        if hparams["final_probe"]:
            probe_run(folder, stage.encoder, manifests.train, manifests.test)
        page = report(folder, tokenizers)
        print("\n".join([*headline(folder), f"Report: {page}"]))

    run_on_main(finish)
    return hparams["output_folder"]


def main(argv):
    """Runs the experiment that the command line asks for."""
    experiment = load_experiment(argv)
    hparams = experiment.hparams
    sb.utils.distributed.ddp_init_group(experiment.run_opts)
    if "iterations" not in hparams:
        train(experiment, stages(stages_of(hparams)))
        return
    folder, models = hparams["output_folder"], each_model(experiment)
    count = hparams["iterations"] + (hparams["teacher"] is None)
    runs = [run for run in [hparams["teacher"]] if run is not None]
    for run in runs:
        find_model(run)
    run_on_main(save_experiment, args=[experiment, folder])
    for number, model in enumerate(models, start=1):
        of = f"Model {number} of {count}, "
        runs.append(train(model, stages(stages_of(model.hparams), of)))
        run_on_main(iterations_report, args=[folder, runs])


if __name__ == "__main__":
    run_script(main)
