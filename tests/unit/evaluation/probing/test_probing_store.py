"""Means of clips: what they are, kept once for all who ask, whole after a kill."""

import threading

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.evaluation.probing import store
from muq_plugins.evaluation.probing.clips import Clip, ProbeError
from muq_plugins.evaluation.probing.features import HiddenStates
from muq_plugins.evaluation.probing.store import (
    INDEX,
    Cutting,
    Framing,
    stored_features,
)
from tests.unit.tiny_encoders import tiny_encoder


class Levels:
    """The mean square of the samples, in two layers; counts what it is asked."""

    sample_rate, frame_rate, fingerprint = 8000, 8000.0, "levels"
    others = ()

    def __init__(self):
        self.asked = 0

    def states(self, wavs, wav_lens):
        self.asked += len(wavs)
        power = wavs[..., None].abs()
        return [power, 2 * power], wav_lens


def clips(folder, *seconds):
    made = []
    for number, length in enumerate(seconds):
        path = folder / f"{number}.wav"
        wav = np.full(int(8000 * length), 0.1 * (number + 1))
        soundfile.write(path, wav, 8000)
        made.append(Clip(path.name, str(path), length))
    return made


def test_clips_follow_each_other_and_are_computed_once(tmp_path):
    levels, some = Levels(), clips(tmp_path, 2.6, 1.4, 0.3)
    means, whose = stored_features(levels, some, Cutting(1.0), tmp_path / "kept")
    assert whose.tolist() == [0, 0, 0, 1, 2]  # the rest of 0.4 s is dropped
    expected = [[0.1, 0.2]] * 3 + [[0.2, 0.4], [0.3, 0.6]]
    expected = np.array(expected)
    assert means[slice(None)][..., 0].numpy() == pytest.approx(expected, rel=1e-3)
    assert means.only([1])[torch.tensor([3])].item() == pytest.approx(0.4, rel=1e-3)
    mean, std = means.moments()
    assert mean[0, 0] == pytest.approx(expected[:, 0].mean(), rel=1e-3)
    assert std[0, 0] == pytest.approx(expected[:, 0].std(), rel=1e-3)
    assert levels.asked == 5
    # Another task asks for others in another order.
    other = [some[2], some[0]]
    again, whose = stored_features(levels, other, Cutting(1.0), tmp_path / "kept")
    assert levels.asked == 5 and whose.tolist() == [0, 1, 1, 1]
    assert again[slice(None)][:, 0, 0].numpy() == pytest.approx([0.3] + [0.1] * 3, 1e-3)
    assert again.key != means.key
    stored_features(levels, some, Cutting(1.0, most=1), tmp_path / "kept")
    assert levels.asked == 8


def test_silence_after_a_clip_is_heard_where_it_is_padded(tmp_path):
    some = clips(tmp_path, 0.5)
    cutting = Cutting(1.0, padded=0.8)
    padded, _ = stored_features(Levels(), some, cutting, tmp_path / "k")
    assert padded[slice(None)][0, 0, 0] == pytest.approx(0.05, rel=1e-2)
    # If enough of it is left: more than half of a clip, unless it is said.
    some = clips(tmp_path, 1.7, 1.9)
    for its, whose in ((cutting, [0, 1, 1]), (Cutting(1.0), [0, 0, 1, 1])):
        found = stored_features(Levels(), some, its, tmp_path / "k")
        assert found[1].tolist() == whose


def test_what_a_kill_left_half_is_computed_again(tmp_path):
    levels, some = Levels(), clips(tmp_path, 1.0, 1.0, 1.0)
    stored_features(levels, some[:2], Cutting(1.0), tmp_path / "kept")
    (place,) = (tmp_path / "kept").iterdir()
    with open(place / "layer01.f16", "ab") as file:
        file.write(b"\0\0\0")  # a row too much, and one that was cut off
    with open(place / INDEX, "a") as file:
        file.write('{"recording": ["')  # a line that was cut off
    means, whose = stored_features(levels, some, Cutting(1.0), tmp_path / "kept")
    assert levels.asked == 3 and whose.tolist() == [0, 1, 2]
    values = means[slice(None)][:, 0, 0].numpy()
    assert values == pytest.approx([0.1, 0.2, 0.3], rel=1e-3)
    path = place / "layer00.f16"
    path.write_bytes(path.read_bytes()[:-2])
    means, _ = stored_features(levels, some, Cutting(1.0), tmp_path / "kept")
    assert levels.asked == 4 and means[slice(None)][2, 0, 0] == pytest.approx(0.3, 1e-3)


def test_what_cannot_be_read_has_no_rows_and_what_is_too_large_is_refused(tmp_path):
    some = clips(tmp_path, 1.0, 1.0)
    (tmp_path / "0.wav").write_bytes(b"broken")
    _, whose = stored_features(Levels(), some, Cutting(1.0), tmp_path / "kept")
    assert whose.tolist() == [1]
    with pytest.raises(ProbeError, match="None of the 1 recordings could be read"):
        stored_features(Levels(), some[:1], Cutting(1.0), tmp_path / "none")

    class Loud(Levels):
        fingerprint = "loud"

        def states(self, wavs, wav_lens):
            return [1e6 * wavs[..., None]], wav_lens

    with pytest.raises(ProbeError, match="beyond float16"):
        stored_features(Loud(), some[1:], Cutting(1.0), tmp_path / "kept")


class Ramp(Levels):
    """The mean of the samples of each frame of 10 ms; counts what it hears at once."""

    frame_rate, fingerprint = 100.0, "ramp"
    loses = 0  # frames at the end of what it hears

    def __init__(self):
        super().__init__()
        self.heard = []

    def frames(self, wavs, wav_lens):
        self.heard += (wav_lens * wavs.shape[1] / 80).round().int().tolist()
        frames = wavs.unfold(1, 80, 80).mean(-1)[:, : wavs.shape[1] // 80 - self.loses]
        lens = (wav_lens * wavs.shape[1] / 80 - self.loses) / frames.shape[1]
        return [frames[..., None], -frames[..., None]], lens


def ramps(folder, *seconds):
    """Recordings whose samples tell which frame they are of."""
    made = []
    for number, length in enumerate(seconds):
        path = folder / f"ramp{number}.wav"
        wav = np.repeat(np.arange(int(100 * length)) / 1024, 80)
        soundfile.write(path, wav, 8000, subtype="FLOAT")
        made.append(Clip(path.name, str(path), len(wav) / 8000))
    return made


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.01, 1.6, 3.27])
def test_no_frame_of_a_long_recording_is_lost_or_counted_twice(
    tmp_path, seconds, batch_size
):
    some, ramp = ramps(tmp_path, seconds, 0.5), Ramp()
    found, whose = stored_features(ramp, some, Framing(1.0, 0.2), tmp_path, batch_size)
    count = int(100 * seconds)
    assert whose.tolist() == [0] * count + [1] * 50 and found.rate == 100.0
    expected = np.arange(count) / 1024
    values = found[slice(0, count)][..., 0].numpy()
    assert values == pytest.approx(np.stack([expected, -expected], 1), abs=1e-3)
    # No window is short, but of a short recording.
    assert set(ramp.heard) == {min(100, count), 50}


def test_frames_are_averaged_shared_and_go_on_after_a_kill(tmp_path):
    some, ramp = ramps(tmp_path, 1.0, 0.55), Ramp()
    framing = Framing(1.0, 0.2, most_rate=30.0)
    found, whose = stored_features(ramp, some, framing, tmp_path / "kept")
    assert (
        found.rate == pytest.approx(100 / 3) and whose.tolist() == [0] * 33 + [1] * 18
    )
    middles = (3 * np.arange(33) + 1) / 1024
    values = found[slice(0, 33)][:, 0, 0].numpy()
    assert values == pytest.approx(middles, abs=1e-3)
    (place,) = (tmp_path / "kept").iterdir()
    lines = (place / INDEX).read_text().splitlines()
    (place / INDEX).write_text(lines[0] + "\n")  # killed before the second
    heard = len(ramp.heard)
    again, _ = stored_features(ramp, some, framing, tmp_path / "kept")
    assert len(ramp.heard) == heard + 1
    assert torch.equal(again[slice(None)], found[slice(None)])


def test_windows_that_know_nothing_of_each_other_end_with_silence_or_are_dropped(
    tmp_path,
):
    some, ramp = ramps(tmp_path, 1.25), Ramp()
    _, whose = stored_features(ramp, some, Framing(0.5), tmp_path)
    assert len(whose) == 125 and ramp.heard == [50, 50, 50]
    _, whose = stored_features(ramp, some, Framing(0.5, least=0.6), tmp_path)
    assert len(whose) == 100


def test_an_encoder_whose_frame_rate_is_wrong_is_named(tmp_path):
    some, ramp = ramps(tmp_path, 1.6), Ramp()
    ramp.loses, ramp.fingerprint = 1, "one less"
    _, whose = stored_features(ramp, some, Framing(1.0, 0.2), tmp_path)
    assert len(whose) == 159  # its last frame needs audio that there is not
    apart, whose = stored_features(ramp, some, Framing(0.5), tmp_path)
    values = 1024 * apart[slice(48, 52)][:, 0, 0].numpy()
    assert len(whose) == 160 and values.round().tolist() == [48, 48, 50, 51]
    ramp.loses, ramp.fingerprint = 2, "two less"
    with pytest.raises(ProbeError, match="ramp0.wav: the encoder gives 98 frames"):
        stored_features(ramp, some, Framing(1.0, 0.2), tmp_path)


def kept_files(folder):
    """The content of all that is kept, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*/[lr]*")}


@pytest.mark.parametrize("cutting", [Cutting(0.5), Framing(1.0, 0.2)])
def test_two_devices_keep_what_one_keeps_bit_for_bit(tmp_path, monkeypatch, cutting):
    monkeypatch.setattr(store, "AT_RISK", 2.0)
    some = clips(tmp_path, 1.5, 0.7, 2.2, 0.4, 1.1, 0.9, 1.3)
    encoder = tiny_encoder("MuQEncoder")
    stored_features(HiddenStates(encoder), some, cutting, tmp_path / "one")
    both = HiddenStates(encoder, ["cpu"])
    (other,) = both.others
    assert other.fingerprint == both.fingerprint and other.encoder is not encoder
    worked, waits = set(), threading.Event()

    def late(wavs, wav_lens, states=both.states):
        """The first portion ends after the second one has."""
        worked.add("this")
        assert waits.wait(60)
        return states(wavs, wav_lens)

    def early(wavs, wav_lens, states=other.states):
        worked.add("other")
        found = states(wavs, wav_lens)
        waits.set()
        return found

    both.states, other.states = late, early
    stored_features(both, some, cutting, tmp_path / "two")
    assert worked == {"this", "other"}
    one, two = kept_files(tmp_path / "one"), kept_files(tmp_path / "two")
    assert len(one) >= 3 and one == two


def test_what_two_devices_have_not_finished_is_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "AT_RISK", 1.0)
    some = clips(tmp_path, *[1.0] * 6)
    stored_features(Levels(), some, Cutting(1.0), tmp_path / "one")

    class Broken(Levels):
        def states(self, wavs, wav_lens):
            if wavs.abs().mean() > 0.35:  # the fourth recording, and those behind it
                raise RuntimeError("out of memory")
            return super().states(wavs, wav_lens)

    broken = Broken()
    broken.others = [Broken()]
    # Names of classes tell extractors apart.
    Broken.__name__ = Levels.__name__
    with pytest.raises(RuntimeError, match="out of memory"):
        stored_features(broken, some, Cutting(1.0), tmp_path / "two")
    levels = Levels()
    levels.others = [Levels()]
    stored_features(levels, some, Cutting(1.0), tmp_path / "two")
    assert levels.asked + levels.others[0].asked == 3
    assert kept_files(tmp_path / "one") == kept_files(tmp_path / "two")
