"""What every experiment file builds and trains with, whatever its YAML looks like.

Keys and files may move; the weights that a seed gives, the loss of a first step, the
optimizer, the schedule and the sizes of batches may not.
"""

import functools
import hashlib
from pathlib import Path

import numpy as np
import torch

from muq_plugins.experiment import load_hparams, resolve_experiment
from muq_plugins.experiment.extends import parse_yaml, tag_of
from tests.goldens.parts import DATA, ROOT, write

#: Settings of a training that mean the same wherever they stand.
SETTINGS = [
    "batch_size",
    "checkpoints_to_keep",
    "chunk_size",
    "ckpt_interval_minutes",
    "clip_seconds",
    "clips_per_update",
    "log_interval",
    "max_bad_fraction",
    "max_grad_norm",
    "max_windows",
    "mel_statistics",
    "num_workers",
    "optimizer_step_limit",
    "precision",
    "seed",
    "tokenizer_captions",
    "valid_interval",
    "windows_per_clip",
]

#: Experiments of a first stage alone.
TOKENIZERS = ["mel_rvq", "mel_rvq_large"]

#: Experiments without a model of their own: their values are compared one by one.
PLAIN = (
    "probe",
    "study",
    "zero_shot",
    "muq_iter",
    "baseline_hubert_iter2",
    "seed_asr",
)

#: Those whose parts are downloaded, or take long to build: their values as well.
WITHOUT_PARTS = (
    "continue_hubert",
    "baseline_encodec",
    "mert",
    "muq_mulan",
    "recognition",
)

#: A small teacher in the place of a trained one.
TEACHER = str(DATA / "encoders" / "muq")


def files() -> dict[str, Path]:
    """Experiment files by name, wherever below hparams they are."""
    return {path.stem: path for path in sorted((ROOT / "hparams").rglob("*.yaml"))}


def overrides(name: str) -> dict:
    """What has to be given for an experiment to be built offline and small."""
    if "_latent" in name and "ema" not in name:
        return {"target.features.source": TEACHER, "target.features.layer": 1}
    if name.startswith("distil"):
        mulan = {"teacher": str(DATA / "mulan"), "clip_seconds": 0.2}
        return mulan if name == "distil_mulan" else {"teacher": TEACHER}
    if name == "mt4ssl":
        place = "targets.clusters.target.features"
        return {f"{place}.source": TEACHER, f"{place}.layer": 1}
    return {}


def plain(value):
    """An object of YAML as JSON can hold it: classes by name, files by their name."""
    if isinstance(value, functools.partial):
        return {
            value.func.__qualname__: [*map(plain, value.args), plain(value.keywords)]
        }
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return Path(value).name if value.endswith(".yaml") else value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    public = {k: v for k, v in vars(value).items() if not k.startswith("_")}
    return {type(value).__name__: plain(public)}


def tree(node):
    """A node of parsed YAML as JSON can hold it, tags by the last part of a path."""
    if isinstance(node, dict):
        found = {str(k): tree(v) for k, v in node.items() if k != "__set_seed"}
    elif isinstance(node, list):
        found = [tree(item) for item in node]
    else:
        found = plain(getattr(node, "value", node))
    tag = tag_of(node)
    if tag and tag.startswith(("!new:", "!name:", "!apply:")):
        return {tag.rsplit(".")[-1]: found}
    return {tag: found} if tag else found


def checksum(module: torch.nn.Module) -> dict:
    """Names, shapes and a number that any other weights would change."""
    names, total, size = hashlib.sha256(), 0.0, 0.0
    for name, tensor in sorted(module.state_dict().items()):
        names.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        values = np.nan_to_num(tensor.detach().double().flatten().numpy())
        total += float(values @ np.cos(np.arange(len(values)) + 1.0))
        size += float(np.abs(values).sum())
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "names": names.hexdigest()[:16],
        "values": [float(f"{total:.7g}"), float(f"{size:.7g}")],
    }


def training(hparams: dict) -> dict:
    """Everything that a training is set to."""
    optimizer, schedule = hparams.get("opt_class"), hparams.get("lr_schedule")
    found = {key: plain(hparams[key]) for key in SETTINGS if key in hparams}
    found["optimizer"] = plain(optimizer)
    found["schedule"] = plain(schedule)
    if "brain" in hparams:
        brain = hparams["brain"]
        found["brain"] = plain(brain) if hasattr(brain, "func") else brain.__name__
    return found


def part(module: torch.nn.Module) -> dict:
    """A part: its class, identity and weights."""
    config = getattr(module, "config", {})
    return {
        "class": type(module).__name__,
        "config": plain(config),
        **checksum(module),
        **{
            key: getattr(module, key)
            for key in ("frame_rate", "sample_rate", "input_size", "codebook_size")
            if hasattr(module, key)
        },
    }


def build(text: str) -> dict:
    """The objects of an experiment, and then random numbers that are always equal."""
    hparams = load_hparams(text)
    torch.manual_seed(0)
    return hparams


def step(stage: torch.nn.Module) -> float:
    """The loss of one training step on noise."""
    wavs = 0.1 * torch.randn(2, 24000, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    out = stage.train()(wavs, torch.tensor([1.0, 0.8]), torch.tensor([3, 4]))
    return float(f"{out.loss.item():.7g}")


def tokenizer(hparams: dict) -> dict:
    """The tokenizer stage of an experiment."""
    features, quantizer = hparams["target"].features, hparams["target"].quantizer
    found = {"features": part(features), "quantizer": part(quantizer)}
    for module in quantizer.modules():
        values = {**vars(module), **vars(vars(module).get("stale_codes", quantizer))}
        for key in ("stale_tolerance", "tolerance"):
            if key in values:
                found["stale tolerance"] = values[key]
    return {**found, "training": training({**hparams, **hparams["tokenizer"]})}


def pretraining(hparams: dict, compute: bool) -> dict:
    """The pre-training stage of an experiment."""
    stage = hparams["modules"]["pretrain"]
    found = {"encoder": part(stage.encoder)}
    if stage.masking is not None:
        found["masking"] = part(stage.masking)
    for name, objective in stage.objectives.items():
        place = "" if len(stage.objectives) == 1 else f"{name}."
        found |= {place + k: part(v) for k, v in objective.named_children()}
    found["training"] = training(hparams)
    if compute:
        found["loss"] = step(stage)
    return found


def less(path: Path, given: dict) -> str:
    """A large model of fewer, smaller layers."""
    sizes = {"num_layers": 1, "conv_channels": 8, "ffn_width": 64}
    inside = {f"encoder.{key}": value for key, value in sizes.items()}
    return resolve_experiment(path, {**given, **inside})


def describe(name: str, path: Path) -> dict:
    """What is frozen of an experiment file."""
    text = resolve_experiment(path)
    if path.parent.name == "marble" or name.startswith(PLAIN + WITHOUT_PARTS):
        return {"values": tree(parse_yaml(text, name))}
    given = overrides(name)
    text = resolve_experiment(path, given)
    if name in TOKENIZERS:
        return {"tokenizer": tokenizer(build(text))}
    large = "large" in name
    if large:
        text = less(path, given)
    hparams = build(text)
    fast = not large and not name.startswith("ablation")
    fitted = not any(kind in name for kind in ("hubert", "kmeans", "mt4ssl"))
    found = {"pretrain": pretraining(hparams, compute=fast and fitted)}
    if hparams.get("tokenizer") is not None:
        found["tokenizer"] = tokenizer(build(text))
    return found


def make() -> None:
    """Writes what every file is today."""
    write("experiments.json", {k: describe(k, path) for k, path in files().items()})
