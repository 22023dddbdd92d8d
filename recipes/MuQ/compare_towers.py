#!/usr/bin/env python3
"""Compares encoders as the beginning of an audio tower of MuQ-MuLan.

> python recipes/MuQ/compare_towers.py hparams/compare_towers.yaml

Encoders are pre-trained first, unless a study has done so already. What is finished is
never run again; `--only_report True` looks at what is there.
"""

import os
from pathlib import Path

# For the commands that are started too: threads that wait for each other must not take
# the cores of other programs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from muq_plugins.errors import UserError
from muq_plugins.evaluation.study import describe_machine
from muq_plugins.evaluation.towers import compare_towers
from muq_plugins.experiment import load_experiment, run_script
from muq_plugins.experiment.runner import is_complete, run_study, study_command


def main(argv):
    """Runs the comparison that the command line asks for."""
    experiment = load_experiment(argv)
    hparams = experiment.hparams
    folder = Path(hparams["output_folder"])
    runs, failures = run_study(experiment, Path(__file__).parent)

    towers = [run for run in runs if run.experiment in hparams["towers"]]
    missing = [
        f"{run.experiment}, seed {run.seed}" for run in towers if not is_complete(run)
    ]
    if missing:
        logs = ", ".join(str(failure.log) for failure in failures)
        raise UserError(
            f"Not finished: {'; '.join(missing)}. "
            + (f"See {logs}." if logs else "Run the same command again.")
        )
    labels = {name: hparams["experiments"][name]["label"] for name in hparams["towers"]}
    report = compare_towers(
        folder,
        {
            label: {run.seed: run.folder for run in towers if run.experiment == name}
            for name, label in labels.items()
        },
        [[labels[name] for name in pair] for pair in hparams["comparisons"]],
        {
            "command": study_command("compare_towers.py", argv),
            "machine": describe_machine(hparams["devices"]),
        },
    )
    print((folder / "report.md").read_text(encoding="utf-8"))
    print(f"Report: {report}")


if __name__ == "__main__":
    run_script(main)
