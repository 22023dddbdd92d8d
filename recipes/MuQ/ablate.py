#!/usr/bin/env python3
"""Runs a study: several experiments and seeds with one budget, and one report.

> python recipes/MuQ/ablate.py hparams/studies/study_rvq.yaml
> python recipes/MuQ/ablate.py hparams/studies/study_rvq.yaml --seeds "[1]" \
    --devices "[cuda:0, cuda:1]"

What a run has found is kept in its record, a small file, and what has one is never run
again: a study that was stopped goes on, one with more seeds or experiments runs the new
ones, and `--only_report True` looks at what is there. Records are good on any machine:

> python recipes/MuQ/ablate.py hparams/studies/study_rvq.yaml \
    --records_folder docs/results/runs
"""

import os
from pathlib import Path

# For the commands that are started too: threads that wait for each other must not take
# the cores of other programs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from probe import find_tasks

from muq_plugins.errors import UserError
from muq_plugins.evaluation.study import (
    check_study,
    collect_study,
    describe_study,
    refuse_loss,
    run_record,
    study_headline,
    study_report,
)
from muq_plugins.experiment import (
    load_experiment,
    load_hparams,
    resolve_experiment,
    run_script,
)
from muq_plugins.experiment.runner import (
    is_recorded,
    record_of,
    run_study,
    study_command,
)


def tasks_of(probe):
    """The tasks of a probe of a study, as its file lists them."""
    overrides = {**(probe.get("overrides") or {}), "encoder": "of each run"}
    text = resolve_experiment(probe["experiment"], overrides)
    return find_tasks(load_hparams(text))[0]


def main(argv):
    """Runs the study that the command line asks for."""
    experiment = load_experiment(argv)
    hparams = experiment.hparams
    folder = Path(hparams["output_folder"])
    check_study(hparams, experiment.path, tasks_of)
    probes = hparams["probes"] or {}

    def found(run):
        return run_record(run.folder, probes, hparams["devices"])

    runs, failures = run_study(experiment, Path(__file__).parent, found)
    recorded = [run for run in runs if is_recorded(run)]
    if hparams["only_report"]:
        refuse_loss(folder, [(run.experiment, run.seed) for run in recorded])
    collect_study(
        folder,
        describe_study(hparams, study_command("ablate.py", argv)),
        [(run.experiment, run.seed, record_of(run)) for run in recorded],
        probes,
        [(run.experiment, run.seed) for run in runs if run not in recorded],
    )
    report = study_report(folder)
    print("\n".join([*study_headline(folder), f"Report: {report}"]))
    if failures:
        logs = ", ".join(str(failure.log) for failure in failures)
        raise UserError(f"{len(failures)} commands failed; see {logs}")


if __name__ == "__main__":
    run_script(main)
