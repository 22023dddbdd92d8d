"""Quantizers: feature vectors in, codes out. `muq_plugins.lobes` lists them."""
