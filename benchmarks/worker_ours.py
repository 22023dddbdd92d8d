"""Our half of the benchmark."""

from __future__ import annotations

import torch
from matrix import count_flops, matrix_rate
from protocol import serve
from torch import Tensor, nn
from workload import CHECKPOINT, SIZES, TOKENIZER, Job, Side

from muq_plugins import (
    BlockMasking,
    LogMel,
    MaskedPrediction,
    MelRVQ,
    MultiCodebookHead,
    MuQ,
    MuQEncoder,
    RandomProjection,
    ResidualVQ,
    StackedFrames,
)
from muq_plugins.inference.official import save_official
from muq_plugins.lobes import Masking


class Ours(Side):
    """The public classes of this package, as the README uses them."""

    def load_model(self) -> None:
        """Loads the other side's weights, or random ones if it has left none."""
        folder = self.folder / CHECKPOINT
        if not folder.exists():
            save_official(folder, MuQEncoder(**SIZES[self.size]))
        self.model = MuQ.from_pretrained(folder, device=str(self.device))
        checkpoint = self.model.checkpoint
        self.tokenizer = MelRVQ(
            StackedFrames(LogMel()),
            _loaded(ResidualVQ(512), checkpoint.others["tokenizer"]),
        ).to(self.device)
        head = MultiCodebookHead(SIZES[self.size]["width"], **TOKENIZER)
        _loaded(head.linear, checkpoint.others["head"])
        self.head = head.to(self.device)

    def compile(self) -> None:
        """From now on front end and conformer go through ``torch.compile``.

        The spectrogram stays outside: compilers leave complex numbers alone.
        """
        encoder = self.model.mods.encoder
        encoder.conv.compile()
        encoder.conformer.compile()

    def prepare(self, task: dict, result: str | None = None) -> None:
        """Chooses what is measured next; each task is compiled for its own shapes."""
        torch.compiler.reset()
        super().prepare(task, result)

    def inference(self) -> Job:
        """Hidden states of a waveform."""
        wavs = self.wavs()

        def run():
            with self.autocast():
                return self.model(wavs)

        return Job(run, lambda: {"hidden": run().last_hidden_state})

    def training(self) -> Job:
        """One training step with Mel-RVQ targets."""
        wavs = self.wavs()
        keys = torch.arange(len(wavs))
        encoder = self.model.mods.encoder.requires_grad_()
        stage = MaskedPrediction(BlockMasking(), self.tokenizer, encoder, self.head)
        path = self.masking_path()
        # Without it there is no other side, and nothing to compare with.
        shared = torch.load(path) if path.exists() else {}

        def loss():
            return stage(wavs, None, keys).loss

        def checked():
            own = stage.masking
            if shared:
                stage.masking = _Given(*(t.to(self.device) for t in shared.values()))
            try:
                return loss()
            finally:
                stage.masking = own

        return self.training_job(stage, loss, checked)

    def mel_rvq_from_mel(self) -> Job:
        """Mel-RVQ codes of log-mel vectors."""
        vectors, quantizer = self.stacked_mel(), self.tokenizer.quantizer

        @torch.no_grad()
        def run():
            return quantizer.encode(vectors)

        return Job(run, lambda: {"codes": run()})

    def mel_rvq_from_wavs(self) -> Job:
        """Mel-RVQ codes of waveforms."""
        wavs = self.wavs()
        return Job(
            lambda: self.tokenizer(wavs), lambda: {"codes": self.tokenizer(wavs)}
        )

    def encodec_from_wavs(self) -> Job:
        """Mel-RVQ again, to take turns with EnCodec."""
        return self.mel_rvq_from_wavs()

    def random_projection(self) -> Job:
        """Codes of one random projection of log-mel vectors."""
        vectors = self.stacked_mel()
        quantizer = RandomProjection(512, num_codebooks=1, codebook_size=8192)
        path = self.folder / "projection.pt"
        if path.exists():
            quantizer.load_state_dict(torch.load(path))
        quantizer.to(self.device)

        @torch.no_grad()
        def run():
            return quantizer.encode(vectors)

        return Job(run, lambda: {"codes": run()})

    def flops(self, task: dict) -> int:
        """See `count_flops`, for the loaded size."""
        return count_flops(SIZES[self.size], task)

    def rate(self, precision: str) -> float:
        """See `matrix_rate`, for the loaded device."""
        return matrix_rate(self.device, precision)


class _Given(Masking):
    """A masking that somebody else has drawn."""

    def __init__(self, masked: Tensor, mask: Tensor):
        super().__init__()
        self.given = masked, mask

    def forward(self, wavs: Tensor, clip_keys: Tensor) -> tuple[Tensor, Tensor]:
        return self.given


def _loaded(module: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The module with these weights; with its own where there are none at all."""
    if tensors:
        module.load_state_dict(tensors)
    return module


if __name__ == "__main__":
    serve(Ours())
