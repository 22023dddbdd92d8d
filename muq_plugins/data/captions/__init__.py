"""Texts for clips of music, in English and Chinese.

Labels of a manifest (`labels`, `words`, `tags`) become captions for training, each
time in other words (`templates`, `writer`), and fixed ones to compare models on
(`fixed`).
Other manifests bring texts of their own (`texts`, `files`).

Authors
 * The MuQ for SpeechBrain team 2026
"""

from muq_plugins.data.captions.files import add_captions
from muq_plugins.data.captions.fixed import (
    TAGGED,
    caption_languages,
    full_caption,
    tag_table,
    tag_texts,
)
from muq_plugins.data.captions.tags import KINDS
from muq_plugins.data.captions.words import LANGUAGES
from muq_plugins.data.captions.writer import CaptionWriter

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
