"""Teachers: trained encoders whose latents become the next target.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from pathlib import Path

from muq_plugins.inference.muq import MuQ
from muq_plugins.lobes.parts import encoder_fingerprint
from muq_plugins.lobes.teacher import TeacherFeatures


def teacher_features(source: str | Path, layer: int) -> TeacherFeatures:
    """Loads a teacher, to be used as features of a target or a tokenizer.

    Experiment files call it with ``!apply:``; lobes read no files themselves.

    Arguments
    ---------
    source : str or Path
        What `MuQ.from_pretrained` takes: the folder of a finished run, an inference
        folder, an official checkpoint or the id of one on the Hugging Face hub.
    layer : int
        Block whose output is used, counted from 1 as in the paper.

    Returns
    -------
    TeacherFeatures
        On the CPU; it follows the module that it becomes a part of.

    Raises
    ------
    FileNotFoundError
        If there is no trained model.
    ValueError
        If it has no such layer.

    Example
    -------
    >>> from muq_plugins.inference.muq import save_muq
    >>> from muq_plugins.lobes import MuQEncoder
    >>> encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> folder = save_muq(getfixture("tmp_path") / "inference", encoder)
    >>> teacher_features(folder, layer=2).output_size
    32
    """
    encoder = MuQ.from_pretrained(source).mods.encoder
    try:
        return TeacherFeatures(encoder, layer, encoder_fingerprint(encoder))
    except ValueError as error:
        raise ValueError(f"The teacher in {source} does not fit. {error}") from error
