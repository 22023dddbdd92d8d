"""A simulated study with known effects, and how to change its file."""

import copy
import json

import pytest

from muq_plugins.evaluation.study.numbers import parse_study
from tests.unit.evaluation.simulated_study import Simulated, simulate_study

EXPERIMENTS = {
    "mel_rvq": Simulated("Mel-RVQ", tokenizer_seconds=27.0),
    "bestrq": Simulated("BEST-RQ", recall=0.5, gain=0.7, spread=0.5),
    "vq": Simulated("VQ", recall=0.9, num_codebooks=1, codebook_size=512),
    "same": Simulated("Mel-RVQ again", tokenizer_seconds=27.0),
    "n2": Simulated("2 codebooks", recall=0.55, num_codebooks=2),
    "n16": Simulated("16 codebooks", recall=0.85, num_codebooks=16),
}
RISING = {"n2": 2, "mel_rvq": 8, "n16": 16}
GROUPS = [
    {"title": "Targets", "experiments": ["mel_rvq", "bestrq", "vq", "same"]},
    {"title": "Codebooks", "x": "codebooks", "experiments": RISING},
]


@pytest.fixture(scope="session")
def simulated():
    """A study of six experiments and three seeds, as its file holds it."""
    return simulate_study(EXPERIMENTS, GROUPS)


@pytest.fixture
def content(simulated):
    """The same, to be changed."""
    return copy.deepcopy(simulated)


@pytest.fixture(scope="session")
def parsed():
    """From the content of a file to a study."""
    return parse_study


@pytest.fixture
def written(tmp_path):
    """From the content of a file to a folder with the file."""

    def write(content):
        (tmp_path / "study.json").write_text(json.dumps(content), "utf-8")
        return tmp_path

    return write
