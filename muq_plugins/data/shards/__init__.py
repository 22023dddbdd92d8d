"""Music in shards: uncompressed tars of 24 kHz mono, which are read at any place.

    shards.json                   every shard: bytes, clips, hours, a hash of its index
    audio/recording.000000.tar    KEY.flac and KEY.json of one clip after another
    audio/cuts.000000.jsonl.gz    the index of this tar, one clip a line
    done/000000.json              what was written, and what could not be

``audio/`` is a folder as Lhotse's Shar writes it, its tars are those of WebDataset: the
index is a manifest of Lhotse's cuts, with what we need in their ``custom``. Which clips
a shard has depends on nothing but the music, so a job that was killed writes the rest.
"""
