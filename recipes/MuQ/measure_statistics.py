#!/usr/bin/env python3
"""Measures the mean and deviation of log-mel spectrograms on a corpus.

The recipes do the same before training unless ``mel_statistics`` is set:

> python recipes/MuQ/measure_statistics.py hparams/mel_rvq.yaml
> python recipes/MuQ/measure_statistics.py hparams/mel_rvq.yaml --data_folder /my/music
"""

from muq_plugins.data.mel_statistics import normalise
from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.errors import UserError
from muq_plugins.experiment import load_experiment, run_script
from muq_plugins.lobes import LogMel


def main(argv):
    """Measures on the corpus of the experiment that the command line asks for."""
    experiment = load_experiment(argv)
    hparams = experiment.hparams
    # All that a training normalises, or the tokenizer alone.
    module = hparams.get("modules", {}).get("pretrain", hparams.get("target"))
    parts = [] if module is None else module.modules()
    spectra = [part for part in parts if isinstance(part, LogMel)]
    if not spectra:
        raise UserError(
            f"{experiment.path} has no log-mel spectrogram to be measured for."
        )
    normalise(module, prepare_manifests(**hparams["data"]), None)
    lines = [f"mel_statistics: [{float(s.mean)}, {float(s.std)}]" for s in spectra]
    print("\n".join(dict.fromkeys(lines)))


if __name__ == "__main__":
    run_script(main)
