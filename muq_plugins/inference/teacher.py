"""Teachers: trained encoders whose latents become the next target."""

from __future__ import annotations

from pathlib import Path

from muq_plugins.inference.muq import MuQ
from muq_plugins.lobes.features import TeacherFeatures
from muq_plugins.lobes.parts import encoder_fingerprint


def teacher_features(source: str | Path, layer: int) -> TeacherFeatures:
    """Loads a teacher, to be used as features of a target or a tokenizer.

    Experiment files call it with ``!apply:``; lobes read no files themselves.
    """
    encoder = MuQ.from_pretrained(source).mods.encoder
    try:
        return TeacherFeatures(encoder, layer, encoder_fingerprint(encoder))
    except ValueError as error:
        raise ValueError(f"The teacher in {source} does not fit. {error}") from error
