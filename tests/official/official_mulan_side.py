"""What the official MuQ-MuLan computes, for comparison. Runs in its own environment.

`make` builds an official model with seeded weights on a given text model, saves it as
the package does, and writes what it computes; `run` loads a folder with the official
class and writes what that computes. It imports nothing of ours.

    python official_mulan_side.py make --text FOLDER --out FOLDER [--audio-layers 1]
    python official_mulan_side.py run --model FOLDER --out FILE
"""

import argparse
import json
import os
import shutil
from pathlib import Path

# The text models are on this machine; asking the hub would only take time.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import torch.distributed as dist
from muq import MuQ, MuQConfig, MuQMuLan
from muq.muq_mulan.modules.contrastive import (
    RankSoftmaxContrastiveLearning,
    SigmoidContrastiveLearning,
)
from safetensors.torch import save_file
from seeded import DERIVED, TEXTS, seeded_tensor, seeded_wavs
from transformers import Wav2Vec2ConformerConfig, XLMRobertaConfig, XLMRobertaModel

LATENT_WIDTH = 16
CLIP_SECONDS = 2


def make_muq(folder: Path) -> None:
    """Saves a small official MuQ."""
    conformer = Wav2Vec2ConformerConfig(
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_act="swish",
        conv_depthwise_kernel_size=31,
        position_embeddings_type="rotary",
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=16,
        layerdrop=0.0,
    )
    config = MuQConfig(
        encoder_dim=32,
        encoder_depth=2,
        conv_dim=4,
        codebook_size=1024,
        rvq_n_codebooks=1,
        use_rvq_target=True,
        stat={"melspec_2048_mean": 6.75, "melspec_2048_std": 18.4},
        # Keys become strings, as in a downloaded config.json.
        w2v2_config=json.loads(json.dumps(conformer.to_dict())),
    )
    MuQ(config).save_pretrained(folder)
    if not (folder / "config.json").is_file():  # old versions of the hub package
        (folder / "config.json").write_text(json.dumps(vars(config)))


def make(text: Path, out: Path, audio_layers: int, layer: int) -> None:
    """Saves a model, its two parts, and what it computes."""
    make_muq(out / "muq")
    shutil.copytree(text, out / "xlm-roberta")
    text_config = XLMRobertaConfig.from_pretrained(text)
    XLMRobertaModel(text_config).save_pretrained(out / "xlm-roberta")
    layers = {"attn_dropout": 0.0, "ff_dropout": 0.0, "ff_mult": 4}
    config = {
        "mulan": {
            "sr": 24000,
            "clip_secs": CLIP_SECONDS,
            "dim_latent": LATENT_WIDTH,
            "decoupled_contrastive_learning": True,
            "hierarchical_contrastive_loss": False,
            "hierarchical_contrastive_loss_layers": None,
            "sigmoid_contrastive_loss": False,
            "rank_contrast": True,
        },
        "audio_model": {
            "name": str(out / "muq"),
            "model_dim": 32,
            "use_layer_idx": layer,
        },
        "text_model": {
            "name": str(out / "xlm-roberta"),
            "model_dim": None,
            "use_layer_idx": -1,
        },
        "audio_transformer": {
            "dim": 24,
            "tf_depth": audio_layers,
            "heads": 8,
            "dim_head": 64,
            **layers,
        },
        "text_transformer": {
            "dim": text_config.hidden_size,
            "tf_depth": 2,
            "max_seq_len": 1024,
            "heads": 2,
            "dim_head": 8,
            **layers,
        },
    }
    model = MuQMuLan(config).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not name.endswith(DERIVED):
                tensor.copy_(seeded_tensor(name, list(tensor.shape)))
    model.save_pretrained(out)
    (out / "config.json").write_text(json.dumps(config))
    (out / "README.md").unlink(missing_ok=True)  # a model card of the hub package
    shapes = {
        name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for name, tensor in model.state_dict().items()
    }
    (out / "tensors.json").write_text(json.dumps(shapes, indent=0))
    save_file(compute(model), out / "golden.safetensors")


def run(model: Path, out: Path) -> None:
    """Loads a folder with the official class and writes what it computes."""
    save_file(compute(MuQMuLan.from_pretrained(str(model)).eval()), out)


@torch.no_grad()
def compute(model: MuQMuLan) -> dict:
    """Latents, similarities and losses."""
    audio = {
        f"audio_{length}": model(wavs=seeded_wavs(length))
        for length in ("long", "short", "clips")
    }
    # One of this length is all that fits: each text is longer or shorter than others.
    alone = torch.cat([model(texts=[text]) for text in TEXTS])
    batch = model(texts=TEXTS)
    loss = model.mulan(seeded_wavs("clips"), raw_texts=TEXTS)
    losses = {
        "info_nce": RankSoftmaxContrastiveLearning(),
        "sigmoid": SigmoidContrastiveLearning(),
    }
    return {
        **audio,
        "text_alone": alone,
        "text_batch": batch,
        "tokens": model.mulan.text.tokenizer(TEXTS, padding=True, return_tensors="pt")[
            "input_ids"
        ],
        "similarity": model.calc_similarity(audio["audio_long"], alone),
        "loss": loss.reshape(()),
        **{
            name: contrast(audio["audio_clips"], alone).reshape(())
            for name, contrast in losses.items()
        },
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("--text", type=Path, required=True)
    making.add_argument("--out", type=Path, required=True)
    making.add_argument("--audio-layers", type=int, default=1)
    making.add_argument("--layer", type=int, default=-1)
    running = commands.add_parser("run")
    running.add_argument("--model", type=Path, required=True)
    running.add_argument("--out", type=Path, required=True)
    arguments = vars(parser.parse_args())
    # The loss gathers over ranks, also over a single one.
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    (make if arguments.pop("command") == "make" else run)(**arguments)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
