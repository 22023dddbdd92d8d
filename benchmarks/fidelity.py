r"""What windows and loudness change in the features of a model.

> python benchmarks/fidelity.py
> python benchmarks/fidelity.py --model results/muq/1234 \
    --tokenizer results/mel_rvq/1234 --audio song.flac

Without a model it is one with random weights, 12 layers deep as that of the paper and a
quarter as wide; without a tokenizer that is random too; without audio it is a minute of
random chords.
"""

import argparse

import torch
import torch.nn.functional as F

from muq_plugins import MuQ
from muq_plugins.data.audio import read_audio
from muq_plugins.data.windows import EDGE_SECONDS, embed_windows
from muq_plugins.inference.tokenizer import any_tokenizer
from muq_plugins.lobes import LogMel, MuQEncoder, ResidualVQ, StackedFrames, Target

RATE, FRAME = 24000, 960
QUIETER = 10 ** (-6 / 20)
# As deep as that of the paper, and a quarter as wide.
SIZE = {"width": 256, "num_layers": 12, "num_heads": 4, "ffn_width": 1024}


def random_model(size):
    """A model with random weights."""
    torch.manual_seed(0)
    modules = {"encoder": MuQEncoder(**size).eval()}
    return MuQ(modules, {"sample_rate": RATE}, {"device": "cpu"})


def random_chords(seconds):
    """Two chords a second of three random pitches, and a little noise."""
    generator = torch.Generator().manual_seed(1)
    time = torch.arange(seconds * RATE) / RATE
    wav = 0.002 * torch.randn(len(time), generator=generator)
    for _ in range(3):
        notes = torch.randint(0, 36, (2 * seconds,), generator=generator)
        pitch = 110 * 2 ** (notes / 12).repeat_interleave(RATE // 2)
        wav += 0.1 * torch.sin(2 * torch.pi * pitch * time)
    return wav


def random_tokenizer():
    """A Mel-RVQ with random weights."""
    torch.manual_seed(0)
    return Target(StackedFrames(LogMel()), ResidualVQ(512, 8, 1024))


@torch.no_grad()
def windows(model, wav, window=30, overlap=5):
    """Median relative difference of each layer to a single pass, and the largest."""

    def embed(wav):
        states = torch.stack(model(wav[None]).hidden_states)[:, 0]
        return states.transpose(0, 1).flatten(1)

    whole, cut = embed(wav), (25 * window, 25 * overlap, round(25 * EDGE_SECONDS))
    chunks = embed_windows(embed, [wav], FRAME, 25.0, *cut)
    parts = torch.cat([chunk.hidden for chunk in chunks])
    layers = len(model(wav[:RATE][None]).hidden_states)
    whole, parts = (states.unflatten(1, (layers, -1)) for states in (whole, parts))
    differences = (parts - whole).norm(dim=-1) / whole.norm(dim=-1)
    return differences.median(dim=0).values, differences.max(dim=0).values


@torch.no_grad()
def loudness(model, target, wav):
    """Cosine of the last layer at -6 dB, and the share of first codes that are kept."""
    last = [model(w[None]).hidden_states[-1][0] for w in (wav, QUIETER * wav)]
    first = [target(w[None])[0, :, 0] for w in (wav, QUIETER * wav)]
    cosine = F.cosine_similarity(*last, dim=-1).median()
    return float(cosine), float((first[0] == first[1]).float().mean())


def main():
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--tokenizer")
    parser.add_argument("--audio")
    given = parser.parse_args()
    model = (
        MuQ.from_pretrained(given.model, "cpu") if given.model else random_model(SIZE)
    )
    tokenizer = given.tokenizer
    target = any_tokenizer(tokenizer) if tokenizer else random_tokenizer()
    wav = read_audio(given.audio, sample_rate=RATE) if given.audio else None
    wav = random_chords(60) if wav is None else wav
    print("layer  median  largest  (relative difference of 30 s windows to one pass)")
    for layer, found in enumerate(zip(*windows(model, wav), strict=True)):
        print("{:5d}  {:6.2%}  {:7.2%}".format(layer, *found))
    cosine, kept = loudness(model, target, wav[: 30 * RATE])
    print(f"-6 dB: cosine {cosine:.3f} at the last layer, {kept:.0%} first codes kept")


if __name__ == "__main__":
    main()
