"""Loudness: what BS.1770 says of known signals, in blocks as at once."""

import math

import pytest
import torch

from muq_plugins.data.audio import MAX_AMPLITUDE
from muq_plugins.data.loudness import (
    SILENT,
    at_loudness,
    check_loudness,
    measure_loudness,
)
from muq_plugins.errors import NotInstalled
from muq_plugins.lobes.finite import check_wavs
from tests.unit.meter import needs_meter

RATE = 24000
pytestmark = needs_meter


def tone(amplitude, seconds=8):
    return amplitude * torch.sin(
        2 * math.pi * 997 * torch.arange(seconds * RATE) / RATE
    )


def test_a_tone_has_the_loudness_of_the_standard():
    """One channel at full scale and 997 Hz is -3.01; silence beside it is left out."""
    for level in (0.0, -20.0, -40.0):
        wav = tone(10 ** (level / 20))
        found = measure_loudness([wav], RATE)
        assert found == pytest.approx(-3.01 + level, abs=0.1)
        blocks = torch.cat([torch.zeros(5 * RATE), wav]).split(7777)
        assert measure_loudness(blocks, RATE) == pytest.approx(found, abs=0.3)


def test_what_has_no_loudness_stays():
    for wav in (torch.zeros(RATE), tone(1e-4)):
        assert measure_loudness([wav], RATE) == SILENT
        assert torch.equal(at_loudness(wav, RATE, -16.0), wav)
    wav = at_loudness(tone(1e-3), RATE, -10.0)  # 53 dB would be no music any more
    assert measure_loudness([wav], RATE) == pytest.approx(-63 + 30, abs=0.1)


@pytest.mark.parametrize("samples", [1025, 5000, 9599, 9600])
def test_short_music_has_the_loudness_of_its_repetition(samples):
    """A drum hit of a sample pack, of any level, has one vector."""
    wav = tone(0.05)[:samples]
    expected = measure_loudness([tone(0.05)], RATE)
    assert measure_loudness(wav.split(300), RATE) == pytest.approx(expected, abs=0.5)
    loud = at_loudness(wav, RATE, -16.0)
    quiet = at_loudness(wav / 4, RATE, -16.0)
    torch.testing.assert_close(quiet, loud, rtol=3e-3, atol=0)  # the meter rounds
    assert loud.abs().max() > 2 * wav.abs().max()


def test_a_click_in_quiet_music_stays_in_the_range_of_models():
    wav = tone(0.005, 20)  # 30 dB would be within bounds for all but this:
    wav[7] = 1.03
    loud = at_loudness(wav, RATE, -16.0)
    assert 30 < loud.max() < MAX_AMPLITUDE
    check_wavs(loud[None])
    wav[7] = 1.0  # at 30 dB it is below, and nothing changes
    expected = wav * torch.tensor(10 ** (30 / 20))
    assert torch.equal(at_loudness(wav, RATE, -16.0), expected)


def test_an_older_pyav_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr("muq_plugins.data.loudness.can_measure", lambda: False)
    check_loudness(None)
    with pytest.raises(NotInstalled, match="PyAV 18.1 or newer"):
        check_loudness(-16.0)
