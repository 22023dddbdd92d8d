"""Work on many audio files: resuming, batches, progress, and files that are bad."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from muq_plugins.data.audio import AudioError, read_audio
from muq_plugins.inference.commands.batches import ahead, make_batches
from muq_plugins.inference.commands.inputs import AudioInput
from muq_plugins.inference.commands.options import CommandError
from muq_plugins.inference.commands.records import Record, write_record
from muq_plugins.inference.commands.resuming import Job, plan_jobs
from muq_plugins.inference.commands.work import Work
from muq_plugins.inference.printing import shown


def run(
    work: Work, inputs: list[AudioInput], problems: list[str], arguments: Namespace
) -> int:
    """Makes one output for each input that has none yet."""
    begin = time.monotonic()
    plan = plan_jobs(work.settings, inputs, arguments)
    problems = problems + plan.problems
    count, seconds = 0, 0.0
    progress = tqdm(
        total=plan.seconds_done + sum(job.duration for job in plan.todo),
        initial=plan.seconds_done,
        unit=" s",
        bar_format="{l_bar}{bar}| {n:.0f} of {total:.0f} s of audio "
        "[{elapsed}<{remaining}, {rate_noinv_fmt}]",
        disable=None,  # no bar where nobody sees it move
    )
    try:
        with progress:
            for job, arrays in compute(
                work, plan.todo, arguments.batch_seconds, progress.update
            ):
                if isinstance(arrays, str):
                    problems.append(arrays)
                    continue
                facts = {**work.settings(job.duration), **work.about, **job.facts}
                write_record(job.output, Record(facts, arrays))
                count, seconds = count + 1, seconds + job.duration
    finally:
        took = time.monotonic() - begin
        _report(
            f"{shown(arguments.out)}: {_files(count)} made in {took:.1f} s "
            f"({seconds:.0f} s of audio), {plan.num_done} were there already.",
            problems,
        )
    return 1 if problems else 0


def compute(
    work: Work,
    jobs: list[Job],
    limit: float,
    advance: Callable[[float], Any],
) -> Iterator[tuple[Job, dict[str, np.ndarray] | str]]:
    """Computes outputs, reading one batch ahead."""
    batches = make_batches(jobs, limit)
    for batch, wavs in ahead((batch, _read(work, batch, limit)) for batch in batches):
        try:
            if batch[0].duration > limit:
                yield batch[0], _stream(work, batch[0], advance)
                continue
            good = [wav for wav in wavs if isinstance(wav, Tensor)]
            results = iter(_batch(work, good) if good else [])
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            raise CommandError(
                f"{sum(job.duration for job in batch):.0f} s of audio do not fit into "
                f"the memory of {work.device}: lower --batch-seconds (it is "
                f"{limit:g}). What is done stays.",
                code=1,
            ) from error
        for job, wav in zip(batch, wavs, strict=True):
            yield job, next(results) if isinstance(wav, Tensor) else wav
            advance(job.duration)


def _read(work: Work, batch: list[Job], limit: float) -> list[Tensor | str]:
    """The waveforms of a batch, or what is wrong with them; none if it is streamed."""
    wavs: list[Tensor | str] = []
    for job in batch:
        if job.duration > limit:
            continue
        try:
            wav = read_audio(job.input.path, sample_rate=work.sample_rate)
        except AudioError as error:
            wavs.append(shown(str(error)))
            continue
        wavs.append(wav if len(wav) >= work.min_samples else _too_short(work, job))
    return wavs


def _batch(work: Work, wavs: list[Tensor]) -> list[dict[str, np.ndarray]]:
    lengths = torch.tensor([len(wav) for wav in wavs], dtype=torch.float64)
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    return work.batch(padded, lengths / lengths.max())


def _stream(
    work: Work, job: Job, advance: Callable[[float], Any]
) -> dict[str, np.ndarray] | str:
    from muq_plugins.inference.long_audio import read_blocks

    told = 0.0

    def count(seconds: float) -> None:
        nonlocal told
        told += seconds
        advance(seconds)

    try:
        return work.stream(ahead(read_blocks(job.input.path, work.sample_rate)), count)
    except AudioError as error:
        return shown(str(error))
    finally:
        advance(job.duration - told)


def _too_short(work: Work, job: Job) -> str:
    least = work.min_samples / work.sample_rate
    return (
        f"{shown(job.input.path)}: {job.duration:.3f} s are too short for a frame, "
        f"which needs {least:.3f} s. Leave the file out."
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On a CPU, torch has no class of its own for this.
    words = "can't allocate memory"
    return isinstance(error, torch.OutOfMemoryError) or words in str(error)


def _report(summary: str, problems: list[str]) -> None:
    print(summary, file=sys.stderr)
    if problems:
        print(f"{_files(len(problems))} could not be used:", file=sys.stderr)
        print(
            "".join(f"  {problem}\n" for problem in problems), end="", file=sys.stderr
        )


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"
