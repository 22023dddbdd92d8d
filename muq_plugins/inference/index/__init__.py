"""An index of music: what audio files sound like, on disk, and searched."""
