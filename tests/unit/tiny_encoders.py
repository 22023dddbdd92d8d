"""One tiny encoder of each kind, for tests of all that must hold for every one."""

import functools

import torch
from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

from muq_plugins.lobes import (
    MuQEncoder,
    PretrainedSpeechEncoder,
    ResampledEncoder,
    SpeechBrainBranchformer,
    SpeechBrainConformer,
    WaveformTransformer,
)
from muq_plugins.lobes.parts import PARTS

#: Settings of transformers that keep a speech model tiny.
SPEECH = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    # 16 channels a group: with 8, oneDNN 3.12 convolves in bfloat16 wrongly on AMX.
    "num_conv_pos_embedding_groups": 2,
}


def speech(kind="hubert", **settings):
    """An untrained speech encoder."""
    settings = {"model_type": kind, **SPEECH, **settings}
    model = {"settings": settings, "sample_rate": 16000, "normalise": True}
    return PretrainedSpeechEncoder(model=model)


def save_speech_model(folder, kind="hubert", normalise=True, **settings):
    """A model with random weights, as transformers saves one, in a folder."""
    model = AutoModel.from_config(AutoConfig.for_model(kind, **SPEECH, **settings))
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(folder)
    return folder


#: Name to a function that makes the encoder, as it is before training.
TINY = {
    "MuQEncoder": lambda: MuQEncoder(32, 2, 4, 64, conv_channels=4),
    "SpeechBrainConformer": lambda: SpeechBrainConformer(32, 2, 4, 64, conv_channels=4),
    "SpeechBrainBranchformer": lambda: SpeechBrainBranchformer(
        32, 2, 4, 96, conv_channels=4
    ),
    "SummaryMixing": lambda: SpeechBrainConformer(
        32, 2, 4, 64, conv_channels=4, mixing="summary"
    ),
    "WaveformTransformer": lambda: WaveformTransformer(
        32, 2, 4, 64, conv_channels=8, position_groups=4
    ),
    "HuBERT": speech,
    "wav2vec2": lambda: speech(
        "wav2vec2", feat_extract_norm="layer", do_stable_layer_norm=True
    ),
    "WavLM": lambda: speech("wavlm"),
    "averaged": lambda: ResampledEncoder(speech(), 25.0),
    "interpolated": lambda: ResampledEncoder(TINY["MuQEncoder"](), 40.0),
}
# A new one needs no line here if it is made of a width and a number of layers.
for kind in list(PARTS.values()):
    if kind.__module__.startswith("muq_plugins.lobes.encoders."):
        known = (PretrainedSpeechEncoder, ResampledEncoder)
        if kind.__name__ not in TINY and kind not in known:
            TINY[kind.__name__] = functools.partial(kind, 32, 2)


def tiny_encoder(name):
    """The encoder of that name, with the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TINY[name]()
