"""What the metrics of a run mean, in plain words, for the log and for the report.

Codebooks and levels are numbered from 1 in everything that a person reads.
"""

from muq_plugins.evaluation.health.mulan import mulan_verdicts
from muq_plugins.evaluation.health.pretrain import pretrain_verdicts, probe_verdicts
from muq_plugins.evaluation.health.tokenizer import tokenizer_verdicts
from muq_plugins.evaluation.health.verdict import Verdict, announce, worst_first

__all__ = [
    "Verdict",
    "announce",
    "mulan_verdicts",
    "pretrain_verdicts",
    "probe_verdicts",
    "tokenizer_verdicts",
    "worst_first",
]
