"""Make the clips of one piece: audio, and labels beside it.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import json
import os
import random
import threading
import time
from pathlib import Path

from muq_plugins.data.corpus.arrangement import Arrangement, arrange
from muq_plugins.data.corpus.captions import key_name, write_caption
from muq_plugins.data.corpus.pieces import Piece
from muq_plugins.data.corpus.programs import INSTRUMENTS
from muq_plugins.data.corpus.render import render, write_flac
from muq_plugins.data.corpus.sampler import SAMPLE_RATE
from muq_plugins.data.corpus.schedule import Visit
from muq_plugins.data.corpus.scores import estimate_key, read_score
from muq_plugins.data.jsonio import write_json

AUDIO = "audio"

_WATCH = "muq-corpus-watch"


def make_clips(visit: Visit, folder: Path, seed: int) -> list[dict]:
    """Render the takes of a piece that are not there yet.

    A take is finished when its labels (JSON) lie beside its audio (FLAC): they are
    written last.

    Arguments
    ---------
    visit : Visit
        The piece and its takes.
    folder : pathlib.Path
        Folder of the corpus, with its folder for audio.
    seed : int
        Decides, with the piece and the number of the take, how it is played.

    Returns
    -------
    list of dict
        The manifest entry of each take.

    Raises
    ------
    RuntimeError
        If the piece cannot be rendered; names it.

    Example
    -------
    >>> import tempfile
    >>> piece = Piece("bach/bwv300.mxl", "bach/bwv300", "Bach", "Chorale", 1)
    >>> visit = Visit("train", piece, 60.0, 0, ("reed",))
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder = Path(name)
    ...     (folder / "audio").mkdir()
    ...     clips = make_clips(visit, folder, seed=1)
    ...     sorted(file.name for file in (folder / "audio").iterdir())
    ['bach-bwv300-take00.flac', 'bach-bwv300-take00.json']
    >>> clips[0]["family"], clips[0]["time_signature"]
    ('reed', '4/4')
    """
    entries = []
    score = None
    for take, (clip_id, family) in enumerate(
        zip(visit.clip_ids, visit.families, strict=True), start=visit.first_take
    ):
        audio_path = folder / AUDIO / f"{clip_id}.flac"
        labels_path = audio_path.with_suffix(".json")
        if audio_path.is_file() and labels_path.is_file():
            entries.append(json.loads(labels_path.read_text(encoding="utf-8")))
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
                **_labels(visit.piece, arrangement, rng, len(score.parts)),
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


def make_clips_in_worker(
    visit: Visit, folder: Path, seed: int, parent: int
) -> list[dict]:
    """`make_clips`, in a process that ends with the one that started it.

    Without that, a killed build would leave its workers behind.

    Arguments
    ---------
    visit, folder, seed
        See `make_clips`.
    parent : int
        Id of the process that builds the corpus; may be this one.

    Returns
    -------
    list of dict
        See `make_clips`.
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


def _labels(
    piece: Piece, arrangement: Arrangement, rng: random.Random, voices: int
) -> dict:
    """What is known of a clip, as it sounds."""
    tonic, mode, confidence = estimate_key(arrangement.excerpt.notes)
    key = key_name(tonic + arrangement.transposition, mode)
    instruments = [INSTRUMENTS[program].name for program in arrangement.programs]
    time_signature = arrangement.excerpt.time_signature
    return {
        "piece": piece.work,
        "composer": piece.composer,
        "title": piece.title,
        "programs": arrangement.programs,
        "instruments": instruments,
        "families": arrangement.families,
        "family": arrangement.family,
        "key": key,
        "mode": mode,
        "key_confidence": confidence,
        "time_signature": time_signature,
        "tempo_bpm": arrangement.tempo,
        "transposition": arrangement.transposition,
        "caption": write_caption(
            piece.composer,
            instruments,
            arrangement.family,
            key,
            arrangement.tempo,
            time_signature,
            rng,
            voices,
        ),
    }
