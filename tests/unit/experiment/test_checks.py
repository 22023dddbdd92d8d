"""Checks before objects are built."""

import pydoc

import pytest

from muq_plugins.errors import UserError
from muq_plugins.experiment import load_hparams
from muq_plugins.experiment.extends import MOVED, parse_yaml, tag_of


def test_all_placeholders_are_reported_at_once():
    text = "a: !PLACEHOLDER\nb: {c: !PLACEHOLDER }\nd: [!PLACEHOLDER , !PLACEHOLDER ]\n"
    message = r"--a VALUE --b\.c VALUE --d VALUE$"
    with pytest.raises(UserError, match=message):
        load_hparams(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: !new:torch.nn.Liner [1, 2]",
            "a: there is no class .* torch.nn.Liner, but torch.nn.Linear; check",
        ),
        ("a: !name:nope.nope", "a: there is no class or function nope.nope; check"),
        (
            "a: {b: !new:torch.nn.ReLU {inplac: 1}}",
            "a.b: torch.nn.ReLU has no arg",
        ),
        ("a: !name:torch.nn.GELU {aproximate: 1}", "key is 'a.approximate'"),
        ("a: !new:torch.nn.Linear {in_features: 1}", "missing a required argument"),
        ("a: !new:torch.nn.ReLU [1, 2, 3]", r"too many positional.*it takes \(inplace"),
        ("a: !apply:random.seed {sed: 1}", "random.seed has no argument 'sed'"),
    ],
)
def test_wrong_callables(text, message):
    with pytest.raises(UserError, match=message):
        load_hparams(text)


@pytest.mark.parametrize("value", [0, -1, False])
def test_every_training_keeps_a_checkpoint(value):
    """With none, those of earlier starts would go too, and nothing would say so."""
    with pytest.raises(UserError, match=f"a.checkpoints_to_keep is {value}: give a nu"):
        load_hparams(f"a: {{checkpoints_to_keep: {value}}}")


def test_right_callables():
    hparams = load_hparams(
        "a: !new:torch.nn.Linear [2, 3]\n"
        "b: !name:torch.nn.Linear {out_features: 3}\n"
        "c: !new:collections.Counter {x: 1}\n"
        "d: !apply:math.sqrt [4]\n"
        "e: !applyref:sorted {_args: [[2, 1]], _kwargs: {reverse: False}}\n"
        "f: !module:math\n"
        "__g: !apply:random.seed [1]\n"
        "h: (1, 2)\n"
    )
    assert hparams["a"].out_features == 3
    assert hparams["b"](in_features=1).in_features == 1
    assert hparams["c"]["x"] == 1
    assert hparams["d"] == 2
    assert hparams["e"] == [1, 2]
    assert hparams["f"].pi > 3
    assert hparams["h"] == (1, 2)
    assert "__g" not in hparams


#: What the experiment files and folders of version 0.1 call, by where it was.
CALLED_BEFORE = {
    "muq_plugins": "PretrainedMuQ",
    "muq_plugins.brains": "AtomicCheckpointer FittingBrain TokenizerBrain fit_centres",
    "muq_plugins.data.captions": "CaptionWriter",
    "muq_plugins.data.datasets": (
        "prepare_gtzan prepare_magnatagatune prepare_mtg_jamendo"
    ),
    "muq_plugins.data.labels": "ComputedLabels StoredLabels",
    "muq_plugins.data.preparation": "prepare_manifests prepare_notes",
    "muq_plugins.evaluation.probing.cache": "FeatureSettings",
    "muq_plugins.evaluation.probing.readers": "ReaderSettings",
    "muq_plugins.evaluation.probing.run": "probe_folder",
    "muq_plugins.evaluation.zero_shot.clips": "labelled_clips tagged_folder",
    "muq_plugins.inference.folders": "pretrainer_hook",
    "muq_plugins.inference.teacher": "teacher_features",
    "muq_plugins.inference.text_models": "make_text_model",
    "muq_plugins.lobes": (
        "AudioTower BlockMasking ContrastiveTraining DecoupledContrastive "
        "EncodecFeatures EncodecQuantizer FiniteScalarQuantization KMeans "
        "KeptFrames LogMel MaskedPrediction Mfcc MuQEncoder MultiCodebookHead "
        "MultiViewTarget PretrainedSpeechEncoder RandomProjection "
        "ResampledEncoder ResidualVQ SpanMasking SpeechBrainConformer "
        "StackedFrames Target TokenizerTraining VirtualCodes "
        "WaveformTransformer"
    ),
    "muq_plugins.lobes.TextTower": "from_folder",
    "muq_plugins.lobes.encoders": "build_encoder",
}


@pytest.mark.parametrize("place", CALLED_BEFORE)
def test_names_of_before_are_found(place):
    """Saved experiments and those of users go on working: a move needs its entry."""
    for name in CALLED_BEFORE[place].split():
        tree = parse_yaml(f"x: !name:{place}.{name}", "old.yaml")
        found = tag_of(tree["x"]).removeprefix("!name:")
        assert callable(pydoc.locate(found)), f"{place}.{name} is nowhere: see MOVED"


def test_moved_names_are_new_ones():
    for old, new in MOVED.items():
        assert pydoc.locate(old) is None and callable(pydoc.locate(new))
        tree = parse_yaml(f"x: !apply:{old} {{a: 1}}\ny: !name:{old}_ {{}}", "o.yaml")
        assert tag_of(tree["x"]) == f"!apply:{new}" and tree["x"] == {"a": 1}
        assert tag_of(tree["y"]) == f"!name:{old}_"
