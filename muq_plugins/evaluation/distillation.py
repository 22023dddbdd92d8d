"""What is left of a teacher in a student: cosine, probe, size and speed in a table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from torch import Tensor

from muq_plugins.evaluation.intervals import FEWEST_GROUPS, ends, interval
from muq_plugins.evaluation.page import (
    Fact,
    Page,
    Part,
    Table,
    Verdict,
    percent,
    write_page,
)
from muq_plugins.evaluation.probing.clips import Clip, window_batches
from muq_plugins.evaluation.probing.results import LINEAR, TaskResult
from muq_plugins.evaluation.probing.run import probe_at_end
from muq_plugins.files import write_json

FOLDER = "distillation"  # in that of the run
FILE = "distillation.json"
# Of the test part, for cosines: the middle of each of some clips, evenly spread.
MOST_CLIPS = 64
SPEED_SECONDS, REPEATS = 10.0, 5


@dataclass(frozen=True)
class Model:
    """The teacher, or something that answers in its place."""

    name: str
    states: Callable[[Tensor], Tensor]  # (frames, width) of a waveform (samples,)
    answer: Callable[[Tensor], Tensor]  # from them the teacher's (frames or 1, size)
    sample_rate: int
    frame_rate: float
    weights: int
    bytes: int


class LastStates:
    """The states of a model, for a probe of frames or of clips."""

    layers = 1
    others = ()

    def __init__(self, model: Model):
        self.model = model
        self.sample_rate, self.frame_rate = model.sample_rate, model.frame_rate
        self.fingerprint = model.name  # nothing is kept by it

    @torch.no_grad()
    def states(self, wavs: Tensor, wav_lens: Tensor):
        """See `Extractor`: clip by clip, as an exported file has no padding."""
        sizes = (wav_lens * wavs.shape[1]).round().int().tolist()
        pairs = zip(wavs, sizes, strict=True)
        found = [self.model.states(wav[:size]) for wav, size in pairs]
        lengths = torch.tensor([float(len(one)) for one in found])
        padded = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
        return [padded], lengths / lengths.max()

    frames = states


def compare(
    folder: str | Path,
    models: Sequence[Model],
    manifests: Any,
    clip_seconds: float,
    notes: Sequence[str] = (),
    teacher: str = "",
) -> Path:
    """Measures models, the teacher first, on the test part; the report.

    ``notes`` say why a model is missing, ``teacher`` where the first one is from.
    """
    folder = Path(folder)
    clips = [
        Clip(name, entry["wav"], entry["duration"], "test")
        for name, entry in sorted(manifests.test.items())
    ]
    evenly = clips[:: math.ceil(len(clips) / MOST_CLIPS)]
    rows = cosines(models, evenly, clip_seconds)
    for row, model in zip(rows, models, strict=True):
        row |= {"weights": model.weights, "bytes": model.bytes, "speed": speed(model)}
    probe = None
    if all(model.frame_rate for model in models):
        probe = probe_at_end(
            folder / "probe",
            lambda *_: {model.name: [LastStates(model)] for model in models},
            manifests.train,
            manifests.test,
        )
    for row in rows if probe else []:
        row |= probed(probe, row["name"], models[0].name)
    pieces = {manifests.test[clip.name].get("piece", clip.name) for clip in evenly}
    content = {
        "teacher": teacher,
        "music": manifests.source,
        "clips": len(evenly),
        "pieces": len(pieces),
        "task": probe and probe.label,
        "task_clips": probe and probe.clips["test"],
        "task_pieces": probe and probe.test_groups,
        "models": rows,
        "notes": list(notes),
    }
    write_json(folder / FILE, content)
    subtitle = f"Teacher: {teacher}; music: {manifests.source}"
    return write_page(folder, PAGE, content, subtitle, settings="")


@torch.no_grad()
def cosines(
    models: Sequence[Model], clips: Sequence[Clip], seconds: float
) -> list[dict]:
    """Of each model, the mean cosine to the first one: of frames, of means of clips.

    The first row also has what a model reaches that always gives the same answer.
    """
    frames: list[list] = [[] for _ in models]
    means: list[list] = [[] for _ in models]
    units = []
    rate = models[0].sample_rate
    for _, (wav,), _ in window_batches(clips, seconds, 1, rate, 1, []):
        truth = models[0].answer(models[0].states(wav))
        units.append(F.normalize(truth.double(), dim=1))
        for model, of_frames, of_clips in zip(models, frames, means, strict=True):
            said = model.answer(model.states(wav))
            both = min(len(said), len(truth))
            of_frames.append(F.cosine_similarity(said[:both], truth[:both], dim=1))
            of_clips.append(F.cosine_similarity(said.mean(0), truth.mean(0), dim=0))
    rows = [
        {
            "name": model.name,
            "frames": float(torch.cat(of_frames).mean()),
            "clips": float(torch.stack(of_clips).mean()),
        }
        for model, of_frames, of_clips in zip(models, frames, means, strict=True)
    ]
    rows[0]["constant"] = float(torch.cat(units).mean(0).norm())
    return rows


@torch.no_grad()
def speed(model: Model) -> float:
    """Seconds of audio for each second of one core, the best of a few."""
    wav = torch.randn(round(SPEED_SECONDS * model.sample_rate)) / 10
    threads, taken = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            for _ in range(REPEATS):
                begin = time.process_time()
                model.states(wav)
                taken.append(time.process_time() - begin)
    finally:
        torch.set_num_threads(threads)
    return SPEED_SECONDS / min(taken)


def probed(probe: TaskResult, name: str, teacher: str) -> dict:
    """What is read off a model, and what it loses beside the teacher."""
    row, best = probe.row(name, LINEAR), probe.row(teacher, LINEAR)
    lost = interval(best.value - row.value, probe.draws(best) - probe.draws(row))
    return {"probe": [row.value, row.low, row.high], "lost": list(lost)}


def _table(found: dict) -> Table:
    header = ["", "Million weights", "MB", "Cosine, frames", "Cosine, clips"]
    header += [f"Probe: {found['task']}", "Lost"] if found["task"] else []
    header.append("Times real time")
    rows = []
    for row in found["models"]:
        cells = [f"{row['weights'] / 1e6:.2f}", f"{row['bytes'] / 1e6:.1f}"]
        cells += [f"{row['frames']:.3f}", f"{row['clips']:.3f}"]
        if found["task"]:
            cells.append(percent(row["probe"][0]))
            lost, low, high = row["lost"]
            cells.append(f"{100 * lost:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        rows.append([row["name"], *cells, f"{row['speed']:.0f}"])
    return Table(header, rows)


def _facts(found: dict) -> Iterator[Fact]:
    teacher, student, *_ = found["models"]
    note = f"a constant answer: {teacher['constant']:.3f}"
    yield Fact("Cosine to the teacher", f"{student['frames']:.3f}", note)
    for row in found["models"][1:]:
        times = f"{row['speed'] / teacher['speed']:.1f} times as fast as the teacher"
        yield Fact(row["name"], f"{row['bytes'] / 1e6:.1f} MB", times)


def _verdicts(found: dict) -> Iterator[Verdict]:
    for row in found["models"][1:] if found["task"] else []:
        lost, low, high = row["lost"]
        if found["task_pieces"] < FEWEST_GROUPS:
            yield Verdict(
                "undecided",
                f"{row['name']}: whether {found['task']} is read better or worse than "
                f"off the teacher: the test part has only {found['task_pieces']} "
                "pieces with labels, too few to tell; give more test music",
            )
            continue
        words = f"{row['name']}: {found['task']} is read {100 * abs(lost):.1f} points "
        words += "worse" if lost > 0 else "better"
        span = ends(low, high) if lost > 0 else ends(-high, -low)  # of what is said
        level = "undecided" if low <= 0 <= high else "warning" if lost > 0 else "good"
        yield Verdict(level, f"{words} than off the teacher ({span})")
    for note in found["notes"]:
        yield Verdict("unfinished", note)


PAGE = Page(
    "Teacher and student",
    "distillation.md.j2",
    (_facts,),
    (_verdicts,),
    (Part("left", table=_table),),
)
