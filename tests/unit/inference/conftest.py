"""The lobe for other recipes, of the model that a test file brings."""

import pytest
import torch

from muq_plugins import PretrainedMuQ


@pytest.fixture
def make(source, device):
    """Builds the lobe."""

    def make(**options):
        torch.manual_seed(1)
        return PretrainedMuQ(source, **options).to(device)

    return make
