"""Telling a compiler or an exporter at work from ordinary execution.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import torch


def is_traced() -> bool:
    """Whether the code is being compiled, traced or exported instead of executed.

    Lobes leave out what only speeds up ordinary execution then: compilers do such
    things themselves, and exported graphs must hold operators that others know.

    Returns
    -------
    bool
        True inside ``torch.compile``, ``torch.export``, ``torch.jit.trace`` and the
        exporters built on them.

    Example
    -------
    >>> is_traced()
    False
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
