"""EmoMusic (EMO): arousal and valence of 744 excerpts of 45 s.

In the split of jukemir: the test part of MediaEval 2013 (125), and a fifth of the other
artists for validation (504 and 115). Values are standardised by the moments of training
and validation part together, as MARBLE does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from muq_plugins.data.datasets.tagged import (
    PARTS,
    Labelled,
    Sheet,
    TaggedClip,
    damaged,
    one_of,
    read_gzipped_json,
)

METADATA = "emomusic.json.gz"
SOURCE = "the folder metadata of github.com/p-lambda/jukemir"
DIMENSIONS = ("arousal", "valence")
VALUES = "values"  # the label: a number for each dimension
SHEET = Sheet(
    "EMO",
    f"cvml.unige.ch/databases/emoMusic (clips_45sec.tar.gz), the split from {SOURCE}",
    "for research; the songs are from the Free Music Archive, under their own licences",
    f"clips_45seconds/<id>.mp3 and {METADATA}",
)


def emomusic(data_folder: str | Path) -> Labelled:
    """EmoMusic as it is downloaded."""
    path = one_of(data_folder, ("", "metadata", "jukemir/metadata"), METADATA)
    path, clips, raw = path / METADATA, [], []
    for name, about in read_gzipped_json(path, SOURCE).items():
        try:
            extra, part = about["extra"], about["split"]
            known = extra["static_annotations"]
            raw.append([float(known[f"mean_{one}"]) for one in DIMENSIONS])
            artist = extra["songs_info"]["Artist"].strip()
            file = f"{int(known['song_id'])}.mp3"
        except (KeyError, TypeError, ValueError) as error:
            words = f"{name!r} is not described as it is published ({error!r})"
            raise damaged(path, words, SOURCE) from error
        if part not in PARTS:
            raise damaged(path, f"{name!r} is in the part {part!r}", SOURCE)
        clips.append(TaggedClip(file, part, [], {"artist": artist}))
    values = np.array(raw).reshape(len(clips), len(DIMENSIONS))
    known = values[[clip.part != "test" for clip in clips]]
    if not len(known):
        raise damaged(path, "it has no training part", SOURCE)
    values = (values - known.mean(axis=0)) / known.std(axis=0)
    for clip, row in zip(clips, values.tolist(), strict=True):
        clip.labels[VALUES] = row
    audio = one_of(data_folder, ("clips_45seconds", "clips_45sec", "audio", ""))
    name = "EmoMusic, split of jukemir"
    return Labelled(name, audio, clips, list(DIMENSIONS), ("", ".wav"))
