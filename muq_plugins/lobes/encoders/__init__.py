"""Encoders, all with the same contract. `muq_plugins.lobes` lists them.

``out = encoder(wavs, wav_lens)`` gives an `muq_plugins.lobes.EncoderOutput`. The
attributes ``sample_rate``, ``frame_rate``, ``width``, ``num_layers`` and
``min_samples`` (the shortest clip) say what goes in and out; ``config`` holds the
arguments that build the same encoder again, and ``features`` the log-mel spectrogram
in it, or None.
"""

# Saved folders call it by this name.
from muq_plugins.lobes.parts import build as build_encoder

__all__ = ["build_encoder"]
