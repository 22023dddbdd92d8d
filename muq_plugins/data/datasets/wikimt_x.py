"""WikiMT-X: a thousand recordings, each with four texts, to be found by each other.

Published as `wikimt-x-public.jsonl` (huggingface.co/datasets/sander-wood/wikimt-x, CC
BY-NC 4.0), a song in each line. The texts were written by a language model; scores on
one kind of text are none on another. Recordings are links to YouTube: each is a file
that is called after the eleven characters of its link: `a1B2c3D4e5F.mp3`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from muq_plugins.data.datasets.tagged import (
    Labelled,
    TaggedClip,
    damaged,
    one_of,
    read_lines,
)

TEXTS = ("background", "analysis", "description", "scene")
SOURCE = "huggingface.co/datasets/sander-wood/wikimt-x"
FILE = "wikimt-x-public.jsonl"
LINK = re.compile(r"(?:youtu\.be/|[?&]v=)([\w-]{11})")
ENDINGS = (".mp3", ".m4a", ".opus", ".webm", ".ogg", ".flac", ".wav")


def wikimt_x(data_folder: str | Path) -> Labelled:
    """All recordings, in the folder or its `audio`, with texts under their kinds."""
    path = Path(data_folder) / FILE
    clips: dict[str, TaggedClip] = {}
    for number, line in enumerate(read_lines(path, SOURCE), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            about = json.loads(line)
            texts = {kind: str(about.get(kind) or "").strip() for kind in TEXTS}
        except (ValueError, AttributeError) as error:
            raise damaged(place, "it holds no song", SOURCE) from error
        texts = {kind: text for kind, text in texts.items() if text}
        link = LINK.search(" ".join(map(str, about.values())))
        if link is None or not texts:
            lacks = "link to a recording" if link is None else "text"
            raise damaged(place, f"it has no {lacks}", SOURCE)
        name = f"{link[1]}.mp3"
        if name in clips:
            raise damaged(place, f"the recording {link[1]} is there twice", SOURCE)
        clips[name] = TaggedClip(name, "test", [], texts)
    audio = one_of(data_folder, ("audio", ""))
    return Labelled("WikiMT-X", audio, [*clips.values()], [], ENDINGS)
