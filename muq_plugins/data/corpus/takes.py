"""Takes of one piece: audio, rendered and levelled, and labels beside it."""

import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from muq_plugins.data.captions.writer import full_caption
from muq_plugins.data.corpus.arrangement import Arrangement, Part, arrange
from muq_plugins.data.corpus.pieces import SPLITS, Piece
from muq_plugins.data.corpus.schedule import Visit
from muq_plugins.data.corpus.scores import estimate_key, key_name, read_score
from muq_plugins.data.corpus.soundfont import SAMPLE_RATE, load_soundfont
from muq_plugins.data.instruments import INSTRUMENTS
from muq_plugins.errors import UserError
from muq_plugins.files import atomic, read_json, write_json

_SILENCE = 1e-3  # of the peak: -60 dB
_RMS = 0.1  # -20 dBFS
_PEAK = 0.95
AUDIO = "audio"
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

    A take is finished when its labels (JSON) lie beside its audio (FLAC): they are
    written last.
    """
    entries = []
    score = None
    for take, (clip_id, family) in enumerate(
        zip(visit.clip_ids, visit.families, strict=True), start=visit.first_take
    ):
        audio_path = folder / AUDIO / f"{clip_id}.flac"
        labels_path = audio_path.with_suffix(".json")
        if audio_path.is_file() and labels_path.is_file():
            entries.append(read_json(labels_path, "delete it to make it again"))
            continue
        try:
            score = score or read_score(visit.piece)
            rng = random.Random(f"{seed}/{visit.piece.path}/{take}")
            arrangement = arrange(score, family, visit.longest, rng)
            audio = render(arrangement.parts)
            entry = {
                "wav": f"{{data_root}}/{AUDIO}/{clip_id}.flac",
                "duration": len(audio) / SAMPLE_RATE,
                "sample_rate": SAMPLE_RATE,
                "channels": 1,
                **_labels(visit.piece, arrangement),
            }
        except Exception as error:
            raise RuntimeError(
                f"Take {take} of {visit.piece.path} (family {family}, seed {seed}) "
                f"cannot be rendered: {error}"
            ) from error
        write_flac(audio_path, audio)
        write_json(labels_path, entry)
        entries.append(entry)
    return entries


#: What is known of every take; probes ask for these.
TAKE_LABELS = frozenset(
    {
        *("piece", "composer", "title", "programs", "instruments", "families"),
        *("family", "key", "mode", "key_confidence", "time_signature", "tempo_bpm"),
        *("transposition", "caption"),
    }
)


def _labels(piece: Piece, arrangement: Arrangement) -> dict[str, Any]:
    """What is known of a clip, as it sounds."""
    tonic, mode, confidence = estimate_key(arrangement.excerpt.notes)
    labels = {
        "piece": piece.work,
        "composer": piece.composer,
        "title": piece.title,
        "programs": arrangement.programs,
        "instruments": [INSTRUMENTS[number].name for number in arrangement.programs],
        "families": arrangement.families,
        "family": arrangement.family,
        "key": key_name(tonic + arrangement.transposition, mode),
        "mode": mode,
        "key_confidence": confidence,
        "time_signature": arrangement.excerpt.time_signature,
        "tempo_bpm": arrangement.tempo,
        "transposition": arrangement.transposition,
    }
    return {**labels, "caption": full_caption(labels, "en")}


def render(parts: list[Part]) -> np.ndarray:
    """Play the parts of an arrangement together, without any effect."""
    tracks = [_play_part(part) for part in parts]
    audio = np.zeros(max(len(track) for track in tracks), dtype=np.float32)
    for track in tracks:
        audio[: len(track)] += track
    return level(_trim_end(audio))


def _play_part(part: Part) -> np.ndarray:
    """One part at an RMS of its gain over the time that it sounds.

    Without that, a glockenspiel that the labels name would not be heard beside brass.
    """
    font = load_soundfont()
    sounds: dict[tuple[int, float], np.ndarray] = {}
    notes = []
    for note in part.notes:
        key = (note.pitch, note.duration)
        if key not in sounds:
            sounds[key] = font.play(part.program, note.pitch, note.duration)
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


def level(audio: np.ndarray) -> np.ndarray:
    """Bring audio to -20 dBFS RMS, or less where the peak would pass 0.95.

    The soundfont's instruments differ by 20 dB. A common RMS does not give them away
    by their loudness, and leaves headroom for all but the most percussive music, which
    the limit of the peak then keeps from clipping.
    """
    rms = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
    peak = float(np.abs(audio).max())
    if not (np.isfinite(peak) and peak > 0.0):
        raise UserError(f"The audio is silent or not finite: its peak is {peak}.")
    return (audio * min(_RMS / rms, _PEAK / peak)).astype(np.float32)


def write_flac(path: Path, audio: np.ndarray) -> None:
    """Write audio as 16-bit FLAC, completely or not at all."""
    # Rounded here, so that the file does not depend on how libsndfile rounds.
    samples = np.round(audio * 32767.0).astype(np.int16)
    with atomic(path) as partial:
        soundfile.write(partial, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")


def read_record(path: Path, what: str, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """What a folder says it holds, if that is what is wanted; None if it is fresh."""
    folder = path.parent
    if not path.is_file():
        for name in (AUDIO, *(f"{split}.json" for split in SPLITS)):
            if (folder / name).exists():
                raise UserError(
                    f"{folder} has {name} but no {path.name}: it does not hold {what}. "
                    "Choose another folder."
                )
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        there = {"format": record["format"], **record["settings"]}
        record["versions"], record["complete"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not the record of {what} ({error!r}). Delete {folder} or "
            "choose another."
        ) from error
    if there != wanted:
        raise UserError(
            f"{folder} holds {what} made with {there}, but wanted is {wanted}. Choose "
            "another folder or delete this one."
        )
    return record
