"""Texts for clips of music, in English and Chinese.

Labels of a manifest (`labels`, `words`, `tags`) become captions for training, each
time in other words (`templates`, `writer`), and fixed ones to compare models on
(`fixed`).
Other manifests bring texts of their own (`texts`, `files`).
"""

from muq_plugins.data.captions.labels import KINDS
from muq_plugins.data.captions.wording import LANGUAGES
from muq_plugins.data.captions.writer import (
    TAGGED,
    CaptionWriter,
    caption_languages,
    full_caption,
    tag_table,
    tag_texts,
)
from muq_plugins.data.preparation import add_captions

__all__ = [
    "KINDS",
    "LANGUAGES",
    "TAGGED",
    "CaptionWriter",
    "add_captions",
    "caption_languages",
    "full_caption",
    "tag_table",
    "tag_texts",
]
