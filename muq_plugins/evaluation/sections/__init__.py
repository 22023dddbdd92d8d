"""The parts of reports: each reads rows or arrays, draws its figures and explains
them.
"""

from muq_plugins.evaluation.sections.common import codes_section, optimisation_section
from muq_plugins.evaluation.sections.mulan import (
    contrastive_section,
    retrieval_section,
    tagging_sections,
)
from muq_plugins.evaluation.sections.pretrain import (
    cross_entropy_section,
    prediction_section,
    probe_sections,
)
from muq_plugins.evaluation.sections.probing import (
    layer_section,
    mixture_section,
    scores_section,
    task_section,
)
from muq_plugins.evaluation.sections.tokenizer import (
    decoding_section,
    levels_section,
    tokenizer_loss_section,
)

__all__ = [
    "codes_section",
    "contrastive_section",
    "cross_entropy_section",
    "decoding_section",
    "layer_section",
    "levels_section",
    "mixture_section",
    "optimisation_section",
    "prediction_section",
    "probe_sections",
    "retrieval_section",
    "scores_section",
    "tagging_sections",
    "task_section",
    "tokenizer_loss_section",
]
