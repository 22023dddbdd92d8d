"""Contrasted views: the loss, what is drawn from a key, and each augmentation."""

import math

import pytest
import torch
import torch.nn.functional as F

from muq_plugins.lobes import Augmentation, ContrastiveViews, MuQEncoder, Pretraining
from muq_plugins.lobes.objectives.views import nt_xent

EFFECTS = "polarity noise gain filters delay pitch reverberation".split()
RATE = 24000


def only(*effects):
    return Augmentation(**{name: float(name in effects) for name in EFFECTS})


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def tone(hertz, seconds=1.0):
    return torch.sin(2 * math.pi * hertz * torch.arange(int(seconds * RATE)) / RATE)


def level(wav, hertz):
    """Of a tone in the middle of a wave, beside that of `tone`, in dB."""
    middle = slice(len(wav) // 4, -len(wav) // 4)
    turns = torch.exp(-2j * math.pi * hertz * torch.arange(len(wav)) / RATE)
    return 20 * ((wav * turns)[middle].mean().abs() * 2).log10().item()


def stage(**settings):
    torch.manual_seed(0)
    encoder = MuQEncoder(32, 1, 4, 64, conv_channels=4, dropout=0.0)
    settings = {"augmentation": Augmentation(), "width": 32, **settings}
    views = ContrastiveViews(view_seconds=0.4, **settings)
    return Pretraining(None, encoder, {"views": views})


def test_the_loss_is_that_of_its_paper():
    """Equations 1 and the mean over both ways of arXiv 2002.05709, pair by pair."""
    torch.manual_seed(0)
    views = torch.randn(5, 2, 8, dtype=torch.float64, requires_grad=True)
    latents = [*views[:, 0], *views[:, 1]]
    losses = []
    for i, own in [(k, (k + 5) % 10) for k in range(10)]:
        scaled = [
            (F.cosine_similarity(latents[i], other, dim=0) / 0.5).exp()
            for k, other in enumerate(latents)
            if k != i
        ]
        of_own = F.cosine_similarity(latents[i], latents[own], dim=0) / 0.5
        losses.append(torch.stack(scaled).sum().log() - of_own)
    expected = torch.stack(losses).mean()
    loss, found = nt_xent(views, 0.5)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(x, views)[0] for x in (expected, loss)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    assert found.shape == (10,) and 0 < found.sum() < 10


def test_alike_clips_are_not_found_and_one_alone_says_nothing():
    assert not nt_xent(torch.ones(3, 2, 4), 0.5)[1].any()
    out = stage().eval()(torch.randn(1, RATE))
    assert out.loss == 0 and out.weights["loss"] == 0
    assert not out.sums["accuracy"].any()


def test_views_depend_on_the_key_alone():
    views = stage().objectives["views"]
    wavs = torch.randn(3, RATE)
    wavs[1, RATE // 2 :] = 0
    lens, keys = torch.tensor([1.0, 0.5, 1.0]), torch.tensor([5, 6, 7])
    state = torch.get_rng_state()
    found, _ = views.views(wavs, lens, keys)
    assert torch.equal(state, torch.get_rng_state())
    assert found.shape == (3, 2, 9600)
    alone, _ = views.views(wavs[1:2, : RATE // 2], None, keys[1:2])
    assert torch.equal(found[1], alone[0])
    assert not torch.equal(found[0, 0], found[0, 1])
    assert not torch.equal(found[0], views.views(wavs[:1], None, keys[1:2])[0][0])


def test_a_clip_that_is_shorter_than_a_view_is_heard_whole():
    module = stage(augmentation=only()).eval()
    views = module.objectives["views"]
    wavs = F.pad(torch.randn(2, 4800), (0, 4800))
    wavs[1] = torch.randn(9600)
    found, lens = views.views(wavs, torch.tensor([0.5, 1.0]), torch.tensor([1, 2]))
    assert lens.tolist() == [0.5, 1.0]
    assert torch.equal(found[0], wavs[[0, 0]])
    # Padding says nothing.
    wavs[0, 4800:] = 0.5
    again, _ = views.views(wavs, torch.tensor([0.5, 1.0]), torch.tensor([1, 2]))
    assert torch.equal(found[0], again[0])


def test_nothing_is_changed_where_no_effect_is_probable():
    wav = torch.randn(5000)
    assert torch.equal(only()(wav, seeded(1)), wav)
    first = only("polarity")(wav, seeded(1))
    assert torch.equal(first, -wav)
    # Other effects leave the numbers of one as they are.
    gains = [only(*e)(wav, seeded(3)) for e in (["gain"], ["polarity", "gain"])]
    assert torch.equal(gains[0], -gains[1])


@pytest.mark.parametrize("seed", range(3))
def test_noise_and_gain_are_within_their_ranges(seed):
    wav = tone(440)
    quieter = level(only("gain")(wav, seeded(seed)), 440)
    assert -20 <= quieter <= -1
    noise = only("noise")(wav, seeded(seed)) - wav
    assert -80 <= 20 * (noise.std() / wav.std()).log10() <= -40


def test_filters_take_away_what_is_beyond_their_edge():
    found = set()
    for seed in range(6):
        wav = only("filters")(tone(50) + tone(700) + tone(10000), seeded(seed))
        low, high = level(wav, 50), level(wav, 10000)
        found.add("high" if low < high else "low")
        if low < high:  # 12 dB an octave below 200 to 1200 Hz
            assert -56 < low < -23 and abs(high) < 0.1
        else:  # above 2200 to 4000 Hz
            assert -27 < high < -15 and abs(low) < 0.1
    assert found == {"high", "low"}


def test_an_echo_comes_once_at_half_the_level():
    impulse = F.pad(torch.ones(1), (0, RATE - 1))
    found = [only("delay")(impulse, seeded(seed)).nonzero() for seed in range(8)]
    delays = {float(places[1, 0]) / RATE for places in found}
    assert delays <= {0.2, 0.25, 0.3, 0.35, 0.4, 0.45} and len(delays) > 2
    wav = only("delay")(impulse, seeded(0))
    assert wav[wav != 0].tolist() == [0.5, 0.25]


@pytest.mark.parametrize("seed", range(3))
def test_pitch_is_shifted_by_up_to_a_fifth_and_nothing_gets_longer(seed):
    wav = only("pitch")(tone(440, 2.0), seeded(seed))
    assert len(wav) == 2 * RATE
    spectrum = torch.fft.rfft(wav * torch.hann_window(len(wav))).abs()
    heard = float(spectrum.argmax()) / 2
    drawn = torch.rand(7, 3, generator=seeded(seed))[5, 1]
    wanted = float(14 * drawn - 7)
    assert 12 * math.log2(heard / 440) == pytest.approx(wanted, abs=0.05)
    assert only("pitch")(tone(440, 0.01), seeded(seed)).shape == (240,)


def test_a_room_decays_and_keeps_the_level():
    impulse = F.pad(torch.ones(1), (0, 2 * RATE - 1))
    wav = only("reverberation")(impulse, seeded(1))
    drawn = torch.rand(7, 3, generator=seeded(1))[6]
    seconds = 0.1 + 0.9 * float(drawn[1])
    tail = wav[1:].unfold(0, 1000, 1000).square().mean(1)
    assert tail[0] > 100 * tail[int(seconds * RATE / 2000)] > 0
    assert not tail[int(seconds * RATE / 1000) + 1 :].gt(1e-12).any()
    assert wav.norm() == pytest.approx(1.0, abs=0.1)


def test_it_learns_to_tell_tones_apart():
    """The answer is known: eight tones, and views that keep their pitch."""
    module = stage(augmentation=only("polarity", "gain", "delay"), temperature=0.2)
    wavs = torch.stack([tone(110 * 2 ** (k / 2)) for k in range(8)]) * 0.3
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for step in range(20):
        out = module(wavs, None, torch.arange(8) + 100 * step)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        if step == 0:
            first = out.sums["accuracy"] / 8
    out = module.eval()(wavs, None, torch.arange(8) + 10**6)
    assert out.sums["chance"] / 8 == pytest.approx(math.log(15))
    assert out.loss < 0.5 * math.log(15)
    assert first < 0.7 and out.sums["accuracy"] / 8 > 0.9


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"width": 48}, "width differs: MuQEncoder has 32.*ContrastiveViews has 48"),
        ({"augmentation": Augmentation(16000)}, "sample_rate.*Augmentation.*MuQEnc"),
        ({"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        stage(**settings)


def test_settings_that_are_none_are_refused():
    with pytest.raises(ValueError, match="pitch is 1.5: give a probability"):
        Augmentation(pitch=1.5)
    views = ContrastiveViews(Augmentation(), 32, view_seconds=0.01)
    with pytest.raises(ValueError, match="views of 240.*nothing shorter than 1025"):
        views.check(MuQEncoder(32, 1, 4, 64, conv_channels=4), None)
