"""``muq-plugins doctor``: what is installed, and whether it works.

People run it when something is broken: nothing here is imported that can be.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from muq_plugins.errors import UserError, first_line
from muq_plugins.inference.cli import options

DISTRIBUTION = "muq-plugins"
# Packages whose versions must fit each other, and which break as a whole.
PAIR = ("torch", "torchaudio")
IMPORTED = (*PAIR, "speechbrain", "transformers", "hyperpyyaml")
OPTIONAL = {
    "pyarrow": "parquet",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "running what was exported",
    "peft": "LoRA",
    "fastapi": "serve",
    "uvicorn": "serve",
}
TOLERANCE = 1e-4


def doctor(
    file: Annotated[
        str | None,
        typer.Argument(
            help="with --stability: music (default: of the embedded corpus)"
        ),
    ] = None,
    stability: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="measure instead how little the vectors of a model move when the "
            "music stays the same",
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(metavar="N", help="with --stability: which hidden state"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="with --stability: cpu, cuda:0, mps, ..."),
    ] = None,
) -> int:
    """What is installed, and whether it works.

    Prints versions and devices, tests a tiny model, and says what to do about what is
    broken. The exit code is 1 if anything is. With --stability, one table: the cosine
    of the vector of a file to itself after silence at its start, another level, mp3 and
    Opus, with padding, and in a batch with other music; as it is, and brought to one
    loudness first.
    """
    if stability is not None:
        _report_stability(stability, file, layer, options.pick_device(device))
        return 0
    for name, value in {"A file": file, "--layer": layer, "--device": device}.items():
        if value is not None:
            raise UserError(f"{name} is for --stability MODEL: give both, or none.")
    import platform

    problems: list[str] = []
    print(
        f"{DISTRIBUTION} {_version(DISTRIBUTION) or '(not installed)'}, Python "
        f"{platform.python_version()}, {platform.platform()}"
    )
    print("\nPackages")
    broken = _report_packages(problems)
    print("\nOptional packages")
    for name, purpose in OPTIONAL.items():
        found = _version(name) or f"not installed (pip install {name})"
        print(f"  {name:<13} {found}, for {purpose}")
    print("\nDevices")
    devices = ["cpu"]
    if "torch" in broken:
        print("  unknown: torch cannot be imported")
    else:
        for device, words in find_devices():
            print(f"  {device:<7} {words}")
            devices += [device] if device.startswith("cuda:") else []
    print("\nSelf-test: hidden states in float32, padding, codes")
    if broken & set(PAIR):
        print(f"  not run: {', '.join(sorted(broken))} cannot be imported")
        devices = []
    for device in devices:
        start = time.perf_counter()
        words = _failure(self_test, device)
        took = time.perf_counter() - start
        print(f"  {device:<7} {words or 'ok'}, {took:.1f} s")
        if words:
            problems.append(f"The self-test on {device} failed: {words}")
    print()
    for problem in dict.fromkeys(problems):
        print(problem)
    if not problems:
        print("Everything works.")
    return 1 if problems else 0


def _report_stability(
    source: str, file: str | None, layer: int | None, device: str
) -> None:
    """Prints what moves the vectors of a model, and how far."""
    import tempfile
    from pathlib import Path

    from muq_plugins.data.audio import audio_info
    from muq_plugins.inference.cli.index import load_audio_model
    from muq_plugins.inference.stability import (
        MOST_SECONDS,
        is_silent,
        levels,
        measure_stability,
        two_pieces,
    )

    if file is not None:
        audio_info(file)  # before the model is loaded
        if is_silent(file):
            raise UserError(
                f"{file} is silent in its first {MOST_SECONDS:g} s: of silence nothing "
                f"can change, give music."
            )
    model = load_audio_model(source, layer, device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own, other = two_pieces(folder)
        file = file or own
        seconds = min(MOST_SECONDS, audio_info(file).duration)
        rows = measure_stability(model, file, other, folder)
    heard = f"{Path(own).stem} of the embedded corpus" if file == own else file
    print(
        f"{source}, space {model.space().name}: cosine to the vector of the same music,"
        f"\nunchanged; {seconds:.0f} s of {heard}\n"
    )
    heads = ["as it is" if x is None else f"at {x:g} LUFS" for x in levels()]
    width = max(len(row.change) for row in rows)
    print(" ".join([" " * width, *(f"{head:>12}" for head in heads)]))
    for row in rows:
        values = (f"{cosine:12.4f}" for cosine in row.cosines)
        print(" ".join([f"{row.change:<{width}}", *values]))
    *changes, last = rows
    for place, head in enumerate(heads):
        worst = min(changes, key=lambda row: row.cosines[place])
        way = (1 - worst.cosines[place]) / max(1e-9, 1 - last.cosines[place])
        print(
            f"{chr(10) * (not place)}{head[0].upper()}{head[1:]}, {worst.change} moves "
            f"it most: "
            f"{worst.cosines[place]:.4f}, {way:.0%} of the way to the other music."
        )


def find_devices() -> Iterator[tuple[str, str]]:
    """What torch can compute on: what --device takes, and what it is."""
    import torch

    yield "cpu", f"{torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        with torch.cuda.device(index):
            free, total = torch.cuda.mem_get_info()
            bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        yield (
            f"cuda:{index}",
            f"{torch.cuda.get_device_name(index)}, {free / 2**30:.1f} of "
            f"{total / 2**30:.1f} GiB free, bfloat16 {'yes' if bfloat16 else 'no'}",
        )
    if torch.version.cuda and not torch.cuda.is_available():
        try:
            torch.cuda.init()
            reason = "no device"
        except RuntimeError as error:
            reason = first_line(error)
        yield "cuda", f"not usable: {reason}"
    if torch.backends.mps.is_available():
        yield "mps", "Apple GPU"


def self_test(device: str) -> None:
    """Runs tiny models; a RuntimeError if a result is wrong."""
    import torch

    from muq_plugins.lobes import (
        LogMel,
        MuQEncoder,
        ResidualVQ,
        StackedFrames,
        Target,
    )

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        encoder = MuQEncoder(
            32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4
        )
        target = Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 16))
        wavs = torch.rand(2, 48000) - 0.5
    encoder.eval().to(device)
    target.to(device)
    wavs = wavs.to(device)
    with torch.no_grad():
        alone = encoder(wavs[1:, :24000]).last_hidden_state[0]
        lens = torch.tensor([1.0, 0.5], device=device)
        padded = encoder(wavs, lens).last_hidden_state[1, : len(alone)]
        codes = target(wavs, lens)
    if not torch.isfinite(alone).all():
        raise RuntimeError("hidden states are not finite")
    difference = (padded - alone).abs().max().item()
    if difference > TOLERANCE:
        raise RuntimeError(f"padding changes hidden states by {difference:.1e}")
    if not ((codes[0] >= 0) & (codes[0] < target.codebook_size)).all():
        raise RuntimeError("codes are out of range")


def _report_packages(problems: list[str]) -> set[str]:
    """Prints versions, notes problems, and returns what cannot be imported."""
    ranges = _ranges()
    if not ranges:
        problems.append(
            f"{DISTRIBUTION} is not installed, so its requirements are unknown: run "
            f"`pip install -e .` in its folder."
        )
    broken: set[str] = set()
    causes: set[str] = set()  # one broken package makes others fail: tell it once
    for name in dict.fromkeys([*IMPORTED, *ranges]):
        version, allowed = _version(name), ranges.get(name)
        wrong = []
        if version is None:
            wrong.append("not installed")
        elif allowed is not None and not allowed.contains(version, prereleases=True):
            wrong.append("not supported")
        error = _failure(importlib.import_module, name) if name in IMPORTED else None
        if error:
            broken.add(name)
            if version is not None:
                known = " either" if error in causes else f": {error}"
                wrong.append(f"cannot be imported{known}")
            causes.add(error)
        needed = f" (needs {allowed})" if allowed else ""
        print(f"  {name:<13} {version or '-'}{needed}: {'; '.join(wrong) or 'ok'}")
        if wrong:
            problems.append(_remedy(name, ranges, broken))
    return broken


def _remedy(name: str, ranges: dict[str, Any], broken: set[str]) -> str:
    """What to do about a package."""
    if name in PAIR or (name == "speechbrain" and broken & set(PAIR)):
        pair = " ".join(f"'{part}{ranges.get(part, '')}'" for part in PAIR)
        return (
            "torch and torchaudio must be in these ranges and built for the same CUDA "
            f"version. Install both again, from the same index:\n  pip install "
            f"--force-reinstall {pair}\nFor a build without CUDA add --index-url "
            "https://download.pytorch.org/whl/cpu. SpeechBrain needs both of them."
        )
    needed = f"{name}{ranges.get(name, '')}"
    return (
        f"{name} is missing, unsupported or broken: run `pip install --upgrade "
        f"'{needed}'`."
    )


def _ranges() -> dict[str, Any]:
    """What each required package's version must be; empty if we are not installed."""
    from importlib import metadata  # slow, and only needed here

    try:
        from packaging.requirements import Requirement

        lines = metadata.requires(DISTRIBUTION) or []
    except (ImportError, metadata.PackageNotFoundError):
        return {}
    requirements = [Requirement(line) for line in lines]
    return {
        requirement.name: requirement.specifier
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _failure(call: Callable[[str], Any], name: str) -> str | None:
    """Calls something that can be broken; the reason if it is."""
    try:
        call(name)
    except Exception as error:  # a broken package can raise anything
        return first_line(error)
    return None
