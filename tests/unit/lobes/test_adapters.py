"""Our parts in SpeechBrain's BEST-RQ recipe, called as its train.py calls them."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hyperpyyaml import load_hyperpyyaml
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.quantisers import RandomProjectionQuantizer
from speechbrain.processing.features import InputNormalization
from torch import nn

from muq_plugins.inference.tokenizer import save_tokenizer
from muq_plugins.lobes import (
    CodesOnly,
    FeaturesOnly,
    FiniteScalarQuantization,
    KMeans,
    LogMel,
    MultiCodebookHead,
    RandomProjection,
    ResidualVQ,
    StackedFrames,
    Target,
)
from muq_plugins.lobes.target import mark_trained

PAGE = Path(__file__).parents[3] / "docs" / "muq_in_your_recipe.md"
VOCAB, WIDTH = 40, 16


def kmeans():
    quantizer = KMeans(320, VOCAB)
    quantizer.set_centres(torch.randn(VOCAB, 320))
    return quantizer


def added_parts(number, **values):
    """What a diff on the page adds to a YAML file that has these values."""
    section = PAGE.read_text("utf-8").split("## Pre-training with BEST-RQ")[1]
    diff = re.findall(r"```diff\n(.*?)```", section, flags=re.DOTALL)[number]
    lines = [line[1:] for line in diff.splitlines() if line.startswith("+")]
    elsewhere = ("++", "    input_s", *values)  # sizes of their own parts
    lines = [line for line in lines if not line.startswith(elsewhere)]
    lines += [f"{name}: {value}" for name, value in values.items()]
    return load_hyperpyyaml("\n".join(lines))


def recipe(compute_features, quantizer, linear, wavs, normalize, codebooks=False):
    """``compute_forward`` of the recipe: predictions and targets.

    With codebooks, the lines that the page changes are changed.
    """
    mask = torch.cat([torch.arange(i, i + 4) for i in (0, 8, 20)])
    feats = compute_features(wavs)
    if not codebooks:
        feats = normalize(feats, torch.ones(len(wavs)), epoch=1)
    feats = F.pad(feats, [0, 0, -feats.shape[1] % 4, 0])
    mask_idx = mask[::4] // 4
    B = feats.shape[0]
    stacked = feats.view(B, feats.shape[1] // 4, -1)
    targets = quantizer(stacked[:, mask_idx, :])
    logits = linear(stacked[..., :WIDTH])
    if codebooks:
        logits = logits[:, mask_idx]
        return logits.flatten(0, -2), targets.flatten()
    logits = logits[:, mask_idx, :]
    B, T, C = logits.shape
    return logits.view(B * T, C), targets.view(B * T)


QUANTIZERS = {
    "theirs": lambda: RandomProjectionQuantizer(320, 16, VOCAB),
    "random projection": lambda: CodesOnly(RandomProjection(320, 1, VOCAB)),
    "vector quantization": lambda: CodesOnly(ResidualVQ(320, 1, VOCAB)),
    "finite scalar": lambda: CodesOnly(FiniteScalarQuantization(320, 1, [8, 5])),
    "kmeans": lambda: CodesOnly(kmeans()),
}


@pytest.mark.parametrize("make", QUANTIZERS.values(), ids=QUANTIZERS)
def test_the_recipe_takes_any_quantizer_and_features(make, device):
    modules = nn.ModuleDict(
        {
            "Quantizer": make(),
            "linear": Linear(input_size=WIDTH, n_neurons=VOCAB),
            "normalize": InputNormalization(norm_type="sentence"),
        }
    ).to(device)
    modules.train()
    logits, targets = recipe(
        FeaturesOnly(LogMel(16000, 400, 160, n_mels=80)),
        modules["Quantizer"],
        modules["linear"],
        torch.randn(2, 8100, device=device),
        modules["normalize"],
    )
    assert targets.shape == (6,) and targets.dtype == torch.int64
    assert targets.max() < VOCAB and len(set(targets.tolist())) > 1
    F.cross_entropy(logits, targets).backward()
    trained = {name for name, p in modules.named_parameters() if p.requires_grad}
    assert trained == {"linear.w.weight", "linear.w.bias"}  # what DDP looks at


def test_several_codebooks_give_the_codes_of_the_target_and_the_mean_of_their_losses(
    device, tmp_path
):
    torch.manual_seed(0)
    target = Target(StackedFrames(LogMel()), ResidualVQ(512, 3, VOCAB))
    target.features.features.set_statistics(-3.0, 7.0)  # the tokenizer's own
    mark_trained(target.quantizer)
    folder = save_tokenizer(tmp_path / "tokenizer", target, "")
    parts = added_parts(2, d_model=WIDTH, tokenizer_folder=folder)
    wavs = torch.randn(2, 24000, device=device)
    linear = parts["linear"].to(device)
    assert isinstance(linear, MultiCodebookHead)
    quantizer = parts["Quantizer"].to(device)
    logits, targets = recipe(
        parts["compute_features"], quantizer, linear, wavs, None, codebooks=True
    )
    codes = target.to(device)(wavs)[:, [0, 2, 5]]
    assert torch.equal(targets, codes.flatten()) and logits.shape == (18, VOCAB)
    each = [
        F.cross_entropy(logits.view(6, 3, VOCAB)[:, n], codes.flatten(0, 1)[:, n])
        for n in range(3)
    ]
    torch.testing.assert_close(F.cross_entropy(logits, targets), sum(each) / 3)


def test_the_lines_on_the_page_build_what_the_recipe_needs():
    parts = added_parts(0, p_input=320, cb_dim=16, cb_vocab=64)
    assert parts["Quantizer"](torch.randn(2, 3, 320)).shape == (2, 3)
    parts = added_parts(1, sample_rate=16000, n_fft=400, n_mels=80)
    assert parts["compute_features"](torch.randn(2, 8000)).shape == (2, 50, 80)


def test_a_quantizer_for_vectors_of_another_size_says_so():
    with pytest.raises(ValueError, match="vectors of 512 values, got 320: set its inp"):
        CodesOnly(RandomProjection(512))(torch.randn(2, 3, 320))


def test_features_follow_the_waveforms_to_their_device():
    class Window(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("window", torch.ones(4))

        def forward(self, wavs, wav_lens):
            return wavs.unfold(1, 4, 4) * self.window, wav_lens

    features = FeaturesOnly(Window())
    assert features(torch.ones(2, 8)).device.type == "cpu"
    assert features(torch.ones(2, 8, device="meta")).device.type == "meta"
