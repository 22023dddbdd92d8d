"""Brain of the stage *pretrain*."""

from __future__ import annotations

from muq_plugins.brains.base import StageBrain


class PretrainBrain(StageBrain):
    """Trains masked prediction; its validation rows say what guessing would give.

    Arguments and errors are those of `StageBrain`.
    """
