"""Published data sets with tags: their files as they are, turned into manifests.

One file for each data set (`magnatagatune`, `mtg_jamendo`, ...) reads its published
annotations; `tagged` finds the audio and writes the manifests.
"""

from muq_plugins.data.datasets.gtzan import prepare_gtzan
from muq_plugins.data.datasets.magnatagatune import prepare_magnatagatune
from muq_plugins.data.datasets.mtg_jamendo import prepare_mtg_jamendo
from muq_plugins.data.datasets.tagged import TaggedData
from muq_plugins.data.datasets.wikimt_x import prepare_wikimt_x

__all__ = [
    "TaggedData",
    "prepare_gtzan",
    "prepare_magnatagatune",
    "prepare_mtg_jamendo",
    "prepare_wikimt_x",
]
