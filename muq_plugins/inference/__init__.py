"""Using what was trained.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from muq_plugins.inference.muq import MuQ

__all__ = ["MuQ"]
