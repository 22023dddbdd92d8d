#!/usr/bin/env python3
"""Measures the mean and deviation of log-mel spectrograms on a corpus.

The recipes do the same before training unless ``mel_statistics`` is set:

> python recipes/MuQ/measure_statistics.py hparams/mel_rvq.yaml
> python recipes/MuQ/measure_statistics.py hparams/mel_rvq.yaml --data_folder /my/music
"""

from muq_plugins.data.mel_statistics import normalise
from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.experiment import load_experiment, run_script
from muq_plugins.lobes import LogMel


def main(argv):
    """Measures on the corpus of the experiment that the command line asks for."""
    hparams = load_experiment(argv).hparams
    module = hparams.get("target", hparams.get("encoder"))
    normalise(module, prepare_manifests(**hparams["data"]), None)
    for part in module.modules():
        if isinstance(part, LogMel):
            print(f"mel_statistics: [{float(part.mean)}, {float(part.std)}]")


if __name__ == "__main__":
    run_script(main)
