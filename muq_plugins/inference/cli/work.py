"""Work on many audio files: resuming, batches read ahead, and files that are bad."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from muq_plugins.data.audio import AudioError, duration_for, read_audio
from muq_plugins.data.loudness import at_loudness
from muq_plugins.data.shares import is_own, own_share
from muq_plugins.data.windows import read_blocks
from muq_plugins.errors import UserError, shown
from muq_plugins.inference.cli.inputs import AudioInput, find_inputs
from muq_plugins.inference.cli.options import count_files, report_problems, say
from muq_plugins.inference.cli.outputs import (
    check_format,
    find_records,
    is_current,
    output_path,
    read_facts,
    source_of,
    write_record,
)

# Several headers at once: on a network drive each one is a wait.
READERS = 8

Item = TypeVar("Item")


class Work(Protocol):
    """What a command does with audio; shorter audio than `min_samples` has no frame."""

    about: dict[str, Any]  # facts for the outputs that do not decide about resuming
    sample_rate: int
    min_samples: int
    longest: float  # seconds; longer audio is streamed
    loudness: float | None  # in LUFS, which every file is brought to
    device: str

    def settings(self, duration: float) -> dict[str, Any]:
        """All that decides what the output for a file of this duration is."""

    def batch(self, wavs: Tensor, wav_lens: Tensor) -> list[dict[str, np.ndarray]]:
        """The arrays of each clip of a padded batch (batch, samples)."""

    def stream(self, blocks: Iterable[Tensor]) -> dict[str, np.ndarray]:
        """The arrays of long audio."""


@dataclass
class Job:
    """An output, which is there already or has to be made."""

    input: AudioInput
    output: Path
    duration: float
    done: bool = False


def run_work(
    prepare: Callable[[], Work],
    sources: list[str],
    out: str,
    format: str,
    batch_seconds: float,
    overwrite: bool,
) -> int:
    """Makes one output for each input that has none yet; 1 if there were problems.

    What is slow, such as loading a model, is in `prepare`. Of several processes each
    makes its share, see `is_own`.
    """
    check_format(format)
    rank, world = own_share()
    inputs, problems = find_inputs(sources)
    inputs = [item for item in inputs if is_own(item.name)]
    problems = problems if rank == 0 else []
    work = prepare()
    begin = time.monotonic()
    todo, done = [], []
    for job in plan_work(work, inputs, out, format, overwrite):
        if isinstance(job, AudioError):
            problems.append(str(job))
        else:
            (done if job.done else todo).append(job)
    before = _seconds(done)
    progress = tqdm(
        total=before + _seconds(todo),
        initial=before,
        unit=" s",
        bar_format="{l_bar}{bar}| {n:.0f} of {total:.0f} s of audio "
        "[{elapsed}<{remaining}, {rate_noinv_fmt}]",
        disable=True if rank else None,  # no bar where nobody sees it move
    )

    def refuse(job: Job, error: AudioError) -> None:
        problems.append(str(error))
        progress.update(job.duration)

    def heard(job: Job) -> Iterator[Tensor]:
        for block in ahead(
            read_blocks(job.input.path, work.sample_rate, work.loudness)
        ):
            yield block
            progress.update(len(block) / work.sample_rate)

    made: list[Job] = []
    try:
        with progress:
            for jobs, wavs, lens in batches(work, todo, batch_seconds, refuse):
                try:
                    if wavs is not None:
                        results = work.batch(wavs, lens)
                        progress.update(_seconds(jobs))
                    else:
                        results = [work.stream(heard(jobs[0]))]
                except AudioError as error:  # in the middle of a stream
                    problems.append(str(error))
                    continue
                except RuntimeError as error:
                    # On a CPU, torch has no class of its own for this.
                    words = "can't allocate memory"
                    is_memory = isinstance(error, torch.OutOfMemoryError)
                    if not is_memory and words not in str(error):
                        raise
                    raise UserError(
                        f"{_seconds(jobs):.0f} s of audio do not fit into the memory "
                        f"of {work.device}: lower --batch-seconds (it is "
                        f"{batch_seconds:g}). What is done stays."
                    ) from error
                for job, arrays in zip(jobs, results, strict=True):
                    about = {
                        "path": job.input.path,
                        "duration": job.duration,
                        "source": source_of(job.input.path),
                    }
                    facts = {**work.settings(job.duration), **work.about, **about}
                    write_record(job.output, facts, arrays)
                    made.append(job)
    finally:
        took = time.monotonic() - begin
        say(
            f"{out}: {count_files(len(made))} made in {took:.1f} s "
            f"({_seconds(made):.0f} s of audio), {len(done)} were there already."
        )
        code = report_problems(
            f"{count_files(len(problems))} could not be used:", problems, world
        )
    return code


def plan_work(
    work: Work, inputs: list[AudioInput], out: str, format: str, overwrite: bool
) -> list[Job | AudioError]:
    """Compares the inputs with the outputs that are there, before anything is written.

    An output is done if it can be read, was made with the same settings, and its audio
    file has the size and the time of change that it had then. Other settings, also of
    outputs for other files, are refused: a folder holds one kind of output. So are
    outputs of other files under the same name, see `is_current`.
    """
    outputs = [output_path(out, item.name, format) for item in inputs]

    def look(item: AudioInput, output: Path) -> Job | AudioError:
        facts = None if overwrite else _facts_of(output)
        if facts is not None:
            if difference := _difference(facts, work.settings):
                raise UserError(
                    f"{shown(output)} {difference}. Give another --out, or "
                    f"--overwrite to make it again."
                )
            if is_current(output, facts, item.path):
                return Job(item, output, float(facts["duration"]), done=True)
        try:
            least = work.min_samples / work.sample_rate
            return Job(item, output, duration_for(item.path, least))
        except AudioError as error:
            return error

    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(look, inputs, outputs))
    _refuse_mixture(out, set(outputs), format, work.settings)
    return found


def _seconds(jobs: list[Job]) -> float:
    return sum(job.duration for job in jobs)


def _refuse_mixture(
    out: str,
    outputs: set[Path],
    format: str,
    settings: Callable[[float], dict[str, Any]],
) -> None:
    """Looks at one output of another file, which has what all others have."""
    for path in find_records(out):
        facts = None if path in outputs else _facts_of(path)
        if not facts or "command" not in facts:
            continue  # damaged, or of something else and not in the way
        difference = _difference(facts, settings)
        if not difference and path.suffix[1:] != format:
            difference = f"is there as {path.suffix[1:]}, this is {format}"
        if difference:
            raise UserError(
                f"{shown(path)} {difference}: outputs of two kinds in one folder "
                f"cannot be told apart. Give another --out."
            )
        return


def batches(
    work: Work,
    jobs: list[Job],
    batch_seconds: float,
    refuse: Callable[[Job, AudioError], Any],
) -> Iterator[tuple[list[Job], Tensor | None, Tensor | None]]:
    """Files of similar duration, padded, read while the batch before is computed.

    The longest come first: what does not fit into memory shows at the beginning. A file
    that is longer than `work.longest` comes alone and without waveform, to be streamed.
    """
    groups: list[list[Job]] = []
    for job in sorted(jobs, key=lambda job: -job.duration):
        group = groups[-1] if groups else []
        longest = group[0].duration if group else 0.0
        fits = longest * (len(group) + 1) <= batch_seconds
        if group and fits and longest <= work.longest:
            group.append(job)
        else:
            groups.append([job])

    def read(group: list[Job]) -> tuple[list[Job], Tensor | None, Tensor | None]:
        if group[0].duration > work.longest:
            return group, None, None
        wavs = {}
        for place, job in enumerate(group):
            try:
                wav = read_audio(job.input.path, sample_rate=work.sample_rate)
                wavs[place] = at_loudness(wav, work.sample_rate, work.loudness)
            except AudioError as error:
                refuse(job, error)
        if not wavs:
            return [], None, None
        lengths = torch.tensor([len(w) for w in wavs.values()], dtype=torch.float64)
        padded = torch.nn.utils.rnn.pad_sequence(list(wavs.values()), True)
        return [group[place] for place in wavs], padded, lengths / lengths.max()

    return (batch for batch in ahead(map(read, groups)) if batch[0])


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Prepares the next item in a thread while the caller works on the current one."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator, end)
        while (item := future.result()) is not end:
            future = pool.submit(next, iterator, end)
            yield item


def _facts_of(output: Path) -> dict[str, Any] | None:
    """The facts of an output; None if it is not there or not complete."""
    try:
        return read_facts(output)
    except UserError:
        return None


def _difference(
    facts: dict[str, Any], settings: Callable[[float], dict[str, Any]]
) -> str:
    """Words for how an output differs from what would be made now."""
    if "duration" not in facts or "source" not in facts:
        return "is a file of something else"
    now = settings(facts["duration"])
    if facts.get("command") != now["command"]:
        return f"was made by `muq-plugins {facts.get('command')}`"
    differences = [
        f"{key} is {facts.get(key)} there, {value} now"
        for key, value in now.items()
        if facts.get(key) != value
    ]
    if not differences:
        return ""
    return f"was made with other settings: {'; '.join(differences)}"
