"""Mutated audio files: every one is read, or refused with a typed error, in time.

The readers run in a process of their own, whose memory is limited: a crash of a decoder
ends that process, and this test says at which file. For more than the default:
``AUDIO_FUZZ=10000 pytest -n 0 tests/unit/data/test_audio_fuzz.py``.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from muq_plugins.data.audio import AudioError, audio_info, check_audio, read_audio
from tests.unit.data import recordings

resource = pytest.importorskip("resource", reason="limits of memory")
COUNT = int(os.environ.get("AUDIO_FUZZ", "500"))
SECONDS = 20.0  # for one file, on a machine that does other things too
MEMORY = 3 << 30  # with torch
KINDS = {
    "pcm.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "ima.wav": ("WAV", "IMA_ADPCM"),
    "gsm.wav": ("WAV", "GSM610"),
    "a.flac": ("FLAC", "PCM_16"),
    "a.ogg": ("OGG", "VORBIS"),
    "a.opus": ("OGG", "OPUS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"),
    "a.aiff": ("AIFF", "PCM_16"),
    "a.caf": ("CAF", "ALAC_16"),
    "a.w64": ("W64", "PCM_24"),
    "a.au": ("AU", "ULAW"),
    "a.rf64": ("RF64", "PCM_16"),
}


def make_sources(folder):
    """One short good file of each format."""
    rng = np.random.default_rng(0)
    wav = 0.3 * np.sin(np.arange(24000)[:, None] * 0.05)
    wav = wav + 0.02 * rng.standard_normal((24000, 2))
    for name, (form, subtype) in KINDS.items():
        some = wav[:, :1] if subtype == "GSM610" else wav
        soundfile.write(folder / name, some, 24000, format=form, subtype=subtype)
    for ending, (container, codec) in recordings.FORMATS.items():
        rate = 48000 if codec in ("libopus", "ac3", "mp2") else 24000
        path = folder / f"{codec}{ending}"
        recordings.encode(path, wav, rate, container, codec)
    return sorted(path.name for path in folder.iterdir())


def mutate(content, rng):
    """Other bytes: flipped, overwritten, cut, repeated, moved, most in the header."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        size = len(content)
        if not size:
            break
        at = rng.randrange(size if rng.random() < 0.5 else min(size, 128))
        length = rng.choice((1, 2, 4, 16, 300))
        match rng.randrange(7):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at : at + length] = rng.randbytes(length)
            case 2:
                value = rng.choice((b"\xff", b"\x00", b"\x7f", b"\x80"))
                content[at : at + length] = value * length
            case 3:
                del content[rng.randrange(size) :]
            case 4:
                del content[at : at + length]
            case 5:
                content[at:at] = content[at : at + 999]
            case 6:
                other = rng.randrange(size)
                content[at : at + length] = content[other : other + length]
    return bytes(content)


def read_mutated(folder, names, first, last):
    """Tries some of the files; prints what is wrong with them and with nothing else."""
    for number in range(first, last):
        rng = random.Random(number)
        name = names[number % len(names)]
        path = folder.parent / f"mutated-{os.getpid()}-{name}"
        path.write_bytes(mutate((folder / name).read_bytes(), rng))
        os.utime(path, (number, number))
        print(number, name, flush=True)
        begin = time.monotonic()
        check = check_audio(path)
        refused = []
        for read in (
            audio_info,
            read_audio,
            lambda path: read_audio(path, 0.3, 0.2),
        ):
            try:
                result = read(path)
            except AudioError as error:
                refused.append(error)
                assert str(error).startswith(str(path))
                continue
            if not hasattr(result, "duration"):
                assert result.dtype.is_floating_point and result.isfinite().all()
                assert 0 < len(result)
        took = time.monotonic() - begin
        assert took < SECONDS, f"{took} s"
        # One check, one policy: what is read whole is what the check has passed.
        whole = [error for error in refused if error.reason != "too short"]
        assert bool(check.reason) == any(whole), (check, refused)
        path.unlink()


@pytest.mark.slow
def test_mutated_files(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    names = make_sources(folder)
    code = (
        "import sys; from pathlib import Path; "
        "from tests.unit.data import test_audio_fuzz as fuzz; "
        "fuzz.read_mutated(Path(sys.argv[1]), sys.argv[2].split(), 0, int(sys.argv[3]))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), " ".join(names), str(COUNT)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY)),
        capture_output=True,
        timeout=60 + COUNT,
        text=True,
    )
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, (last, done.returncode, done.stderr[-3000:])
    assert last[0].startswith(f"{COUNT - 1} ")
