"""Reading audio, manifests, the embedded corpus, and the order of the clips.

Authors
 * The MuQ for SpeechBrain team 2026
"""
