"""Targets, encoders and maskings are named in YAML, never in a Brain or a recipe."""

import ast
from pathlib import Path

import muq_plugins.lobes
from muq_plugins.lobes import Quantizer

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("muq_plugins/brains/*.py"), *ROOT.glob("recipes/**/*.py")])

#: Contracts and stages, which any part may stand in, and the one spectrogram that has
#: statistics of its own to be measured.
GENERAL = {
    "EncoderOutput",
    "LogMel",
    "MaskedPrediction",
    "Masking",
    "Measure",
    "MultiViewTarget",
    "Quantizer",
    "QuantizerOutput",
    "Reference",
    "StageOutput",
    "Target",
    "TokenizerTraining",
    "Hearing",
    "Objective",
    "Pretraining",
    "part",
}
CONCRETE = {n for n in muq_plugins.lobes.__all__ if n[0].isupper()} - GENERAL


def names_in(source: str) -> set[str]:
    """Names that code uses or imports; texts and examples do not count."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
    return names


def all_quantizers(kind: type = Quantizer) -> set[str]:
    """Names of all quantizers of ours, without what others derive from."""
    below = [part for part in kind.__subclasses__() if part.__module__[:3] == "muq"]
    names = {part.__name__ for part in below}.union(*map(all_quantizers, below), set())
    return names - {"DecodableQuantizer", "ResidualCentres"}


def test_no_concrete_part_is_named():
    """Swapping a part is a line of YAML, so no code here may know one."""
    found = {path: names_in(path.read_text("utf-8")) & CONCRETE for path in SOURCES}
    wrong = [f"{path} names {sorted(names)}" for path, names in found.items() if names]
    assert not wrong, "\n  ".join(["let the experiment file do that:", *wrong])


def test_every_quantizer_is_covered():
    """A quantizer that is not exported could be named unseen."""
    ours = {name for name in all_quantizers() if hasattr(muq_plugins.lobes, name)}
    assert all_quantizers() == ours
    assert ours <= CONCRETE and "MuQEncoder" in CONCRETE


def test_names_are_found():
    """The helper sees every way of naming a class."""
    source = (
        '"""RandomProjection in a text."""\nfrom muq_plugins.lobes import KMeans as K\n'
        "import muq_plugins\nmuq_plugins.lobes.ResidualVQ()\nMfcc()"
    )
    assert names_in(source) & CONCRETE == {"KMeans", "Mfcc", "ResidualVQ"}
