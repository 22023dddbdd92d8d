"""The web page of ``muq-plugins serve``.

Authors
 * The MuQ for SpeechBrain team 2026
"""
