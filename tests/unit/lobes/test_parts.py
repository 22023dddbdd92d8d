"""Parts as data: described, built again, and nothing else can be asked for."""

import copy
import inspect
import json
from pathlib import PosixPath

import pytest
import torch
from torch import nn

from muq_plugins.lobes import (
    EncodecFeatures,
    FiniteScalarQuantization,
    InfoNCE,
    KeptFrames,
    KMeans,
    LogMel,
    Mfcc,
    MuQEncoder,
    RandomProjection,
    ResampledEncoder,
    ResidualVQ,
    SigmoidContrastive,
    StackedFrames,
    TeacherFeatures,
    VirtualCodes,
    part,
)
from muq_plugins.lobes.parts import (
    PARTS,
    build,
    check_clips,
    describe,
    encoder_fingerprint,
    fingerprint,
)
from tests.unit.tiny_encoders import tiny_encoder

PARTS_OF_ALL_KINDS = {
    "LogMel": lambda: LogMel(n_mels=64, mean=1.0, std=2.0),
    "Mfcc": lambda: Mfcc(num_coefficients=7),
    "StackedFrames": lambda: StackedFrames(KeptFrames(LogMel(), every=2), 3),
    "FiniteScalarQuantization": lambda: FiniteScalarQuantization(8, 2, (3, 5)),
    "KMeans": lambda: KMeans(8, codebook_size=4),
    "RandomProjection": lambda: RandomProjection(8, 2, 16, seed=3),
    "ResidualVQ": lambda: ResidualVQ(8, 2, 16, projection_depth=3),
    "VirtualCodes": lambda: VirtualCodes(ResidualVQ(8, 2, 16), codebook_size=20),
    "MuQEncoder": lambda: tiny_encoder("MuQEncoder"),
    "ResampledEncoder": lambda: ResampledEncoder(tiny_encoder("MuQEncoder"), 12.5),
    "InfoNCE": lambda: InfoNCE(5.0, 50.0),
    "SigmoidContrastive": lambda: SigmoidContrastive(bias=-3.0),
}


@pytest.mark.parametrize("name", PARTS_OF_ALL_KINDS)
def test_is_built_again_from_its_description(name):
    module = PARTS_OF_ALL_KINDS[name]()
    description = json.loads(json.dumps(describe(module)))
    assert description["class"] == name
    again = build(description)
    assert type(again) is type(module) and describe(again) == description
    again.load_state_dict(module.state_dict())  # all names and shapes
    if hasattr(module, "config"):  # the identity that fingerprints carry
        assert fingerprint(again, again.config) == fingerprint(module, module.config)


def test_a_registered_class_is_used_as_before():
    assert list(inspect.signature(MuQEncoder).parameters)[:2] == ["width", "num_layers"]
    features = StackedFrames(LogMel(), 4)
    assert [name for name, _ in features.named_children()] == ["features"]
    twin = copy.deepcopy(features)
    assert twin.arguments["features"] is twin.features is not features.features


def test_of_a_family_each_class_speaks_for_itself():
    @part
    class Louder(LogMel):
        def __init__(self, gain: float):
            super().__init__(n_mels=64)
            self.gain = gain

    class Nobody(Louder):
        pass

    try:
        description = {"class": "Louder", "arguments": {"gain": 2.0}}
        assert describe(Louder(2.0)) == description
        assert build(description).gain == 2.0
        with pytest.raises(TypeError, match="A Nobody cannot be saved: only parts can"):
            describe(Nobody(2.0))
        with pytest.raises(TypeError, match="A Nobody cannot be saved"):
            describe(StackedFrames(Nobody(2.0)))
        with pytest.raises(TypeError, match="gain of Louder is a PosixPath"):
            describe(Louder(PosixPath("x")))
    finally:
        del PARTS["Louder"]


def test_no_two_parts_of_one_name():
    stranger = type("MuQEncoder", (nn.Module,), {"__module__": "elsewhere"})
    with pytest.raises(ValueError, match="There are two parts MuQEncoder"):
        part(stranger)
    assert PARTS["MuQEncoder"] is MuQEncoder


def test_what_no_file_may_name_is_given():
    teacher = tiny_encoder("MuQEncoder")
    description = describe(TeacherFeatures(teacher, 1, "ab"))
    assert description["arguments"] == {"layer": 1, "fingerprint": "ab"}
    assert build(description, encoder=teacher).output_size == teacher.width
    with pytest.raises(ValueError, match="TypeError .*'encoder'"):
        build(description)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"class": "os.system", "arguments": {}}, "There is no part 'os.system'"),
        ({}, "There is no part None"),
        ("MuQEncoder", "described by its class and arguments, got 'MuQEncoder'"),
        ({"class": "MuQEncoder", "arguments": {"depth": 3}}, "do not build a MuQEnc"),
        (
            {
                "class": "ResampledEncoder",
                "arguments": {
                    "encoder": {"class": "os.system", "arguments": {}},
                    "frame_rate": 25,
                },
            },
            "There is no part 'os.system'",
        ),
        (
            {"class": "PretrainedSpeechEncoder", "arguments": {"source": "a/b"}},
            "names the source 'a/b', but building a part again must not",
        ),
        (
            {"class": "PretrainedSpeechEncoder", "arguments": {"model": {}}},
            "PretrainedSpeechEncoder: KeyError 'settings'",
        ),
    ],
)
def test_refused(description, message):
    with pytest.raises(ValueError, match=message):
        build(description)


def test_encodec_is_never_downloaded_by_a_file(monkeypatch):
    module = EncodecFeatures(source=None)
    assert build(describe(module)).output_size == module.output_size
    named = {"class": "EncodecFeatures", "arguments": {"source": "facebook/encodec"}}
    with pytest.raises(ValueError, match="names the source"):
        build(named)


def test_settings_of_training_do_not_tell_encoders_apart():
    encoder = tiny_encoder("MuQEncoder")
    before = encoder_fingerprint(encoder)
    encoder.config["dropout"] = 0.5
    assert encoder_fingerprint(encoder) == before
    encoder.config["width"] += 1
    assert encoder_fingerprint(encoder) != before
    layer = nn.Linear(2, 2)
    before = fingerprint(layer, {})
    torch.nn.init.zeros_(layer.bias)
    assert fingerprint(layer, {}) != before


def test_clips_that_a_part_cannot_hear_are_refused():
    stacked = StackedFrames(LogMel(n_fft=512, n_mels=32), 4)  # a frame of it needs more
    for seconds in (0.039, 0.0, float("nan"), float("inf"), -1):
        with pytest.raises(ValueError, match=rf"^here is {seconds:g}: the .* 0.04 s"):
            check_clips(stacked, seconds, "here")
    check_clips(stacked, 0.04, "here")
    own = nn.Sequential(nn.Linear(1, 1))  # says nothing of what it needs
    own.sample_rate = 24000
    check_clips(own, 0.001, "here")
    own[0].sample_rate, own[0].min_samples = 16000, 32000
    with pytest.raises(ValueError, match="the 0 needs at least 2 seconds .Linear"):
        check_clips(own, 1.9, "here")
    check_clips(own, 2, "here")
