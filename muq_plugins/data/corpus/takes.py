"""Takes of one piece: audio, rendered and levelled, and labels beside it."""

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi

from muq_plugins.data.captions.writer import full_caption
from muq_plugins.data.corpus.arrangement import Arrangement, Part, arrange
from muq_plugins.data.corpus.effects import DRY, Sound, apply_sound
from muq_plugins.data.corpus.pieces import Piece
from muq_plugins.data.corpus.rendered import AUDIO, level, rendered_entry, write_flac
from muq_plugins.data.corpus.schedule import Visit
from muq_plugins.data.corpus.scores import key_name, read_score
from muq_plugins.data.corpus.soundfont import DRUMS, SAMPLE_RATE, load_soundfont
from muq_plugins.data.instruments import INSTRUMENTS
from muq_plugins.files import atomic, read_json, write_json

TAKE_FILES = (".flac", ".mid", ".json")  # of each take, in the order of writing
_SILENCE = 1e-3  # of the peak: -60 dB
_WATCH = "muq-corpus-watch"


def make_clips_in_worker(
    visit: Visit, folder: Path, seed: int, parent: int
) -> list[dict]:
    """`make_clips`, in a process that ends with the one that started it.

    Without that, a killed build would leave its workers behind.
    """
    watched = any(thread.name == _WATCH for thread in threading.enumerate())
    if os.getpid() != parent and not watched:
        watch = threading.Thread(
            target=_watch, args=(parent,), name=_WATCH, daemon=True
        )
        watch.start()
    return make_clips(visit, folder, seed)


def _watch(parent: int) -> None:
    """End this process soon after its parent has ended, however that was."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def make_clips(visit: Visit, folder: Path, seed: int) -> list[dict]:
    """Render the takes of a piece that are not there yet.

    A take is finished when its labels (JSON) lie beside its audio (FLAC) and its notes
    (MIDI): they are written last.
    """
    entries = []
    score = None
    for take, (clip_id, family) in enumerate(
        zip(visit.clip_ids, visit.families, strict=True), start=visit.first_take
    ):
        paths = [folder / AUDIO / f"{clip_id}{suffix}" for suffix in TAKE_FILES]
        audio_path, notes_path, labels_path = paths
        if all(path.is_file() for path in paths):
            entries.append(read_json(labels_path, "delete it to make it again"))
            continue
        try:
            score = score or read_score(visit.piece)
            rng = take_rng(visit.piece, take, seed)
            arrangement = arrange(score, family, visit.longest, rng)
            audio = render(arrangement.sounding, arrangement.sound)
            labels = _labels(visit.piece, arrangement)
            labels["midi"] = f"{AUDIO}/{clip_id}.mid"
            entry = rendered_entry(clip_id, len(audio), labels)
        except Exception as error:
            raise RuntimeError(
                f"Take {take} of {visit.piece.path} (family {family}, seed {seed}) "
                f"cannot be rendered: {error}"
            ) from error
        write_flac(audio_path, audio)
        write_midi(notes_path, arrangement.sounding)
        write_json(labels_path, entry)
        entries.append(entry)
    return entries


def take_rng(piece: Piece, take: int, seed: int) -> random.Random:
    """What decides everything about a take."""
    return random.Random(f"{seed}/{piece.path}/{take}")


#: What is known of every take; probes ask for these.
TAKE_LABELS = frozenset(
    {
        *("piece", "composer", "title", "programs", "instruments", "families"),
        *("family", "key", "mode", "time_signature", "tempo_bpm"),
        *("transposition", "caption"),
    }
)


def _labels(piece: Piece, arrangement: Arrangement) -> dict[str, Any]:
    """What is known of a clip, as it sounds; what the score leaves open is left out."""
    excerpt = arrangement.excerpt
    labels = {
        "piece": piece.work,
        "composer": piece.composer,
        "title": piece.title,
        "programs": arrangement.programs,
        "instruments": [INSTRUMENTS[number].name for number in arrangement.programs],
        "families": arrangement.families,
        "family": arrangement.family,
        "tempo_bpm": arrangement.tempo,
        "transposition": arrangement.transposition,
    }
    if key := excerpt.key:
        tonic, labels["mode"] = key
        labels["key"] = key_name(tonic + arrangement.transposition, labels["mode"])
    if excerpt.time_signature:
        labels["time_signature"] = excerpt.time_signature
    return {**labels, "caption": full_caption(labels, "en")}


def render(parts: list[Part], sound: Sound = DRY) -> np.ndarray:
    """Play the parts of an arrangement together, in a tuning, a tone and a room."""
    tracks = [_play_part(part, sound.detuning) for part in parts]
    audio = np.zeros(max(len(track) for track in tracks), dtype=np.float32)
    for track in tracks:
        audio[: len(track)] += track
    return level(_trim_end(apply_sound(audio, sound)))


def _play_part(part: Part, detuning: float) -> np.ndarray:
    """One part at an RMS of its gain over the time that it sounds.

    Without that, a glockenspiel that the labels name would not be heard beside brass.
    """
    font = load_soundfont()
    sounds: dict[tuple[int, float], np.ndarray] = {}
    notes = []
    for note in part.notes:
        key = (note.pitch, note.duration)
        if key not in sounds:
            sounds[key] = font.play(part.program, note.pitch, note.duration, detuning)
        # The amplitude that SoundFont 2.01, 8.4.1, gives to a velocity.
        gain = np.float32((note.velocity / 127.0) ** 2)
        notes.append((round(note.start * SAMPLE_RATE), sounds[key], gain))
    track = np.zeros(max(start + len(s) for start, s, _ in notes), dtype=np.float32)
    for start, sound, gain in notes:
        track[start : start + len(sound)] += sound * gain
    sounding = track[track != 0.0]
    rms = np.sqrt(np.mean(np.square(sounding, dtype=np.float64)))
    return track * np.float32(10.0 ** (part.gain / 20.0) / rms)


def _trim_end(audio: np.ndarray) -> np.ndarray:
    """Cut what is under -60 dB of the peak at the end."""
    loud = np.flatnonzero(np.abs(audio) > _SILENCE * np.abs(audio).max())
    return audio[: loud[-1] + 1] if len(loud) else audio


def write_midi(path: Path, parts: list[Part]) -> None:
    """Write what is played as MIDI, a track for each part, to the millisecond."""
    midi = pretty_midi.PrettyMIDI(resolution=500, initial_tempo=120.0)
    for part in parts:
        is_drum = part.program == DRUMS
        track = pretty_midi.Instrument(0 if is_drum else part.program, is_drum)
        last: dict[int, pretty_midi.Note] = {}  # by pitch
        for note in part.notes:
            end = note.start + note.duration
            # MIDI can't end one of two equal notes: the later one goes on for both.
            before = last.get(note.pitch)
            if before is not None and before.end > note.start:
                before.end, end = note.start, max(before.end, end)
            last[note.pitch] = pretty_midi.Note(
                note.velocity, note.pitch, note.start, end
            )
            track.notes.append(last[note.pitch])
        track.notes = [note for note in track.notes if note.end > note.start]
        midi.instruments.append(track)
    with atomic(path) as partial:
        midi.write(str(partial))
