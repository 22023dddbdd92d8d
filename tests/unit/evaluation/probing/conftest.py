"""Probes of few penalties: which is chosen matters to no test."""

import pytest

from muq_plugins.evaluation.probing import readers


@pytest.fixture(autouse=True, scope="module")
def few_penalties():
    """Each costs a regression for every layer and fold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "PENALTIES", (0.01, 1.0))
        yield
