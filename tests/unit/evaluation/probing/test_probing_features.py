"""Features: moments of valid frames, kept on disk, never stale."""

import os

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.data.windows import spread_windows
from muq_plugins.errors import UserError
from muq_plugins.evaluation.probing import features as module
from muq_plugins.evaluation.probing.clips import Clip, ProbeError
from muq_plugins.evaluation.probing.features import (
    FeatureSettings,
    HiddenStates,
    cached_features,
)
from muq_plugins.lobes import MuQEncoder


def make_encoder(seed=0):
    torch.manual_seed(seed)
    return MuQEncoder(16, num_layers=2, num_heads=2, ffn_width=16, conv_channels=2)


class Counting(HiddenStates):
    """Counts the windows that are encoded, and may be interrupted."""

    windows, most = 0, 99

    def states(self, wavs, wav_lens):
        if self.windows >= self.most:
            raise KeyboardInterrupt
        self.windows += len(wavs)
        return super().states(wavs, wav_lens)


@pytest.fixture
def clips(tmp_path):
    """Noises of different lengths, one of them as short as a click."""
    made = []
    for index, seconds in enumerate([0.03, 0.5, 1.1, 0.7]):
        path = tmp_path / f"{index}.wav"
        wav = 0.1 * np.random.default_rng(index).normal(size=int(24000 * seconds))
        soundfile.write(path, wav, 24000)
        made.append(Clip(str(index), str(path), seconds))
    return made


@pytest.fixture
def settings(tmp_path):
    """Windows of half a second."""
    return FeatureSettings(tmp_path / "features", 0.5, max_windows=2, batch_size=3)


def test_features_are_means_and_deviations_over_all_valid_frames(clips, settings):
    encoder = make_encoder()
    found = cached_features(HiddenStates(encoder), clips, settings)
    assert found.values.shape == (4, 3, 32) and found.usable.all()
    windows = spread_windows(clips[2].wav, 1.1, 0.5, 2, 24000)
    assert [len(window) for window in windows] == [12000, 12000]
    with torch.no_grad():
        states = [encoder.eval()(window[None]).hidden_states for window in windows]
    for layer in range(3):
        frames = torch.cat([state[layer][0] for state in states])
        np.testing.assert_allclose(
            found.values[2, layer],
            torch.cat([frames.mean(dim=0), frames.std(dim=0, correction=0)]),
            rtol=1e-4,
            atol=1e-5,
        )


def test_the_batch_does_not_matter(clips, settings, tmp_path):
    extractor = HiddenStates(make_encoder())
    together = cached_features(extractor, clips, settings).values
    alone = FeatureSettings(tmp_path / "alone", 0.5, 2, batch_size=1)
    np.testing.assert_allclose(
        together, cached_features(extractor, clips, alone).values, atol=1e-4
    )


def test_a_second_call_computes_nothing(clips, settings):
    first = Counting(make_encoder())
    features = cached_features(first, clips, settings)
    assert first.windows == 5
    again = Counting(make_encoder())
    found = cached_features(again, clips, settings)
    assert again.windows == 0 and found.key == features.key
    np.testing.assert_array_equal(found.values, features.values)


def test_an_interruption_costs_one_chunk(clips, settings, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    interrupted = Counting(make_encoder())
    interrupted.most = 2
    with pytest.raises(KeyboardInterrupt):
        cached_features(interrupted, clips, settings)
    rest = Counting(make_encoder())
    cached_features(rest, clips, settings)
    assert rest.windows == 3


def change_a_weight(extractor, clips, settings):
    encoder = make_encoder()
    with torch.no_grad():
        next(encoder.conformer.parameters()).view(-1)[0] += 1e-3
    return Counting(encoder), clips, settings


def change_the_windows(extractor, clips, settings):
    return extractor, clips, FeatureSettings(settings.folder, 0.4, 2)


def change_a_file(extractor, clips, settings):
    soundfile.write(clips[1].wav, np.zeros(12000), 24000)
    os.utime(clips[1].wav, ns=(1, 1))
    return extractor, clips, settings


def change_the_clips(extractor, clips, settings):
    return extractor, clips[:3], settings


@pytest.mark.parametrize(
    "change", [change_a_weight, change_the_windows, change_a_file, change_the_clips]
)
def test_features_are_never_stale(clips, settings, change):
    before = cached_features(Counting(make_encoder()), clips, settings).key
    extractor, clips, settings = change(Counting(make_encoder()), clips, settings)
    after = cached_features(extractor, clips, settings).key
    assert extractor.windows > 0 and after != before


def test_damaged_files_are_left_out_and_missing_ones_an_error(clips, settings, caplog):
    with open(clips[1].wav, "wb") as file:
        file.write(b"no audio")
    features = cached_features(HiddenStates(make_encoder()), clips, settings)
    assert features.usable.tolist() == [True, False, True, True]
    os.remove(clips[1].wav)
    with pytest.raises(UserError, match="1.wav is not there"):
        cached_features(HiddenStates(make_encoder()), clips, settings)


def test_what_could_not_be_read_is_tried_again(clips, settings, monkeypatch):
    """A drive may have been away; nothing else is computed again."""
    window_batches, reads = module.window_batches, []

    def batches(some, *options):
        reads.append([clip.name for clip in some])
        left = [clip for clip in some if clip.name != "1" or len(reads) > 1]
        for places, *audio in window_batches(left, *options):
            yield [some.index(left[place]) for place in places], *audio

    monkeypatch.setattr(module, "window_batches", batches)
    extractor = HiddenStates(make_encoder())
    first, again, last = (cached_features(extractor, clips, settings) for _ in "abc")
    assert first.usable.tolist() == [True, False, True, True]
    assert again.usable.all() and reads == [list("0123"), ["1"]]
    np.testing.assert_array_equal(last.values, again.values)
    np.testing.assert_array_equal(first.values[2:], again.values[2:])


def test_nothing_readable_is_an_error(clips, settings):
    for clip in clips:
        with open(clip.wav, "wb") as file:
            file.write(b"no audio")
    with pytest.raises(ProbeError, match="None of the 4 clips"):
        cached_features(HiddenStates(make_encoder()), clips, settings)


def test_a_broken_encoder_is_an_error(clips, settings):
    encoder = make_encoder()
    with torch.no_grad():
        next(encoder.conformer.parameters()).fill_(float("nan"))
    with pytest.raises(ProbeError, match="not finite"):
        cached_features(HiddenStates(encoder), clips, settings)


def test_wrong_settings():
    with pytest.raises(ProbeError, match="max_windows must be more than 0, got 0"):
        FeatureSettings("x", max_windows=0)
