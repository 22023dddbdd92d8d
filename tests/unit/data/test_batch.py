"""Tests of batches of clips."""

import pytest
import torch

from muq_plugins.data.clips import Clip, collate_clips


def clip(name, samples, key=0, failures=()):
    wav = None if samples is None else torch.full((samples,), 0.5)
    return Clip(name, key, wav, 0.0, 24000, list(failures))


def test_padding_and_lengths():
    batch = collate_clips([clip("a", 12000, 2**62 - 1), clip("b", 48000, 5)])
    assert len(batch) == 2 and batch.ids == ["a", "b"]
    assert batch.wavs.shape == (2, 48000) and batch.wavs.dtype == torch.float32
    assert batch.wavs[0, 11999] == 0.5
    assert batch.wavs[0, 12000:].abs().max() == 0
    assert batch.wav_lens.tolist() == [0.25, 1.0]
    assert batch.wav_lens.dtype == torch.float32
    assert batch.clip_keys.dtype == torch.int64
    assert batch.clip_keys.tolist() == [2**62 - 1, 5]
    assert batch.audio_seconds == 2.5


def test_lengths_come_back_exactly_in_float32():
    lengths = [719_999, 719_041, 123_457, 720_000]
    batch = collate_clips([clip(str(n), n) for n in lengths])
    assert (batch.wav_lens * 720_000).round().long().tolist() == lengths


def test_clips_without_audio_only_count_as_failures():
    bad = clip("bad", None, failures=[("bad.wav", "truncated")])
    good = clip("good", 240, failures=[("x.wav", "missing")])
    batch = collate_clips([bad, good])
    assert batch.ids == ["good"] and batch.wavs.shape == (1, 240)
    assert batch.failures == [("bad.wav", "truncated"), ("x.wav", "missing")]


def test_a_batch_may_be_empty():
    batch = collate_clips([clip("bad", None, failures=[("bad.wav", "missing")])])
    assert len(batch) == 0 and batch.wavs.shape == (0, 0)
    assert batch.audio_seconds == 0 and batch.failures == [("bad.wav", "missing")]


def test_to_device_moves_every_tensor():
    batch = collate_clips([clip("a", 240)]).to("meta")
    tensors = (batch.wavs, batch.wav_lens, batch.clip_keys)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.ids == ["a"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pin_memory():
    batch = collate_clips([clip("a", 240)]).pin_memory()
    assert batch.wavs.is_pinned() and batch.clip_keys.is_pinned()
