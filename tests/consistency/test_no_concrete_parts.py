"""Targets, encoders and maskings are named in YAML, never in a Brain or a recipe."""

import ast
from pathlib import Path

import pytest

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
    "MultiViewTarget",
    "Quantizer",
    "QuantizerOutput",
    "StageOutput",
    "Target",
    "TokenizerTraining",
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
    """Names of all quantizers of ours."""
    below = [part for part in kind.__subclasses__() if part.__module__[:3] == "muq"]
    return {part.__name__ for part in below}.union(*map(all_quantizers, below), set())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_concrete_part_in(path):
    """Swapping a part is a line of YAML, so no code here may know one."""
    found = names_in(path.read_text(encoding="utf-8")) & CONCRETE
    assert not found, f"{path} names {sorted(found)}: let the experiment file do that"


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
