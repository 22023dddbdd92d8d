"""Stopping a run without losing it.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import signal
import threading

from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


class TrainingInterrupted(KeyboardInterrupt):
    """Training was asked to stop, and has written a checkpoint."""


class Interrupts:
    """Turns Ctrl-C and SIGTERM into a request, for the time of a ``with`` block.

    The loop looks at `requested` after each update, so that a run never stops in
    the middle of one. A second Ctrl-C stops at once.

    Example
    -------
    >>> with Interrupts() as interrupts:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     interrupts.requested
    True
    """

    def __init__(self):
        self.requested = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        logger.warning(
            "Stopping after this update and writing a checkpoint; "
            "press Ctrl-C again to stop at once."
        )
