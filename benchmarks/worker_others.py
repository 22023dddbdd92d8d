"""The tokenizers of other libraries, as they come with our environment."""

from __future__ import annotations

import torch
from protocol import serve
from speechbrain.nnet.quantisers import RandomProjectionQuantizer
from transformers import EncodecConfig, EncodecModel
from workload import SEED, Job, Side

BANDWIDTH = 6.0  # kilobits per second: 8 codebooks at 75 Hz


class Others(Side):
    """SpeechBrain's random projection, and EnCodec with random weights."""

    def load_model(self) -> None:
        """Builds both from the seed, and saves the projection for our side."""
        torch.manual_seed(SEED)
        self.projection = RandomProjectionQuantizer(512, 16, 8192)
        torch.save(
            {
                "projections": self.projection.P.t()[None].contiguous(),
                "codebooks": self.projection.CB[None],
            },
            self.folder / "projection.pt",
        )
        self.projection.to(self.device)
        self.encodec = EncodecModel(EncodecConfig()).eval().to(self.device)

    def random_projection(self) -> Job:
        """Codes of one random projection of log-mel vectors."""
        vectors = self.stacked_mel()

        @torch.no_grad()
        def run():
            return self.projection(vectors)

        return Job(run, lambda: {"codes": run()[..., None]})

    def encodec_from_wavs(self) -> Job:
        """Codes of EnCodec at 24 kHz and 6 kbit/s."""
        wavs = self.wavs()[:, None]

        @torch.no_grad()
        def run():
            return self.encodec.encode(wavs, bandwidth=BANDWIDTH).audio_codes

        # (chunks, batch, codebooks, frames)
        return Job(run, lambda: {"codes": run()[0].transpose(1, 2)})


if __name__ == "__main__":
    serve(Others())
