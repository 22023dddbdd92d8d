"""Studies: from what runs have found to the report that compares them."""

from muq_plugins.evaluation.study.collect import (
    collect_study,
    describe_study,
    refuse_loss,
    run_record,
)
from muq_plugins.evaluation.study.numbers import check_study
from muq_plugins.evaluation.study.page import study_headline, study_report

__all__ = [
    "check_study",
    "collect_study",
    "describe_study",
    "refuse_loss",
    "run_record",
    "study_headline",
    "study_report",
]
