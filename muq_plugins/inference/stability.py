"""How far the vector of a track moves while the music stays the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
import soundfile
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, pad

from muq_plugins.data.audio import read_audio
from muq_plugins.data.corpus.pieces import find_pieces
from muq_plugins.data.corpus.rendered import AUDIO
from muq_plugins.data.corpus.schedule import Visit
from muq_plugins.data.corpus.takes import make_clips
from muq_plugins.data.loudness import (
    SILENT,
    at_loudness,
    can_measure,
    measure_loudness,
)
from muq_plugins.inference.space import WINDOW_SECONDS
from muq_plugins.lobes.mulan import AudioModel

# Of what is written: the one rate that Opus has and mp3 too.
RATE = 48000
# More than one window, and still quick with a large model.
MOST_SECONDS = 60.0
# What streaming services bring music to is near it.
LEVELS = (None, -16.0)
LEAD_INS = (0.15, 0.4, 1.2)
GAINS = (-6, -20)
CODECS = (
    ("mp3", "libmp3lame", 128),
    ("mp3", "libmp3lame", 64),
    ("Opus", "libopus", 96),
    ("Opus", "libopus", 32),
)


class BatchModel(AudioModel, Protocol):
    """What embeds files, and batches as well."""

    sample_rate: int

    def embed_audio(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Vectors (batch, latent_width) of padded clips."""


@dataclass
class Row:
    """What was done to the music, and the cosine to what it was, at each level."""

    change: str
    cosines: list[float]


def levels() -> list[float | None]:
    """As it is, and what music is brought to, where that can be measured."""
    return [level for level in LEVELS if level is None or can_measure()]


def is_silent(path: str | Path) -> bool:
    """Whether what is heard of a file is nowhere as loud as music."""
    wav = read_audio(path, 0.0, MOST_SECONDS, sample_rate=RATE)
    if can_measure():
        return measure_loudness([wav], RATE) <= SILENT
    return not wav.any()


def measure_stability(
    model: BatchModel, path: str | Path, other: str | Path, folder: Path
) -> list[Row]:
    """Cosines of the vector of a file under changes that a listener hardly hears.

    The last row is another file, for scale. Changed files are written into a folder.
    """
    wav, stranger = (
        read_audio(name, 0.0, MOST_SECONDS, sample_rate=RATE) for name in (path, other)
    )
    names = {"": _write_wav(folder / "clean.wav", wav)}
    for change, write in _changes(wav):
        target = folder / f"{len(names)}"
        names[change] = write(target)
    names["other music, for scale"] = _write_wav(folder / "other.wav", stranger)
    columns = [
        {change: _vector(model, name, level) for change, name in names.items()}
        for level in levels()
    ]
    others = names["other music, for scale"]
    batches = [_in_batches(model, names[""], others, level) for level in levels()]
    rows = []
    for change in names:
        if change:
            cosines = [_cosine(column[change], column[""]) for column in columns]
            rows.append(Row(change, cosines))
    last = rows.pop()
    for change in batches[0]:
        rows.append(Row(change, [cosines[change] for cosines in batches]))
    return [*rows, last]


def two_pieces(folder: Path) -> tuple[str, str]:
    """Renders two pieces of the test part of the embedded corpus, unlike each other."""
    kinds = {
        piece.path.split("/")[0]: piece
        for piece in reversed(find_pieces())
        if piece.split == "test"
    }
    (folder / AUDIO).mkdir()
    found = []
    for kind, family in (("bach", "mixed"), ("ryansMammoth", "strings")):
        visit = Visit("test", kinds[kind], MOST_SECONDS, 0, (family,))
        make_clips(visit, folder, seed=1234)
        found.append(str(folder / AUDIO / f"{visit.clip_ids[0]}.flac"))
    return found[0], found[1]


def _changes(wav: Tensor) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """What is done to the music, in words, and how it is written."""
    for seconds in LEAD_INS:
        late = pad(wav, (round(seconds * RATE), 0))
        yield (
            f"lead-in silence of {seconds:g} s",
            lambda path, late=late: _write_wav(path.with_suffix(".wav"), late),
        )
    for gain in GAINS:
        quiet = wav * 10 ** (gain / 20)
        yield (
            f"gain of {gain} dB",
            lambda path, quiet=quiet: _write_wav(path.with_suffix(".wav"), quiet),
        )
    for name, codec, kilobits in CODECS:
        if codec in av.codecs_available:
            yield (
                f"{name} at {kilobits} kbit/s",
                lambda path, codec=codec, rate=kilobits: _encode(
                    path.with_suffix(".mp3" if "mp3" in codec else ".opus"),
                    wav,
                    codec,
                    1000 * rate,
                ),
            )


def _write_wav(path: Path, wav: Tensor) -> Path:
    soundfile.write(path, wav.numpy(), RATE, "FLOAT")
    return path


def _encode(path: Path, wav: Tensor, codec: str, bit_rate: int) -> Path:
    """Writes a file of a codec that loses something."""
    frame = av.AudioFrame.from_ndarray(wav.numpy()[None], "flt", "mono")
    frame.sample_rate, frame.pts = RATE, 0
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=RATE, layout="mono")
        stream.bit_rate = bit_rate
        context = stream.codec_context
        resampler = av.AudioResampler(context.format, "mono", RATE)
        for part in (*resampler.resample(frame), None):
            file.mux(stream.encode(part))
    return path


def _vector(model: BatchModel, path: Path, level: float | None) -> Tensor:
    return model.embed_file(str(path), level).float().cpu().view(-1)


def _in_batches(
    model: BatchModel, path: Path, other: Path, level: float | None
) -> dict[str, float]:
    """Cosines of a window alone to itself in longer batches."""
    rate = model.sample_rate
    wav = at_loudness(read_audio(path, 0.0, WINDOW_SECONDS, rate), rate, level)
    mate = torch.cat([wav.flip(0), read_audio(other, 0.0, 10.0, rate)])
    longer = pad(wav, (0, len(mate) - len(wav)))
    share = len(wav) / len(mate)
    alone = model.embed_audio(wav[None])[0]
    padded = model.embed_audio(longer[None], torch.tensor([share]))[0]
    lens = torch.tensor([share, 1.0], dtype=torch.float64)
    beside = model.embed_audio(torch.stack([longer, mate]), lens)[0]
    return {
        "padding in a batch": _cosine(padded, alone),
        "a batch with other music": _cosine(beside, alone),
    }


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(cosine_similarity(one.double().cpu(), other.double().cpu(), dim=-1))
