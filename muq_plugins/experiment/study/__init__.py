"""Studies: the same budget for several experiments and seeds.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from muq_plugins.experiment.study.carry_out import (
    Failure,
    carry_out,
    is_complete,
    is_finished,
)
from muq_plugins.experiment.study.command import refuse_run_options, study_command
from muq_plugins.experiment.study.plan import Command, PlannedRun, plan_runs
from muq_plugins.experiment.study.run import run_study

__all__ = [
    "Command",
    "Failure",
    "PlannedRun",
    "carry_out",
    "is_complete",
    "is_finished",
    "plan_runs",
    "refuse_run_options",
    "run_study",
    "study_command",
]
