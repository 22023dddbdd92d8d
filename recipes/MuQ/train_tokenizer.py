#!/usr/bin/env python3
"""Trains a tokenizer: stage 1 of MuQ (arXiv 2501.01108).

On the embedded corpus, or on any folder of recordings; of any pre-training file:

> python recipes/MuQ/train_tokenizer.py hparams/mel_rvq.yaml
> python recipes/MuQ/train_tokenizer.py hparams/targets/baseline_fsq.yaml
> python recipes/MuQ/train_tokenizer.py hparams/mel_rvq.yaml --data_folder /my/music
"""

import os
from itertools import islice
from pathlib import Path

# Before torch is imported: threads that wait for each other must not take the cores
# of other programs. On two busy cores this makes training about ten times faster.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import speechbrain as sb
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

from muq_plugins.brains import AtomicCheckpointer
from muq_plugins.brains.processes import share_clips, world_size
from muq_plugins.data.mel_statistics import check_statistics, normalise
from muq_plugins.data.preparation import check_data, prepare_manifests
from muq_plugins.errors import UserError, given_at, given_by_user
from muq_plugins.evaluation.inspection import reconstruction_examples
from muq_plugins.evaluation.pages import headline, report
from muq_plugins.evaluation.run_files import save_diagnostics
from muq_plugins.experiment import (
    load_experiment,
    note_inputs,
    run_script,
    save_experiment,
    stages,
)
from muq_plugins.inference.muq import check_encoder
from muq_plugins.inference.tokenizer import (
    check_tokenizer,
    load_tokenizer,
    save_tokenizer,
)
from muq_plugins.lobes import TokenizerTraining
from muq_plugins.lobes.parts import check_clips, fingerprint
from muq_plugins.lobes.target import mark_trained

logger = get_logger(__name__)


def targets_of(hparams):
    """What is predicted: the target of an experiment, and further ones by name.

    Each stands beside its ``tokenizer``, ``tokenizer_folder`` and ``labels``.
    """
    own = {"": hparams} if "target" in hparams else {}
    return own | hparams.get("targets", {})


def stages_of(hparams):
    """What a training does, one after the other; its tokenizers come first."""
    yield "music"
    for name, wanted in targets_of(hparams).items():
        if wanted["tokenizer_folder"] is None and wanted["tokenizer"] is not None:
            updates = {**hparams, **wanted["tokenizer"]}["optimizer_step_limit"]
            yield f"tokenizer{name and ' ' + name} ({updates} updates)"
        if wanted["labels"] is not None:
            yield "labels"
    yield f"training ({hparams['optimizer_step_limit']} updates)"
    yield "test, probe and report" if hparams["final_probe"] else "test and report"


def check(values):
    """Refuses batches that the processes cannot share, in any stage of a training.

    Of plain values of a file, those that are numbers are looked at.
    """
    stages = {"": values}
    for name, wanted in targets_of(values).items():
        if wanted["tokenizer_folder"] is None and wanted["tokenizer"] is not None:
            prefix = f"targets.{name}.tokenizer." if name else "tokenizer."
            stages[prefix] = {**values, **wanted["tokenizer"]}
    if "modules" not in values:
        del stages[""]
    fewest = getattr(values.get("modules", {}).get("pretrain"), "fewest_clips", 1)
    if fewest > 1 and values["batch_size"] < fewest:
        raise UserError(
            f"batch_size is {values['batch_size']}, but the clips of a batch are told "
            f"from each other: give --batch_size {fewest} or more."
        )
    for prefix, stage in stages.items():
        sizes = stage["clips_per_update"], stage["batch_size"]
        if all(isinstance(size, int) for size in sizes):
            share_clips(*sizes, world_size(), prefix)


def check_parts(hparams, module):
    """Refuses parts that could not hear the clips, or be saved once they are trained.

    And labels that the frames of a target cannot have.
    """
    if hasattr(module, "encoder"):
        with given_by_user():
            check_clips(module, hparams["clip_seconds"], "clip_seconds")
        with given_at("encoder"):
            check_encoder(module.encoder)
    for name, wanted in targets_of(hparams).items():
        prefix, target = f"targets.{name}." if name else "", wanted["target"]
        given, tokenizer = wanted["tokenizer_folder"], wanted["tokenizer"]
        if given is not None or tokenizer is not None:
            with given_at(f"{prefix}target"):
                check_tokenizer(target)
        if given is None and tokenizer is not None:
            seconds = {**hparams, **tokenizer}["clip_seconds"]
            with given_by_user():
                check_clips(target, seconds, f"{prefix}tokenizer.clip_seconds")
        if hasattr(wanted["labels"], "windows"):
            with given_at(f"{prefix}labels"):
                wanted["labels"].windows(target)


def given_tokenizers(hparams):
    """Targets whose tokenizer is given: target, folder and name of each."""
    for name, wanted in targets_of(hparams).items():
        if wanted["tokenizer_folder"] is not None:
            yield wanted["target"], wanted["tokenizer_folder"], name


def open_run(experiment, module):
    """Refuses what would fail later, and opens the run folder."""
    hparams = experiment.hparams
    check(hparams)
    check_data(hparams["data"])
    check_parts(hparams, module)
    check_statistics(module, hparams["mel_statistics"])
    for target, tokenizer_folder, _ in given_tokenizers(hparams):
        load_tokenizer(target, tokenizer_folder)
    run_on_main(save_experiment, args=[experiment, hparams["output_folder"]])


def prepare(experiment, module):
    """Finds the music and what is given to learn from it."""
    hparams, folder = experiment.hparams, experiment.hparams["output_folder"]
    manifests = prepare_manifests(**hparams["data"])
    normalise(module, manifests, hparams["mel_statistics"])
    models = {}
    # Again, since a tokenizer has the statistics that it was trained with.
    for target, tokenizer_folder, name in given_tokenizers(hparams):
        load_tokenizer(target, tokenizer_folder)
        models["_".join(filter(None, ["tokenizer", name]))] = fingerprint(target, {})
    for name, wanted in targets_of(hparams).items():
        for teacher in teachers_in(wanted["target"]):
            models["_".join(filter(None, ["teacher", name]))] = teacher
    for teacher in teachers_in(module):  # also of objectives that have no target
        if teacher not in models.values():
            models["teacher"] = teacher
    run_on_main(note_inputs, args=[folder, manifests.facts(), models])
    return manifests


def teachers_in(module):
    """The fingerprints of the teachers that parts of a module listen to."""
    for part in module.modules():
        # Models of transformers have a configuration of another kind.
        config = getattr(part, "config", None)
        if isinstance(config, dict) and config.get("teacher"):
            yield config["teacher"]


def train_tokenizer(experiment, wanted, manifests, folder):
    """Trains the quantizer of a target, in place, unless the folder has it."""
    target, folder = wanted["target"], Path(folder)
    if (folder / "inference").is_dir():  # made last, and only as a whole
        load_tokenizer(target, folder)
        logger.info(f"It is finished, in {folder}.")
        return
    # What stage 1 does not say is as in stage 2; the command line means stage 2.
    hparams = {**experiment.hparams, **wanted["tokenizer"]}
    given = experiment.overrides
    if "optimizer_step_limit" in given and not any(
        key.endswith("tokenizer.optimizer_step_limit") for key in given
    ):
        logger.info(
            f"The tokenizer before it takes {hparams['optimizer_step_limit']} updates "
            f"all the same: --tokenizer.optimizer_step_limit changes that, --budget "
            f"tiny shortens all stages."
        )
    stage = TokenizerTraining(target.features, target.quantizer.requires_grad_())
    brain = hparams["brain"](
        modules={"tokenizer": stage},
        opt_class=hparams["opt_class"],
        hparams={**hparams, "output_folder": folder},
        run_opts=experiment.run_opts_of_earlier_stage(),
        checkpointer=AtomicCheckpointer(folder / "save"),
    )
    train_loader, valid_loader, test_loader = brain.make_loaders(manifests)
    brain.fit(train_loader, valid_loader)
    statistics = brain.validate(test_loader, kind="test")
    target.requires_grad_(False).eval()
    mark_trained(target.quantizer)

    def finish():
        examples = reconstruction_examples(target, valid_loader.dataset[0].wav[None])
        save_diagnostics(folder, **statistics.totals, **examples)
        page = report(folder)
        save_tokenizer(folder / "inference", target, experiment.yaml_text)
        print("\n".join([*headline(folder), f"Tokenizer report: {page}"]))

    run_on_main(finish)


def main(argv):
    """Trains the tokenizer that the command line asks for."""
    experiment = load_experiment(argv)
    sb.utils.distributed.ddp_init_group(experiment.run_opts)
    hparams = experiment.hparams
    if hparams.get("tokenizer") is None or hparams["tokenizer_folder"] is not None:
        raise UserError(
            f"{experiment.path}: there is no tokenizer to train (it asks for no codes, "
            f"tokenizer is null, or tokenizer_folder gives a finished one)."
        )
    for name in experiment.overrides.keys() & hparams["tokenizer"].keys():
        raise UserError(
            f"--{name} is a setting of the student's training, which is not done here: "
            f"give --tokenizer.{name}."
        )
    progress = stages(islice(stages_of(hparams), 2))
    open_run(experiment, hparams["target"])
    sb.create_experiment_directory(hparams["output_folder"])
    next(progress)
    manifests = prepare(experiment, hparams["target"])
    next(progress)
    train_tokenizer(experiment, hparams, manifests, hparams["output_folder"])


if __name__ == "__main__":
    run_script(main)
