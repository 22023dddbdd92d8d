"""Small models whose weights are exact on every CPU, and comparisons of numbers."""

import json
import zlib
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import nn

from muq_plugins.lobes import (
    EncodecQuantizer,
    FiniteScalarQuantization,
    KeptFrames,
    KMeans,
    LogMel,
    Mfcc,
    MultiViewTarget,
    MuQEncoder,
    PretrainedSpeechEncoder,
    RandomProjection,
    ResampledEncoder,
    ResidualVQ,
    SpeechBrainConformer,
    StackedFrames,
    Target,
    TeacherFeatures,
    VirtualCodes,
    WaveformTransformer,
)

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "goldens"

SPEECH = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "conv_dim": [2] * 7,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


def settle(module: nn.Module) -> nn.Module:
    """Fills a module with multiples of 1/64 that depend on the names alone."""
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point() or name.endswith(("stale_counter", "std")):
            continue
        random = np.random.RandomState(zlib.crc32(name.encode()))
        values = np.asarray(random.randint(-64, 65, tuple(tensor.shape)) / 64)
        values = torch.from_numpy(values)
        if name.endswith(("running_var", "weight_g", "original0")) or (
            "norm" in name and name.endswith("weight")
        ):
            values = 0.5 + values.abs()
        tensor.copy_(values)
    return module.eval()


def speech(kind: str = "hubert", **settings) -> PretrainedSpeechEncoder:
    """A speech encoder that transformers has built."""
    settings = {"model_type": kind, **SPEECH, **settings}
    model = {"settings": settings, "sample_rate": 16000, "normalise": True}
    return PretrainedSpeechEncoder(model=model)


ENCODERS = {
    "muq": lambda: MuQEncoder(8, 2, 2, 8, conv_channels=1),
    "speechbrain": lambda: SpeechBrainConformer(8, 1, 2, 8, conv_channels=1),
    "waveform": lambda: WaveformTransformer(
        8, 1, 2, 8, conv_channels=2, position_groups=2
    ),
    "hubert": speech,
    "wav2vec2": lambda: speech(
        "wav2vec2", feat_extract_norm="layer", do_stable_layer_norm=True
    ),
    "wavlm": lambda: speech("wavlm"),
    "averaged": lambda: ResampledEncoder(speech(), 25.0),
    "interpolated": lambda: ResampledEncoder(ENCODERS["muq"](), 40.0),
}


def log_mel(bands: int = 8) -> StackedFrames:
    """Four frames of a spectrogram of few bands."""
    return StackedFrames(LogMel(n_mels=bands), num_frames=4)


def teacher() -> TeacherFeatures:
    """Latents of the encoder above."""
    return TeacherFeatures(settle(ENCODERS["muq"]()), 1, "0123456789abcdef")


#: Tokenizers that are trained, and so have folders.
TOKENIZERS = {
    "mel_rvq": lambda: Target(log_mel(), ResidualVQ(32, 3, 16, 4)),
    "mel_rvq_deep": lambda: Target(
        log_mel(), ResidualVQ(32, 2, 16, 4, projection_depth=2)
    ),
    "vq": lambda: Target(log_mel(), ResidualVQ(32, 1, 16, 4)),
    "fsq": lambda: Target(log_mel(), FiniteScalarQuantization(32, 2, [4, 4])),
    "kmeans": lambda: Target(
        KeptFrames(Mfcc(num_coefficients=5), every=4), KMeans(15, 6)
    ),
    "latent_rvq": lambda: Target(teacher(), ResidualVQ(8, 2, 16, 4)),
}

#: Targets that are used as they are made.
FIXED = {
    "random_projection": lambda: Target(log_mel(), RandomProjection(32, 2, 16)),
    "virtual": lambda: Target(log_mel(), VirtualCodes(RandomProjection(32, 2, 16), 24)),
    "log_mel": lambda: LogMel(),
    "mfcc": lambda: Mfcc(),
    "encodec": lambda: EncodecQuantizer(source=None, num_codebooks=2),
    "two_views": lambda: MultiViewTarget(
        [FIXED["random_projection"](), Target(log_mel(4), RandomProjection(16, 1, 16))]
    ),
}


def wav(seconds: float = 1.0, seed: int = 0, rate: int = 24000) -> torch.Tensor:
    """A chord over a little noise, in 16 bits: the same on every machine."""
    random = np.random.RandomState(seed)
    time = np.arange(round(seconds * rate)) / rate
    sound = 0.02 * random.uniform(-1, 1, len(time))
    for pitch in 110 * 2 ** (random.randint(0, 36, 4) / 12):
        sound += 0.15 * np.sin(2 * np.pi * pitch * time)
    return torch.from_numpy(np.round(sound * 32768) / 32768).float()


def write_wav(path: Path, seconds: float, seed: int = 0, rate: int = 24000) -> Path:
    """The chord as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav(seconds, seed, rate).numpy(), rate, subtype="PCM_16")
    return path


def read(name: str):
    """A golden file."""
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def write(name: str, value) -> None:
    """Writes a golden file, one entry a line."""
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / name).write_text(text, encoding="utf-8")


def rounded(tensor: torch.Tensor) -> list:
    """A tensor as short numbers."""
    return [float(f"{x:.6g}") for x in tensor.detach().double().flatten().tolist()]


def differences(golden, found, relative=1e-3, absolute=1e-4, at="") -> list[str]:
    """Where values differ; keys that only the found ones have do not count."""
    if isinstance(golden, dict) and isinstance(found, dict):
        return [
            line
            for key, value in golden.items()
            for line in (
                differences(value, found[key], relative, absolute, f"{at}.{key}")
                if key in found
                else [f"{at}.{key} is missing"]
            )
        ]
    if isinstance(golden, list) and isinstance(found, list):
        if len(golden) != len(found):
            return [f"{at}: {len(golden)} values, now {len(found)}"]
        return [
            line
            for i, pair in enumerate(zip(golden, found, strict=True))
            for line in differences(*pair, relative, absolute, f"{at}[{i}]")
        ]
    numbers = (int, float)
    if isinstance(golden, float) and isinstance(found, numbers):
        same = abs(golden - found) <= absolute + relative * abs(golden)
    else:
        same = golden == found
    return [] if same else [f"{at}: {golden!r}, now {found!r}"]
