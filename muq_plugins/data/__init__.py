"""Reading audio, manifests, the embedded corpus, and the order of the clips."""
