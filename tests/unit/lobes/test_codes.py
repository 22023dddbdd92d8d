"""Code statistics against brute force."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from muq_plugins.lobes import codes


@pytest.fixture
def drawn():
    """Codes (clips, frames, N) that leave some entries of codebook 1 unused."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 5, (3, 40, 1), generator=generator)
    second = torch.randint(0, 11, (3, 40, 1), generator=generator)
    return torch.cat([first, second], dim=-1)


def test_statistics_equal_brute_force(drawn):
    counts = codes.count_codes(drawn, codebook_size=11)
    assert counts.dtype == torch.int64
    for index in range(2):
        counter = Counter(drawn[..., index].flatten().tolist())
        total = sum(counter.values())
        entropy = -sum(n / total * math.log(n / total) for n in counter.values())
        assert counts[index].tolist() == [counter[code] for code in range(11)]
        assert codes.usage(counts)[index].item() == pytest.approx(len(counter) / 11)
        assert codes.dead_codes(counts)[index].item() == 11 - len(counter)
        assert codes.entropy(counts)[index].item() == pytest.approx(entropy)
        assert codes.perplexity(counts)[index].item() == pytest.approx(
            math.exp(entropy)
        )
        assert codes.most_frequent_share(counts)[index].item() == pytest.approx(
            max(counter.values()) / total
        )


def test_the_entropy_is_too_low_by_its_bias():
    generator = torch.Generator().manual_seed(0)
    shares = torch.linspace(1, 3, 40)
    truth = torch.special.entr(shares / shares.sum()).sum().item()
    found, biases = [], []
    for _ in range(300):
        drawn = torch.multinomial(shares, 200, True, generator=generator)
        counts = codes.count_codes(drawn[:, None], 40)
        found.append(codes.entropy(counts).item())
        biases.append(codes.entropy_bias(counts).item())
    assert truth - np.mean(found) > 0.08
    assert np.mean(found) + np.mean(biases) == pytest.approx(truth, abs=0.01)


def test_extremes():
    even, single = np.full((1, 256), 7), np.zeros((1, 256), dtype=int)
    single[0, 3] = 1000
    assert codes.entropy(even).item() == pytest.approx(math.log(256))
    assert codes.perplexity(even).item() == pytest.approx(256)
    assert codes.perplexity(single).item() == 1.0
    assert codes.usage(single).item() == 1 / 256


def test_counts_of_parts_add_up(drawn):
    parts = [codes.count_codes(clip, 11) for clip in drawn]
    assert torch.equal(sum(parts), codes.count_codes(drawn, 11))


def test_nothing_counted_is_an_error():
    with pytest.raises(ValueError, match=r"no codes were counted in rows \[1\]"):
        codes.entropy(torch.tensor([[1, 2], [0, 0]]))


def test_counts_need_two_axes():
    with pytest.raises(ValueError, match=r"counts must be \(N, V\), got shape \(3,\)"):
        codes.usage(torch.ones(3))
