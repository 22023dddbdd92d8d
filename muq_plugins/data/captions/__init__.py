"""Texts for clips of music, in English and Chinese.

Labels of a manifest become captions: for training each time in other words, and in
fixed ones to compare models on. Other manifests bring texts of their own.
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

__all__ = [
    "KINDS",
    "LANGUAGES",
    "TAGGED",
    "CaptionWriter",
    "caption_languages",
    "full_caption",
    "tag_table",
    "tag_texts",
]
