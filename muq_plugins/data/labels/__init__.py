"""Labels: codes of whole corpora, extracted once and read by place in the track.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from muq_plugins.data.labels.errors import LabelError
from muq_plugins.data.labels.extraction import Throughput, extract_labels
from muq_plugins.data.labels.reading import LabelSet
from muq_plugins.data.labels.settings import ComputedLabels, StoredLabels
from muq_plugins.data.labels.targets import ComputedTarget, StoredTarget
from muq_plugins.data.labels.windows import LabelWindows

__all__ = [
    "ComputedLabels",
    "ComputedTarget",
    "LabelError",
    "LabelSet",
    "LabelWindows",
    "StoredLabels",
    "StoredTarget",
    "Throughput",
    "extract_labels",
]
