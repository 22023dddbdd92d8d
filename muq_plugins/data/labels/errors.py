"""What can be wrong with labels.

Authors
 * The MuQ for SpeechBrain team 2026
"""


class LabelError(ValueError):
    """Labels that are damaged, incomplete, or not those of this audio and tokenizer.

    Example
    -------
    >>> raise LabelError("labels/shard-00000.codes is missing")
    Traceback (most recent call last):
    ...
    muq_plugins.data.labels.errors.LabelError: labels/shard-00000.codes is missing
    """
