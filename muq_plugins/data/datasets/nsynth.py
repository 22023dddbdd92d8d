"""NSynth: 306 043 single notes of 4 s, with the family of the instrument and the pitch.

The official parts: 289 205, 12 678 and 4096 notes, no instrument in two of them.
Synthesizer leads are in the training part alone.
"""

from __future__ import annotations

from pathlib import Path

from muq_plugins.data.datasets.tagged import (
    PARTS,
    Labelled,
    Sheet,
    TaggedClip,
    damaged,
    read_gzipped_json,
)

FAMILIES = (
    "bass",
    "brass",
    "flute",
    "guitar",
    "keyboard",
    "mallet",
    "organ",
    "reed",
    "string",
    "synth_lead",
    "vocal",
)
# MARBLE's class number is the MIDI pitch minus one, of 128 classes.
PITCHES = tuple(str(pitch) for pitch in range(1, 129))
LABELS = {
    "instrument": ("instrument_family_str", FAMILIES),
    "pitch": ("pitch", PITCHES),
}
SOURCE = "magenta.tensorflow.org/datasets/nsynth (nsynth-{train,valid,test}.jsonwav)"
SHEET = Sheet(
    "NSynth",
    SOURCE,
    "CC BY 4.0",
    "nsynth-train, nsynth-valid and nsynth-test, each with examples.json and "
    "audio/<note>.wav",
)


def nsynth(data_folder: str | Path, label: str) -> Labelled:
    """NSynth as it is downloaded, with the label "instrument" or "pitch"."""
    key, classes = LABELS[label]
    clips, known = [], set(classes)
    for part in PARTS:
        path = Path(data_folder) / f"nsynth-{part}" / "examples.json"
        for name, about in read_gzipped_json(path, SOURCE).items():
            value = str(about.get(key))
            if value not in known:
                raise damaged(path, f"{name!r} has the {key} {value!r}", SOURCE)
            # The notes of one instrument are alike, as songs of an artist are.
            labels = {"artist": str(about.get("instrument_str", name))}
            file = f"nsynth-{part}/audio/{name}.wav"
            clips.append(TaggedClip(file, part, [value], labels))
    name = f"NSynth {label}, official parts"
    return Labelled(name, Path(data_folder), clips, list(classes))
