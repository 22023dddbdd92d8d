"""GTZAN: 30 s recordings of ten genres, in the split without faults and shared artists.

The split is that of Kereliuk, Sturm and Larsen ("Deep learning and music adversaries",
arXiv 1507.04761): 443, 197 and 290 of the 1000 recordings. Its three files are in
github.com/coreyker/dnn-mgr (folder `gtzan`) and elsewhere; each line is a path such as
`blues/blues.00012.wav`. The audio comes as `genres/blues/blues.00012.wav` or `.au`.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from muq_plugins.data.datasets.common import (
    PARTS,
    TaggedClip,
    TaggedData,
    write_manifests,
)
from muq_plugins.data.datasets.files import DatasetError, read_text

GENRES = (
    "blues",
    "classical",
    "country",
    "disco",
    "hiphop",
    "jazz",
    "metal",
    "pop",
    "reggae",
    "rock",
)
# Cannot be decoded in the copy that most people have.
UNREADABLE = ("jazz/jazz.00054.wav",)
SOURCE = "the folder gtzan of github.com/coreyker/dnn-mgr"


def prepare_gtzan(
    annotation_folder: str | Path,
    audio_folder: str | Path,
    manifest_folder: str | Path,
    parts: Sequence[str] = PARTS,
    leave_out_missing: bool = False,
) -> TaggedData:
    """Write the manifests of GTZAN.

    Every clip has one tag, its genre, which is also its label "genre".

    Arguments
    ---------
    annotation_folder : str or pathlib.Path
        Folder of `train_filtered.txt`, `valid_filtered.txt` and `test_filtered.txt`.
    audio_folder : str or pathlib.Path
        Folder of the ten folders of audio.
    manifest_folder : str or pathlib.Path
        Where a folder with the manifests is made, named after the split.
    parts : sequence of str
        Which parts to write.
    leave_out_missing : bool
        See `muq_plugins.data.datasets.common.write_manifests`.

    Returns
    -------
    TaggedData
        The manifests; tags are the genres, sorted.

    Raises
    ------
    DatasetError
        If a file is missing or not what it should be.

    Example
    -------
    >>> import soundfile
    >>> root = getfixture("tmp_path")
    >>> (root / "jazz").mkdir()
    >>> soundfile.write(root / "jazz" / "jazz.00001.wav", [0.0] * 24000, 24000)
    >>> for part in PARTS:
    ...     text = f"jazz/jazz.0000{PARTS.index(part)}.wav"
    ...     _ = (root / f"{part}_filtered.txt").write_text(text)
    >>> sorted(prepare_gtzan(root, root, root, parts=["valid"]).manifests)
    ['valid']
    """
    clips = []
    for part in PARTS:
        path = Path(annotation_folder) / f"{part}_filtered.txt"
        for number, line in enumerate(read_text(path, SOURCE).splitlines(), start=1):
            if name := line.strip():
                clips.append(_clip(name, part, f"{path}, line {number}"))
    return write_manifests(
        "GTZAN, fault-filtered split",
        manifest_folder,
        audio_folder,
        clips,
        GENRES,
        endings=("", ".au"),
        known_unreadable=UNREADABLE,
        parts=parts,
        leave_out_missing=leave_out_missing,
    )


def _clip(name, part, where):
    genre, _, file = name.partition("/")
    if genre not in GENRES or not file.startswith(f"{genre}."):
        raise DatasetError(
            f"{where}: {name!r} is no recording of GTZAN, such as "
            f"'blues/blues.00012.wav' with one of {', '.join(GENRES)}. Get the file "
            f"from {SOURCE}."
        )
    return TaggedClip(name, part, [genre], {"genre": genre})
