"""Two nodes learn what one process learns, also when one of them is killed.

    python benchmarks/nodes.py WORK [--port 29511]

Nodes are sets of processes of this machine, each with its own `torchrun`, folder for
temporary files and cache; they share the music and the run folder. WORK gets the runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile

from muq_plugins.evaluation.run_files import read_metrics

ROOT = Path(__file__).resolve().parents[1]
UPDATES, SAVED_EVERY, KILLED_AFTER = 24, 6, 9
OPTIONS = {
    "clips_per_update": 12,  # micro-batches for one, two and three processes
    "batch_size": 2,
    "clip_seconds": 2.0,
    "max_windows": 12,
    "encoder.width": 32,
    "encoder.num_layers": 2,
    "encoder.ffn_width": 64,
    "encoder.conv_channels": 4,
    "target.quantizer.codebook_size": 64,
    "optimizer_step_limit": UPDATES,
    "warmup_steps": 4,
    "lr": 0.003,
    "log_interval": 1,
    "valid_interval": UPDATES,
    "ckpt_interval_steps": SAVED_EVERY,
    "ckpt_interval_minutes": 0,
    "final_probe": False,
    "device": "cpu",
    "distributed_backend": "gloo",
}


class Job:
    """A training on nodes of some processes each; a single process has no torchrun."""

    def __init__(self, work: Path, run: str, nodes: int, processes: int, port: int):
        train = [str(ROOT / "recipes/MuQ/train.py"), str(work / "nodes.yaml")]
        train += ["--data_folder", str(work / "music"), "--noprogressbar"]
        train += ["--output_folder", str(work / run)]
        for name, value in OPTIONS.items():
            if name != "distributed_backend" or nodes * processes > 1:
                train += [f"--{name}", str(value)]
        self.nodes = []
        for node in range(nodes):
            own = work / f"node{node}"
            own.mkdir(exist_ok=True)
            command = [sys.executable]
            if nodes * processes > 1:
                command += ["-m", "torch.distributed.run", f"--nnodes={nodes}"]
                command += [f"--nproc_per_node={processes}", "--rdzv_backend=c10d"]
                command += [f"--rdzv_endpoint=localhost:{port}", f"--rdzv_id={run}"]
            places = {"TMPDIR": str(own), "XDG_CACHE_HOME": str(own / "cache")}
            with open(own / f"{run}.log", "ab") as log:
                self.nodes.append(
                    subprocess.Popen(
                        [*command, *train],
                        cwd=work,
                        env={**os.environ, **places, "OMP_NUM_THREADS": "1"},
                        stdout=log,
                        stderr=log,
                    )
                )

    def wait(self) -> list[int]:
        """The exit codes of the nodes."""
        return [node.wait() for node in self.nodes]

    def kill_last(self, metrics: Path) -> list[int]:
        """Kills the last node, and all its processes, in the middle of the run."""
        while not metrics.exists() or steps(metrics) < KILLED_AFTER:
            if any(node.poll() is not None for node in self.nodes):
                raise SystemExit(f"{metrics.parent} ended before it was killed")
            time.sleep(0.02)
        agent = psutil.Process(self.nodes[-1].pid)
        for process in (agent, *agent.children(recursive=True)):
            process.kill()
        return self.wait()


def steps(metrics: Path) -> int:
    """The newest update that a run has written down."""
    return max((row["step"] for row in read_metrics(metrics)), default=0)


def losses(folder: Path) -> np.ndarray:
    """Of each update."""
    rows = read_metrics(folder / "metrics.jsonl")
    found = {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}
    assert sorted(found) == list(range(1, UPDATES + 1)), f"{folder}: {sorted(found)}"
    return np.array([found[step] for step in sorted(found)])


def main() -> None:
    """Prints the largest difference of a loss, as a share of it, of each way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="a new folder for music and runs")
    parser.add_argument("--port", type=int, default=29511, help="where nodes meet")
    args = parser.parse_args()
    work, random = args.work.resolve(), np.random.default_rng(0)
    (work / "music").mkdir(parents=True)
    for number in range(40):
        time_axis = np.arange(24000 * int(random.integers(3, 9))) / 24000
        pitch = 110 * 2 ** (random.integers(0, 36) / 12)
        wav = 0.3 * np.sin(6.283 * pitch * time_axis) + random.normal(
            0, 0.05, len(time_axis)
        )
        soundfile.write(work / "music" / f"{number}.flac", wav, 24000)
    (work / "nodes.yaml").write_text(
        f"extends: {ROOT}/hparams/targets/baseline_bestrq.yaml\nexperiment: nodes\n"
    )

    def run(name: str, nodes: int, processes: int) -> np.ndarray:
        codes = Job(work, name, nodes, processes, args.port).wait()
        assert not any(codes), f"{name} ended with {codes}, see {work}/node*/{name}.log"
        return losses(work / name)

    one = run("one", 1, 1)
    found = {"two nodes": run("two", 2, 1)}
    metrics = work / "killed" / "metrics.jsonl"
    codes = Job(work, "killed", 2, 1, args.port).kill_last(metrics)
    assert all(codes), f"a node went on alone: {codes}"
    before = steps(metrics)
    for name, nodes, processes in (
        ("two nodes again", 2, 1),
        ("one process", 1, 1),
        ("three processes of one node", 1, 3),
    ):
        copy = f"on_{nodes}x{processes}"
        shutil.copytree(work / "killed", work / copy)
        words = f"two nodes, one killed after update {before}; then {name}"
        found[words] = run(copy, nodes, processes)
    print(f"Losses of {UPDATES} updates, {one[0]:.4f} to {one[-1]:.4f} on one process.")
    print("| what ran | beside one process | beside two nodes |\n|---|---|---|")
    two = found["two nodes"]
    for words, other in found.items():
        to_one, to_two = (np.abs(other / base - 1).max() for base in (one, two))
        print(f"| {words} | {to_one:.1e} | {to_two:.1e} |")


if __name__ == "__main__":
    main()
