"""Loudness is measured by a PyAV that not every supported Python has."""

import pytest

from muq_plugins.data.loudness import can_measure

needs_meter = pytest.mark.skipif(not can_measure(), reason="PyAV is older than 18.1")
