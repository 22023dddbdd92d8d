"""Tokenizers of every kind come back with the codes that they had, or say why not."""

import pytest
import torch

from muq_plugins import MelRVQ
from muq_plugins.inference.tokenizer import (
    any_tokenizer,
    load_tokenizer,
    save_tokenizer,
)
from muq_plugins.lobes import (
    EncodecFeatures,
    EncodecQuantizer,
    FiniteScalarQuantization,
    KeptFrames,
    KMeans,
    LogMel,
    Mfcc,
    MultiViewTarget,
    RandomProjection,
    ResidualVQ,
    StackedFrames,
    Target,
    VirtualCodes,
)
from tests.unit.inference.edits import REMOVED, edit_config, edit_tensors


def centres(number=5, size=39):
    quantizer = KMeans(size, number)
    quantizer.set_centres(100 * torch.randn(number, size))
    return quantizer


def kmeans(every=4, number=5):
    return Target(KeptFrames(Mfcc(), every=every), centres(number))


def finite(levels):
    quantizer = FiniteScalarQuantization(512, 2, levels)
    return Target(StackedFrames(LogMel()), quantizer)


def rvq(mean=1.0):
    return Target(
        StackedFrames(LogMel(n_mels=64, mean=mean), 2), ResidualVQ(128, 3, 8, 4, 2)
    )


#: What makes a tokenizer, and whether folders of before can tell what it is.
KINDS = {
    "ResidualVQ": (rvq, True),
    "FiniteScalarQuantization": (lambda: finite([4, 3]), True),
    "KMeans": (kmeans, True),
    "KMeans of single frames": (lambda: Target(Mfcc(), centres(3)), True),
    "RandomProjection": (
        lambda: Target(StackedFrames(LogMel()), RandomProjection(512, 2, 16)),
        False,
    ),
    "VirtualCodes": (
        lambda: Target(
            StackedFrames(LogMel()), VirtualCodes(ResidualVQ(512, 2, 16), 20)
        ),
        False,
    ),
    "EnCodec": (
        lambda: Target(EncodecFeatures(None), EncodecQuantizer(None, 2)),
        False,
    ),
}
WAVS = torch.linspace(0, 1, 24000) * torch.randn(
    2, 24000, generator=torch.Generator().manual_seed(0)
)


@pytest.mark.parametrize("name", KINDS)
def test_codes_are_the_same_again(name, tmp_path):
    make, can_be_told = KINDS[name]
    torch.manual_seed(1)
    target = make()
    expected = target(WAVS)
    assert expected.unique().numel() > 1
    folder = save_tokenizer(tmp_path / "run" / "inference", target, "seed: 1")

    torch.manual_seed(2)  # else it would draw the same weights
    other = make()
    load_tokenizer(other, tmp_path / "run")
    assert torch.equal(other(WAVS), expected)
    assert not any(p.requires_grad for p in other.parameters())

    loaded = any_tokenizer(tmp_path / "run")
    assert torch.equal(loaded(WAVS), expected)
    if name == "ResidualVQ":
        assert torch.equal(loaded(WAVS.numpy(), [1.0, 1.0]), expected)
    assert isinstance(loaded, MelRVQ) == (name == "ResidualVQ")
    for attribute in ("sample_rate", "frame_rate", "num_codebooks", "codebook_size"):
        assert getattr(loaded, attribute) == getattr(target, attribute)

    edit_config(folder, {"parts": REMOVED})  # as in folders of version 0.1
    if can_be_told:
        assert torch.equal(any_tokenizer(folder)(WAVS), expected)
    else:
        with pytest.raises(ValueError, match="cannot be built from its folder alone"):
            any_tokenizer(folder)


@pytest.mark.parametrize(
    ("saved", "target", "message"),
    [
        (kmeans(), kmeans(every=2), "frame_rate is 25.0 there, 50.0 here"),
        (kmeans(), kmeans(number=4), "codebook_size is 5 there, 4 here"),
        (kmeans(), rvq(), "quantizer is KMeans there, ResidualVQ here"),
        # Levels with the same product.
        (finite([8, 8]), finite([4, 16]), r"levels is \[8, 8\] there, \[4, 16\] here"),
        (
            rvq(),
            MultiViewTarget([Target(LogMel(), RandomProjection(128, 1, 4))]),
            "MultiViewTarget takes no trained tokenizer",
        ),
    ],
)
def test_another_target_is_refused(saved, target, message, tmp_path):
    save_tokenizer(tmp_path / "inference", saved, "")
    with pytest.raises(ValueError, match=message):
        load_tokenizer(target, tmp_path)


def test_a_damaged_tokenizer_is_an_error(tmp_path):
    target = Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 16))
    lost = "quantizer.quantizers.1.codebook.weight"
    folder = save_tokenizer(tmp_path / "inference", target, "")
    edit_tensors(
        folder, lambda tensors: {n: x for n, x in tensors.items() if n != lost}
    )
    with pytest.raises(ValueError, match=f"missing: {lost}"):
        load_tokenizer(target, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "muq"}, "holds a muq, not a tokenizer"),
        ({"parts": [{"class": "os.system"}] * 2}, "There is no part 'os.system'"),
        ({"parts": [{"class": "LogMel"}]}, "cannot be built from its folder alone"),
        ({"parts": None, "quantizer": "RandomProjection"}, "sizes of a RandomProj"),
        ({"parts": None, "features": "TeacherFeatures"}, "features TeacherFeatures"),
    ],
)
def test_what_cannot_be_built_is_refused(change, message, tmp_path):
    folder = save_tokenizer(tmp_path / "inference", kmeans(), "")
    edit_config(folder, change)
    with pytest.raises(ValueError, match=message):
        any_tokenizer(tmp_path)


def test_nothing_random_takes_the_place_of_what_is_missing(tmp_path):
    for load in (any_tokenizer, MelRVQ.from_pretrained):
        with pytest.raises(FileNotFoundError, match="No trained tokenizer in .*nowhe"):
            load(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match="No tokenizer file .*x.pth"):
            load(tmp_path / "x.pth")


def test_other_tokenizers_are_no_mel_rvq(tmp_path):
    save_tokenizer(tmp_path / "inference", kmeans(), "")
    with pytest.raises(ValueError, match="KeptFrames with KMeans, not a Mel-RVQ"):
        MelRVQ.from_pretrained(tmp_path)


# The file that the authors of MuQ publish


@pytest.mark.parametrize("decay", [1.0, 0.368])
def test_an_untrained_tokenizer_is_refused(tmp_path, decay):
    quantizer = ResidualVQ(512, num_codebooks=2, codebook_size=64)
    state = {name: tensor * decay for name, tensor in quantizer.state_dict().items()}
    torch.save(state, tmp_path / "rvq.pth")
    with pytest.raises(ValueError, match="was never trained"):
        MelRVQ.from_pretrained(tmp_path / "rvq.pth")


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_one_update_makes_a_tokenizer_trained(tmp_path, depth):
    quantizer = ResidualVQ(512, 2, 64, codebook_dim=8, projection_depth=depth)
    optimizer = torch.optim.Adam(quantizer.parameters(), 1e-3)
    feats = torch.randn(50, 512)
    out = quantizer(feats)
    (out.loss + (feats - out.quantized).abs().mean()).backward()
    optimizer.step()
    quantizer.eval()
    torch.save(quantizer.state_dict(), tmp_path / "rvq.pth")
    mel_rvq = MelRVQ.from_pretrained(tmp_path / "rvq.pth")
    assert mel_rvq.num_codebooks == 2 and mel_rvq.codebook_size == 64
    assert torch.equal(mel_rvq.quantizer.encode(feats), quantizer.encode(feats))


def test_other_files_are_no_tokenizer(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="its tensors are weight"):
        MelRVQ.from_pretrained(tmp_path / "x.pth")
