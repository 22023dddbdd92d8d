"""Encoders, all with the contract in `base`. `muq_plugins.lobes` lists them."""

# Saved folders call it by this name.
from muq_plugins.lobes.parts import build as build_encoder

__all__ = ["build_encoder"]
