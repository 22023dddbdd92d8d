"""A recipe that knows nothing of ours but the lobe: a plain Brain, on any processes.

python plain_brain.py SOURCE OUTPUT [--distributed_backend gloo], by torchrun or not
"""

import sys

import speechbrain as sb
import torch

from muq_plugins import PretrainedMuQ, WeightedMuQ

WAYS = [
    (PretrainedMuQ, {}),
    (PretrainedMuQ, {"batch_statistics": "moving"}),
    (WeightedMuQ, {}),
    (WeightedMuQ, {"freeze": True}),
]


class PlainBrain(sb.Brain):
    def compute_forward(self, batch, stage):
        return self.modules.muq(batch[0].to(self.device)).mean(1)

    def compute_objectives(self, predictions, batch, stage):
        return (predictions - batch[1].to(self.device)).square().mean()


def train(source, kind, options, run_opts):
    """Three updates with the same clips, however many processes there are.

    Each process hears its share of them, or all if the batch statistics move.
    """
    generator = torch.Generator().manual_seed(0)
    wavs = torch.randn(12, 6000, generator=generator)
    clips = torch.utils.data.TensorDataset(
        wavs, torch.randn(12, 32, generator=generator)
    )
    size = 4
    alone = options.get("batch_statistics") == "moving"
    if run_opts.get("distributed_launch") and not alone:
        rank, size = torch.distributed.get_rank(), 2
        clips = torch.utils.data.Subset(
            clips, [i for first in (0, 4, 8) for i in range(first + rank, first + 4, 2)]
        )
    brain = PlainBrain(
        {"muq": kind(source, **options)},
        lambda parameters: torch.optim.SGD(parameters, 0.1),
        run_opts={**run_opts, "device": "cpu", "noprogressbar": True},
    )
    brain.fit([1], torch.utils.data.DataLoader(clips, size))
    lobe = brain.modules.muq
    return getattr(lobe, "module", lobe).state_dict()


if __name__ == "__main__":
    source, output, *options = sys.argv[1:]
    run_opts = sb.parse_arguments(["-", *options])[1]
    sb.utils.distributed.ddp_init_group(run_opts)
    states = [train(source, *way, run_opts) for way in WAYS]
    if sb.utils.distributed.if_main_process():
        torch.save(states, output)
