"""A checkpoint from the middle of a run, and the rows that followed it.

The tests resume it; it was made by ``make.py`` from the middle of a whole run.
"""

import json
import shutil
import tempfile
from pathlib import Path

from muq_plugins.brains import PretrainBrain
from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.experiment import load_experiment
from tests.goldens.parts import DATA, ROOT, write_wav

FOLDER = DATA / "checkpoint"
STEPS, MIDDLE = 6, 3

#: A model of a few kilobytes: what it is called in YAML may move, the sizes may not.
#: Its mask, its loss and its spectrogram are those of the day it was made.
TINY = """\
extends: {root}/hparams/muq.yaml
experiment: golden
target:
    features: {{features: {{n_mels: 16}}}}
    quantizer: {{num_codebooks: 2, codebook_size: 8, codebook_dim: 4}}
clip_seconds: 1.0
clips_per_update: 4
batch_size: 2
max_windows: 2
mel_statistics: [-30.0, 20.0]
mel_floor: null
masking: {{probability: 0.6}}
modules: {{pretrain: {{visible_weight: 0.0}}}}
encoder:
    width: 8
    num_layers: 1
    num_heads: 2
    ffn_width: 8
    conv_channels: 1
    n_mels: 16
    dropout: 0.1
lr: 0.003
warmup_steps: 2
log_interval: 1
valid_interval: 6
ckpt_interval_minutes: 0
tokenizer: null
final_probe: False
"""


def train(folder: Path, *options: str) -> list[dict]:
    """Trains, or goes on, to the last step; gives the rows of the metrics."""
    for number in range(10):
        write_wav(folder / "music" / f"{number}.wav", 1.5, number)
    path = folder / "tiny.yaml"
    path.write_text(TINY.format(root=ROOT), encoding="utf-8")
    values = {
        "--data_folder": folder / "music",
        "--data.corpus_folder": folder / "corpus",
        # As it was before small folders kept more files to test on.
        "--data.valid_fraction": 0.05,
        "--data.test_fraction": 0.05,
        "--output_folder": folder / "run",
        "--optimizer_step_limit": STEPS,
        "--device": "cpu",
    }
    options = [*options, *(str(part) for pair in values.items() for part in pair)]
    experiment = load_experiment([str(path), *options, "--noprogressbar"])
    hparams = experiment.hparams
    manifests = prepare_manifests(**hparams["data"])
    brain = PretrainBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=experiment.run_opts,
        checkpointer=hparams["checkpointer"],
    )
    train_loader, valid_loader, _ = brain.make_loaders(manifests)
    brain.fit(train_loader, valid_loader)
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    keys = ("kind", "step", "loss", "grad_norm", "lr")
    rows = [json.loads(line) for line in lines]
    return [{key: row[key] for key in keys if key in row} for row in rows]


def resume(folder: Path) -> list[dict]:
    """Goes on from the kept checkpoint; a run from the start gives more rows."""
    shutil.copytree(FOLDER / "save", folder / "run" / "save")
    return train(folder)


def make() -> None:
    """Trains as a whole and keeps the checkpoint of the middle."""
    with tempfile.TemporaryDirectory() as scratch:
        keep(Path(scratch))


def keep(scratch: Path) -> None:
    """Trains in a folder and keeps what is golden."""
    rows = train(scratch, "--ckpt_interval_steps", str(MIDDLE))
    kept = sorted((scratch / "run" / "save").glob("CKPT*"))[0]
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(kept, FOLDER / "save" / kept.name)
    rows = [row for row in rows if row["step"] > MIDDLE]
    (FOLDER / "rows.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
