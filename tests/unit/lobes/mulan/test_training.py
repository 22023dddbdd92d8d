"""The stage mulan in one process: statistics, chunks, learning."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from muq_plugins.lobes import DecoupledContrastive, InfoNCE, SigmoidContrastive
from tests.unit.lobes.mulan.parts import (
    PeakMemory,
    learned,
    tiny_batch,
    tiny_stage,
    tiny_text_tower,
)

IDENTITIES = torch.tensor([[0, 0], [1, 1], [2, 2], [3, 3], [4, 3], [0, 5]])


def test_statistics_are_those_of_the_latents():
    stage = tiny_stage(InfoNCE()).eval()
    wavs, lens, texts = tiny_batch()
    out = stage(wavs, lens, texts, IDENTITIES)
    audio, text = stage.audio_tower(wavs, lens), stage.text_tower(texts)
    similarities = audio @ text.T
    torch.testing.assert_close(out.loss, stage.loss(audio, text, IDENTITIES))
    assert not out.totals and set(out.sums) == set(out.weights)
    means = {name: (out.sums[name] / out.weights[name]).item() for name in out.sums}
    assert means["loss"] == pytest.approx(out.loss.item())
    assert means["similarity"] == pytest.approx(
        similarities.diagonal().mean().item(), abs=1e-6
    )
    assert means["temperature"] == pytest.approx(10.0)
    # Of six pairs, 0 and 5 share one identity, 3 and 4 the other.
    assert means["chance"] == pytest.approx((4 * math.log(5) + 2 * math.log(6)) / 6)
    hits = []
    for i, row in enumerate(similarities.tolist()):
        shared = {0: 5, 5: 0, 3: 4, 4: 3}.get(i)
        hits.append(all(row[i] > row[j] for j in range(6) if j not in (i, shared)))
    assert means["accuracy"] == pytest.approx(sum(hits) / 6)
    assert not any(value.requires_grad for value in out.sums.values())


def test_autocast_does_not_make_latents_alike(monkeypatch):
    stage = tiny_stage(InfoNCE()).eval()
    # All close, and each the closest to itself
    latents = F.normalize(torch.ones(6, 16) + 0.05 * torch.eye(6, 16), dim=1)
    monkeypatch.setattr(stage, "_audio_latents", lambda wavs, lens: [latents])
    monkeypatch.setattr(stage, "_text_latents", lambda texts: [latents])
    with torch.autocast("cpu", torch.bfloat16):
        assert stage(*tiny_batch()).sums["accuracy"] == 6


def test_accuracy_of_latents_that_are_all_alike_is_not_luck():
    stage = tiny_stage(InfoNCE()).eval()
    stage.audio_tower.to_latents.linear.weight.data.zero_()
    stage.text_tower.to_latents.linear.weight.data.zero_()
    wavs, lens, texts = tiny_batch()
    out = stage(wavs, lens, texts)
    assert out.sums["accuracy"] == 0 and out.weights["accuracy"] == 6
    assert out.loss.item() == pytest.approx(math.log(6), abs=1e-5)
    assert (out.sums["chance"] / 6).item() == pytest.approx(math.log(6))


@pytest.mark.parametrize("kind", [DecoupledContrastive, InfoNCE, SigmoidContrastive])
@pytest.mark.parametrize("chunk_size", [1, 4, 6])
def test_chunks_equal_the_whole_batch(kind, chunk_size):
    wavs, lens, texts = tiny_batch()
    outs = []
    for size in (None, chunk_size):
        stage = tiny_stage(kind(), size, num_layers=1).train()
        out = stage(wavs, lens, texts, IDENTITIES)
        out.loss.backward()
        outs.append((out.loss, learned(stage), out.sums))
    (loss, gradients, sums), (chunked, chunked_gradients, chunked_sums) = outs
    torch.testing.assert_close(chunked, loss, rtol=0, atol=1e-5)
    assert max(g.abs().max() for g in gradients.values()) > 0.1  # not all near 0
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            chunked_gradients[name], gradient, rtol=1e-5, atol=1e-5, msg=name
        )
    for name in sums:
        torch.testing.assert_close(chunked_sums[name], sums[name], rtol=0, atol=1e-4)


def test_dropout_is_the_same_in_both_passes_over_a_chunk():
    wavs, lens, texts = tiny_batch()
    found = []
    for cached in (True, False):
        stage = tiny_stage(InfoNCE(), 2, dropout=0.3).train()
        if not cached:  # chunks as well, but kept as they are
            stage._run = lambda size, tower, *inputs: tower(*inputs)
        torch.manual_seed(5)
        loss = stage(wavs, lens, texts).loss
        after = torch.get_rng_state()
        loss.backward()
        # The second pass over the chunks must not change what is drawn next.
        assert torch.equal(torch.get_rng_state(), after)
        found.append((loss, learned(stage)))
    (loss, gradients), (expected_loss, expected) = found
    assert torch.equal(loss, expected_loss)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6)
    stage = tiny_stage(InfoNCE(), 2, dropout=0.3).train()
    torch.manual_seed(6)
    assert not torch.equal(stage(wavs, lens, texts).loss, loss)


def test_memory_is_that_of_a_chunk():
    wavs, lens, texts = tiny_batch(12, 24000)
    peaks = {}
    for pairs, size in ((12, None), (12, 2), (2, None)):
        stage = tiny_stage(InfoNCE(), size).train()
        with PeakMemory() as memory:
            stage(wavs[:pairs], lens[:pairs], texts[:pairs]).loss.backward()
        peaks[pairs, size] = memory.peak
    assert peaks[12, 2] < 0.35 * peaks[12, None]
    assert peaks[12, 2] < 1.5 * peaks[2, None]


def test_evaluation_in_chunks_keeps_nothing_to_compute_again():
    wavs, lens, texts = tiny_batch()
    stage = tiny_stage(InfoNCE(), 2).eval()
    with torch.no_grad():
        out = stage(wavs, lens, texts)
    assert not out.loss.requires_grad
    whole = tiny_stage(InfoNCE()).eval()(wavs, lens, texts)
    torch.testing.assert_close(out.loss, whole.loss.detach(), rtol=0, atol=1e-5)


def test_chunks_work_under_autocast():
    wavs, lens, texts = tiny_batch()
    stage = tiny_stage(DecoupledContrastive(100.0), 2).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = stage(wavs, lens, texts).loss
    loss.backward()
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in learned(stage).values())


def test_one_pair_keeps_the_graph_whole():
    wavs, _, texts = tiny_batch(1)
    stage = tiny_stage(DecoupledContrastive(), 1).train()
    out = stage(wavs, None, texts)
    out.loss.backward()
    assert out.loss == 0 and out.weights["accuracy"] == 0
    assert all(g is not None and g.isfinite().all() for g in learned(stage).values())


@pytest.mark.parametrize(
    "loss",
    [DecoupledContrastive(), InfoNCE(), SigmoidContrastive(bias=-2.0)],
    ids=lambda loss: type(loss).__name__,
)
def test_towers_learn_to_agree(loss):
    stage = tiny_stage(copy.deepcopy(loss)).train()
    optimizer = torch.optim.Adam(stage.parameters(), 1e-3)
    time = torch.arange(4800) / 24000
    tones = [torch.sin(2 * torch.pi * f * time) for f in (110, 440, 1760)]
    wavs, texts = torch.stack(tones), tiny_batch(3)[2]
    for _ in range(40):
        optimizer.zero_grad()
        stage(wavs, None, texts).loss.backward()
        optimizer.step()
        stage.after_update()
    with torch.no_grad():
        out = stage.eval()(wavs, None, texts)
    assert out.sums["accuracy"] == 3
    assert out.loss < 0.5 * stage.loss.chance(3)


def test_after_an_update_the_temperature_is_within_its_limit():
    stage = tiny_stage(InfoNCE(max_temperature=20.0))
    stage.loss.log_temperature.data.fill_(9.0)
    stage.after_update()
    assert stage.loss.log_temperature.exp().item() == pytest.approx(20.0, rel=1e-5)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="audio tower has latents of 8.*of 16"):
        tiny_stage(InfoNCE(), latent_width=8)
    with pytest.raises(ValueError, match="chunk_size is 0"):
        tiny_stage(InfoNCE(), 0)
    stage = tiny_stage(InfoNCE())
    with pytest.raises(ValueError, match="2 clips need as many texts, got 1"):
        stage(torch.randn(2, 9600), None, ["drums"])
    with pytest.raises(ValueError, match="batch has no pairs"):
        stage(torch.randn(0, 9600), None, [])
    padding = tiny_text_tower(average_padding=True)
    with pytest.raises(ValueError, match="average_padding.*chunk_size to null"):
        type(stage)(stage.audio_tower, padding, InfoNCE(), 2)
    assert type(stage)(stage.audio_tower, padding, InfoNCE()).chunk_size is None
    del padding.average_padding  # a tower of one's own may not know of it
    assert type(stage)(stage.audio_tower, padding, InfoNCE(), 2).chunk_size == 2
