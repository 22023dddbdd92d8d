"""Training from shards is training from the recordings."""

import soundfile

from muq_plugins.evaluation.run_files import read_metrics
from muq_plugins.inference.cli.main import main
from tests.goldens.metrics import CLOCK
from tests.integration.commands import HERE, recipe_here
from tests.unit.data.recordings import write_noise

STEPS = ["--optimizer_step_limit", "4", "--tokenizer.optimizer_step_limit", "4"]


def learned(folder, names=("tokenizer/metrics.jsonl", "metrics.jsonl")):
    """The rows of a run without its clocks."""
    rows = [row for name in names for row in read_metrics(folder / name)]
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in rows]


def test_shards_teach_what_the_recordings_teach(tmp_path):
    """Bit for bit: the same parts, ids, crops, masks and losses."""
    for number in range(8):
        name = f"album {number % 2}/{number}.wav"
        write_noise(tmp_path / "music" / name, 3 + number % 3, seed=number)
    assert soundfile.info(tmp_path / "music/album 0/0.wav").subtype == "PCM_16"
    given = ["shard", str(tmp_path / "music"), "--out", str(tmp_path / "shards")]
    assert main([*given, "--hours", "0.003"]) == 0
    runs = []
    for name in ("music", "shards"):
        runs.append(tmp_path / f"run of {name}")
        options = ["--data_folder", tmp_path / name, "--output_folder", runs[-1]]
        options += ["--data.corpus_folder", tmp_path / "corpus", *STEPS]
        recipe_here("train.py", HERE / "tiny.yaml", *options)
    one, other = map(learned, runs)
    assert len(one) > 8 and one == other
