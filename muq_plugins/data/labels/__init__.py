"""Labels: codes of whole corpora, extracted once and read by place in the track."""

from muq_plugins.data.labels.extraction import Throughput, extract_labels
from muq_plugins.data.labels.shards import LabelSet
from muq_plugins.data.labels.targets import (
    ComputedLabels,
    ComputedTarget,
    StoredLabels,
    StoredTarget,
)
from muq_plugins.data.labels.windows import LabelWindows

__all__ = [
    "ComputedLabels",
    "ComputedTarget",
    "LabelSet",
    "LabelWindows",
    "StoredLabels",
    "StoredTarget",
    "Throughput",
    "extract_labels",
]
