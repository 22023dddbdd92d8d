"""The family probe reads the right window, averages valid frames and compares."""

import math

import pytest
import soundfile
import torch
from torch import nn

from muq_plugins.data.audio import AudioError
from muq_plugins.evaluation import family_probe as module
from muq_plugins.evaluation.family_probe import family_probe
from muq_plugins.evaluation.probing.clips import ProbeError

RATE = 1000
PITCHES = {"Piano": 50, "Organ": 120}


def tone(family, seconds, loudness):
    time = torch.arange(int(seconds * RATE)) / RATE
    return loudness * torch.sin(2 * math.pi * PITCHES[family] * time)


def make_part(pieces, prefix):
    """Manifest entries of tones; the lengths differ, the family is the pitch."""
    entries = {}
    for number in range(pieces):
        family = ["Piano", "Organ"][number % 2]
        entries[f"{prefix}{number}"] = {
            "wav": f"{family}/{number}",
            "duration": 0.6 + 0.1 * (number % 7),
            "piece": f"{prefix} piece {number}",
            "family": family,
        }
    return entries


@pytest.fixture
def reads(monkeypatch):
    """Replaces the reader by one that makes tones, and notes what it was asked."""
    asked = []

    def read_audio(path, start=0.0, duration=None, sample_rate=24000):
        family, number = path.split("/")
        asked.append((int(number), start, duration, sample_rate))
        seconds = min(duration, 0.6 + 0.1 * (int(number) % 7) - start)
        return tone(family, seconds, loudness=0.1 + 0.1 * (int(number) % 3))

    monkeypatch.setattr(module, "read_audio", read_audio)
    return asked


def frames_of(wavs):
    return wavs.unfold(1, 100, 100)


def spectra(wavs, wav_lens):
    """A spectrum (batch, frames, size): the pitch is in it, whatever the loudness."""
    return torch.fft.rfft(frames_of(wavs)).abs()


def loudness(wavs, wav_lens):
    """Frames that know nothing of the pitch."""
    return frames_of(wavs).abs().amax(dim=2, keepdim=True)


def log_mel(wavs, wav_lens):
    return loudness(wavs, wav_lens), wav_lens


def run(train, test, **options):
    encoders = {
        "untrained encoder": lambda *audio: [loudness(*audio)],
        # The second layer knows nothing: the probe has to find the first one.
        "trained encoder": lambda *audio: [spectra(*audio), 0 * spectra(*audio)],
    }
    options = {"clip_seconds": 0.8, "sample_rate": RATE, "batch_size": 4, **options}
    return family_probe(encoders, log_mel, train, test, **options)


def test_the_encoder_that_hears_the_pitch_wins(reads):
    results = run(make_part(24, "train"), make_part(12, "test"))
    assert [result.name for result in results] == [
        "log-mel statistics",
        "untrained encoder",
        "trained encoder",
    ]
    assert results[2].balanced_accuracy == 1.0
    assert results[1].balanced_accuracy < 0.8
    assert [result.feature_size for result in results] == [2, 1, 51]
    assert [result.layer for result in results] == [None, None, 1]
    assert results[0].groups[:2] == ["test piece 0", "test piece 1"]
    assert len(reads) == 36  # each clip once, however many encoders there are


def test_windows_are_in_the_middle(reads):
    run(make_part(24, "train"), make_part(12, "test"))
    for number, start, duration, rate in reads:
        length = 0.6 + 0.1 * (number % 7)
        assert (duration, rate) == (0.8, RATE)
        assert start == pytest.approx(max(0.0, length / 2 - 0.4))


def test_unlabelled_and_mixed_clips_are_left_out(reads):
    train, test = make_part(24, "train"), make_part(12, "test")
    train["train0"]["family"] = "mixed"
    del train["train1"]["family"]
    test["test0"]["family"] = None
    (result, *_) = run(train, test)
    assert (result.train_clips, len(result.labels)) == (22, 11)


def test_test_clips_of_unknown_classes_are_left_out(reads):
    test = make_part(12, "test")
    for name in ("test0", "test2"):
        test[name]["family"] = "Theremin"
    (result, *_) = run(make_part(24, "train"), test)
    assert len(result.labels) == 10


def test_max_clips_takes_evenly(reads):
    parts = make_part(24, "train"), make_part(12, "test")
    (result, *_) = run(*parts, max_clips=10)
    assert (result.train_clips, len(result.labels)) == (10, 10)
    assert len(reads) == 20


def test_padding_does_not_count():
    wavs = torch.cat([torch.ones(2, 500), torch.full((2, 500), 9.0)], dim=1)
    wav_lens = torch.tensor([0.5, 1.0])
    features = module._statistics_of(log_mel)(wavs, wav_lens)
    torch.testing.assert_close(features, torch.tensor([[1.0, 0.0], [5.0, 4.0]]))
    states = module._average_of(lambda *audio: [loudness(*audio), -loudness(*audio)])
    expected = torch.tensor([[[1.0], [-1.0]], [[5.0], [-5.0]]])
    torch.testing.assert_close(states(wavs, wav_lens), expected)


def test_unreadable_clips_are_left_out_and_named(reads, monkeypatch):
    works = module.read_audio

    def read_audio(path, *window):
        if path == "Organ/3":
            raise AudioError(path, "truncated", "stopped early")
        return works(path, *window)

    monkeypatch.setattr(module, "read_audio", read_audio)
    warnings = []
    monkeypatch.setattr(module.logger, "warning", warnings.append)
    result = run(make_part(24, "train"), make_part(12, "test"))[-1]
    assert (result.train_clips, len(result.labels)) == (23, 11)
    assert result.balanced_accuracy == 1.0  # labels still belong to their clips
    assert len(warnings) == 2 and all("Organ/3" in warning for warning in warnings)


def test_reads_real_files(tmp_path):
    part = make_part(8, "clip")
    for entry in part.values():
        samples = tone(entry["family"], entry["duration"], 0.5).numpy()
        entry["wav"] = str(tmp_path / f"{entry['wav'].replace('/', ' ')}.wav")
        soundfile.write(entry["wav"], samples, RATE)
    assert run(part, part)[-1].balanced_accuracy == 1.0


def test_encoders_in_train_mode_are_refused():
    encoder = nn.Identity()
    with pytest.raises(ValueError, match="'trained encoder' is in train mode"):
        family_probe({"trained encoder": encoder}, log_mel, {}, {})


def test_no_usable_clip_is_an_error(reads):
    with pytest.raises(ProbeError, match="the test part is empty"):
        run(make_part(8, "train"), {})
