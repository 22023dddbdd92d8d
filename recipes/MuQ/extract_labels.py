#!/usr/bin/env python3
"""Labels a corpus with a tokenizer, once, for training on stored labels.

From the experiment file and the options that the training will have; the tokenizer
must be trained:

> python recipes/MuQ/extract_labels.py hparams/iteration/muq_latent.yaml \
    --target.features.source results/muq/1234 \
    --tokenizer_folder results/muq_latent/1234/tokenizer --labels.folder /shared/labels

For many devices or machines, start it by torchrun, or as an array of jobs that sets
RANK and WORLD_SIZE. Each process labels a fixed share, and the last one verifies the
labels. The same command goes on where it was, with any number of processes. The
training does the same by itself if nobody has done it before.
"""

import os

# Before torch is imported: threads that wait for each other must not take the cores
# of other programs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from speechbrain.utils.distributed import infer_device

from muq_plugins.data.mel_statistics import normalise
from muq_plugins.data.preparation import check_data, prepare_manifests
from muq_plugins.data.shares import own_share
from muq_plugins.errors import UserError
from muq_plugins.experiment import load_experiment, run_script
from muq_plugins.files import locked
from muq_plugins.inference.tokenizer import load_tokenizer


def main(argv):
    """Does a share of the extraction that the command line asks for."""
    share = own_share()
    # Processes are no group: each one prepares everything itself, if nobody has yet.
    os.environ["RANK"] = "0"
    experiment = load_experiment(argv)
    hparams, labels = experiment.hparams, experiment.hparams.get("labels")
    if not hasattr(labels, "extract"):
        raise UserError(
            f"{experiment.path} stores no labels: set labels to "
            "!new:muq_plugins.data.labels.StoredLabels, as in "
            "hparams/iteration/muq_latent.yaml."
        )
    if hparams["tokenizer"] is not None and hparams["tokenizer_folder"] is None:
        raise UserError(
            "Labels need a trained tokenizer: give --tokenizer_folder, the folder that "
            f"train_tokenizer.py {experiment.path} has made."
        )
    target = hparams["target"]
    check_data(hparams["data"])
    if hparams["tokenizer_folder"] is not None:
        load_tokenizer(target, hparams["tokenizer_folder"])
    with locked(labels.folder, ".manifests.lock"):
        manifests = prepare_manifests(**hparams["data"])
        normalise(target, manifests, hparams["mel_statistics"])
    # Again, since a tokenizer has the statistics that it was trained with.
    if hparams["tokenizer_folder"] is not None:
        load_tokenizer(target, hparams["tokenizer_folder"])
    device = experiment.run_opts.device or infer_device()
    done = labels.extract(target.to(device), manifests, share)
    words = "complete" if done.complete else "not complete: others have a share too,"
    print(f"Labels {words} in {labels.folder}. This process ({device}): {done}.")


if __name__ == "__main__":
    run_script(main)
