"""The official package's half of the benchmark, in an environment of its own."""

from __future__ import annotations

import json

import torch
from muq import MuQ, MuQConfig
from protocol import serve
from transformers import Wav2Vec2ConformerConfig
from workload import (
    CHECKPOINT,
    FRAME_SAMPLES,
    SEED,
    SIZES,
    Job,
    Side,
    randomize_statistics,
)

MSD_MEAN, MSD_STD = 6.768444971712967, 18.417922652295623


class Official(Side):
    """The classes of the package muq, as its README uses them."""

    def load_model(self) -> None:
        """Builds the model from the seed, and saves it once for the other side."""
        torch.manual_seed(SEED)
        self.model = MuQ(_config(**SIZES[self.size])).eval()
        randomize_statistics(self.model)
        checkpoint = self.folder / CHECKPOINT
        if not checkpoint.exists():
            self.model.save_pretrained(checkpoint)
        self.model.to(self.device)

    def inference(self) -> Job:
        """Hidden states of a waveform."""
        wavs = self.wavs()

        def run():
            with torch.no_grad(), self.autocast():
                return self.model(wavs)

        return Job(run, lambda: {"hidden": run().last_hidden_state})

    def training(self) -> Job:
        """One training step with Mel-RVQ targets."""
        wavs, model = self.wavs(), self.model.model
        # The other side computes the loss of the same masked waveforms.
        torch.manual_seed(SEED)
        masked, indices = model.masking(wavs)
        mask = torch.zeros(len(wavs), wavs.shape[1] // FRAME_SAMPLES, dtype=torch.bool)
        mask[tuple(indices.t())] = True
        torch.save({"masked": masked.cpu(), "mask": mask}, self.masking_path())

        def loss():
            return model(wavs)[2]["melspec_2048"]

        def checked():
            own = model.masking
            model.masking = lambda *_, **__: (masked, indices)
            try:
                return loss()
            finally:
                model.masking = own

        return self.training_job(self.model, loss, checked)

    def mel_rvq_from_mel(self) -> Job:
        """Mel-RVQ codes of log-mel vectors."""
        vectors, rvq = self.stacked_mel().transpose(1, 2), self.model.model.rvq

        @torch.no_grad()
        def run():
            return rvq(vectors)[1]

        return Job(run, lambda: {"codes": run().transpose(1, 2)})

    def mel_rvq_from_wavs(self) -> Job:
        """Mel-RVQ codes of waveforms."""
        wavs = self.wavs()

        @torch.no_grad()
        def run():
            return self.model.model.get_targets(wavs)[0]["melspec_2048"]

        # Codebook after codebook in one row.
        return Job(run, lambda: {"codes": run().unflatten(1, (8, -1)).transpose(1, 2)})


def _config(
    width: int, num_layers: int, num_heads: int, ffn_width: int, conv_channels: int
) -> MuQConfig:
    """The configuration of the released model, in any size."""
    conformer = json.loads(json.dumps(Wav2Vec2ConformerConfig().to_dict()))
    conformer |= {
        "hidden_size": width,
        "num_attention_heads": num_heads,
        "intermediate_size": ffn_width,
        "hidden_act": "swish",
        "conv_depthwise_kernel_size": 31,
        "position_embeddings_type": "rotary",
        "rotary_embedding_base": 10000,
        "attention_dropout": 0.1,
        "activation_dropout": 0.1,
        "hidden_dropout": 0.1,
        "conformer_conv_dropout": 0.1,
        "layerdrop": 0.0,
        "layer_norm_eps": 1e-5,
    }
    return MuQConfig(
        encoder_dim=width,
        encoder_depth=num_layers,
        conv_dim=conv_channels,
        codebook_size=8192,
        use_rvq_target=True,
        stat={"melspec_2048_mean": MSD_MEAN, "melspec_2048_std": MSD_STD},
        w2v2_config=conformer,
    )


if __name__ == "__main__":
    serve(Official())
