"""What the official package computes, for comparison. Runs in its own environment.

`make` builds a randomly initialised official model, saves it as the package does, and
writes what it computes; `run` loads a folder with the official class and writes the
hidden states. It imports nothing of ours.

    python official_side.py make --size small --out FOLDER
    python official_side.py run --model FOLDER --wavs FILE --out FILE
"""

import argparse
import json
from pathlib import Path

import torch
from muq import MuQ, MuQConfig
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2ConformerConfig

# Log-mel statistics of the released model.
STATISTICS = {
    "melspec_2048_mean": 6.768444971712967,
    "melspec_2048_std": 18.417922652295623,
}
SIZES = {
    # Small enough for the repository. The official class fixes 1024 entries a codebook.
    "small": {
        "encoder_dim": 32,
        "encoder_depth": 3,
        "conv_dim": 4,
        "codebook_size": 2048,
        "rvq_n_codebooks": 2,
        "heads": 4,
        "ffn": 64,
        "seconds": 1.0,
    },
    "full": {
        "encoder_dim": 1024,
        "encoder_depth": 12,
        "conv_dim": 512,
        "codebook_size": 8192,
        "rvq_n_codebooks": 8,
        "heads": 16,
        "ffn": 4096,
        "seconds": 1.0,
    },
}


def build(size: dict) -> MuQ:
    """A random official model whose statistics and weights are not trivial."""
    conformer = Wav2Vec2ConformerConfig(
        hidden_size=size["encoder_dim"],
        num_attention_heads=size["heads"],
        intermediate_size=size["ffn"],
        hidden_act="swish",
        conv_depthwise_kernel_size=31,
        position_embeddings_type="rotary",
        num_conv_pos_embeddings=128 if size["encoder_dim"] > 32 else 8,
        num_conv_pos_embedding_groups=16,
        layerdrop=0.0,
    )
    config = MuQConfig(
        encoder_dim=size["encoder_dim"],
        encoder_depth=size["encoder_depth"],
        conv_dim=size["conv_dim"],
        codebook_size=size["codebook_size"],
        rvq_n_codebooks=size["rvq_n_codebooks"],
        use_rvq_target=True,
        stat=STATISTICS,
        # Keys become strings, as in a downloaded config.json.
        w2v2_config=json.loads(json.dumps(conformer.to_dict())),
    )
    model = MuQ(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("weight_g", "norm.weight", "bn1.weight", "bn2.weight")):
                tensor.mul_(torch.rand_like(tensor) + 0.5)
    return model.eval()


@torch.no_grad()
def make(size_name: str, out: Path) -> None:
    """Saves a model and what it computes."""
    size = SIZES[size_name]
    torch.manual_seed(1234)
    official = build(size)
    model = official.model
    official.save_pretrained(out)
    if not (out / "config.json").is_file():  # old versions of the hub package
        (out / "config.json").write_text(json.dumps(vars(official.config)))
    (out / "README.md").unlink(missing_ok=True)  # a model card of the hub package

    # Half-precision values: the file is smaller, and both sides start equal.
    samples = int(size["seconds"] * 24000)
    time = torch.arange(samples) / 24000
    tones = torch.sin(6.2832 * torch.tensor([[220.0], [523.25]]) * time)
    wavs = (0.3 * tones + 0.05 * torch.randn(2, samples)).half().float()
    masked, indices = model.masking(wavs)
    masked = masked.half().float()
    tokens, _ = model.get_targets(wavs)
    codes = tokens["melspec_2048"].view(2, size["rvq_n_codebooks"], -1)
    logits, _, _ = model.get_predictions(masked, return_new_mask=True)
    losses, _ = model.get_loss(logits, tokens, indices)
    results = {
        "wavs": wavs.half(),
        "masked": masked.half(),
        "mask_indices": indices.int().contiguous(),
        "codes": codes.transpose(1, 2).int().contiguous(),
        "loss": losses["melspec_2048"],
        "mel": model.normalize(model.preprocessing(wavs, ["melspec_2048"]))[
            "melspec_2048"
        ].contiguous(),
        "hidden_states": torch.stack(official(wavs).hidden_states),
    }
    save_file(results, out / "golden.safetensors")


@torch.no_grad()
def run(model: Path, wavs: Path, out: Path) -> None:
    """Loads a folder with the official class and writes its hidden states."""
    official = MuQ.from_pretrained(str(model)).eval()
    states = official(load_file(wavs)["wavs"].float()).hidden_states
    save_file({"hidden_states": torch.stack(states)}, out)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("--size", choices=SIZES, required=True)
    making.add_argument("--out", type=Path, required=True)
    running = commands.add_parser("run")
    for name in ("--model", "--wavs", "--out"):
        running.add_argument(name, type=Path, required=True)
    arguments = vars(parser.parse_args())
    if arguments.pop("command") == "make":
        make(arguments["size"], arguments["out"])
    else:
        run(**arguments)


if __name__ == "__main__":
    main()
