"""One side of `compare.py`: a process that holds a model and computes when it is told.

Both environments run this file with their own interpreter, so at the top it imports
nothing but torch and the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import math
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

SEED, SAMPLE_RATE, FRAME_SAMPLES = 1234, 24000, 960
FIRST_LAYER = "conv.conv.0.conv1.weight"  # the last one that a backward pass reaches
SIZES = {"released": (1024, 12, 16, 4096, 512), "quick": (64, 2, 4, 256, 16)}
PARTS = ("width", "num_layers", "num_heads", "ffn_width", "conv_channels")

# What computes a task once, and what gives the tensors by which sides are compared.
Job = tuple[Callable[[], Any], Callable[[], dict[str, Tensor]]]


class Side:
    """What the sides share; a subclass has one method for each kind of task."""

    def __init__(self, task: dict[str, Any], folder: Path):
        self.task, self.folder, self.device = task, folder, task["device"]
        self.size = dict(zip(PARTS, SIZES[task["size"]], strict=True))
        torch.manual_seed(SEED)
        self.load()
        self.wavs, self.vectors = self.audio(), self.log_mel()

    def autocast(self) -> torch.autocast:
        """The precision that the task asks for."""
        half = self.task["precision"] == "bf16"
        return torch.autocast(self.device, torch.bfloat16, enabled=half)

    def audio(self) -> Tensor:
        """The audio of the task, the same on every side."""
        samples = round(self.task["seconds"] * SAMPLE_RATE)
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.randn(self.task["batch"], samples, generator=generator)
        times = torch.arange(samples, dtype=torch.float64) / SAMPLE_RATE
        tones = [(2 * math.pi * hertz * times).sin() for hertz in (220, 277, 330)]
        return (0.05 * noise + 0.1 * sum(tones).float()).to(self.device)

    def log_mel(self) -> Tensor:
        """Vectors like stacked log-mel frames, the same on every side."""
        frames = round(self.task["seconds"] * SAMPLE_RATE) // FRAME_SAMPLES
        shape = (self.task["batch"], frames, 512)
        generator = torch.Generator().manual_seed(SEED)
        return torch.randn(shape, generator=generator).to(self.device)

    def codes(
        self, run: Callable[[], Tensor], reshape: Callable = Tensor.detach
    ) -> Job:
        """Tokenizing; the codes are compared as (batch, frames, codebooks)."""
        run = torch.no_grad()(run)
        return run, lambda: {"codes": reshape(run())}

    def hidden(self, model: nn.Module) -> Job:
        """Inference."""

        @torch.no_grad()
        def run():
            with self.autocast():
                return model(self.wavs)

        return run, lambda: {"hidden": run().last_hidden_state}

    def step(self, module: nn.Module, owner: nn.Module, loss: Callable, given) -> Job:
        """A step of Adam; its result is without dropout and on a masking of both."""
        first = next(p for n, p in module.named_parameters() if n.endswith(FIRST_LAYER))
        statistics = {name: buffer.clone() for name, buffer in module.named_buffers()}
        parameters = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=0.0)

        def run(training: bool = True):
            module.train(training)
            optimizer.zero_grad()
            with self.autocast():
                value = loss()
            value.backward()
            optimizer.step()
            return value

        def result():
            module.load_state_dict(statistics, strict=False)
            with patch.object(owner, "masking", given):
                return {"loss": run(False), "gradient": first.grad}

        return run, result


class Official(Side):
    """The classes of the package muq, as its README uses them."""

    def load(self) -> None:
        from muq import MuQ, MuQConfig
        from transformers import Wav2Vec2ConformerConfig

        width, layers, heads, ffn_width, channels = self.size.values()
        conformer = json.loads(json.dumps(Wav2Vec2ConformerConfig().to_dict()))
        conformer |= {
            "hidden_size": width,
            "num_attention_heads": heads,
            "intermediate_size": ffn_width,
            "hidden_act": "swish",
            "conv_depthwise_kernel_size": 31,
            "position_embeddings_type": "rotary",
            "rotary_embedding_base": 10000,
            "layerdrop": 0.0,
            "layer_norm_eps": 1e-5,
        }
        for name in ("attention", "activation", "hidden", "conformer_conv"):
            conformer[f"{name}_dropout"] = 0.1
        mean, std = 6.768444971712967, 18.417922652295623
        config = MuQConfig(
            encoder_dim=width,
            encoder_depth=layers,
            conv_dim=channels,
            codebook_size=8192,
            use_rvq_target=True,
            stat={"melspec_2048_mean": mean, "melspec_2048_std": std},
            w2v2_config=conformer,
        )
        self.model = MuQ(config).eval()
        generator = torch.Generator().manual_seed(SEED)
        for part in self.model.modules():  # something to do, as after a training
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.normal_(std=0.1, generator=generator)
                part.running_var.uniform_(0.5, 2.0, generator=generator)
        if not (self.folder / "official").exists():
            self.model.save_pretrained(self.folder / "official")
        self.model.to(self.device)

    def inference(self) -> Job:
        return self.hidden(self.model)

    def training(self) -> Job:
        model = self.model.model
        torch.manual_seed(SEED)  # the same masking in every precision
        masked, indices = model.masking(self.wavs)
        frames = self.wavs.shape[1] // FRAME_SAMPLES
        mask = torch.zeros(len(self.wavs), frames, dtype=torch.bool)
        mask[tuple(indices.t())] = True
        torch.save((masked.cpu(), mask), self.folder / "masking.pt")
        return self.step(
            self.model,
            model,
            lambda: model(self.wavs)[2]["melspec_2048"],
            lambda *_, **__: (masked, indices),
        )

    def mel_rvq_from_mel(self) -> Job:
        vectors, rvq = self.vectors.transpose(1, 2), self.model.model.rvq
        return self.codes(lambda: rvq(vectors)[1], lambda codes: codes.transpose(1, 2))

    def mel_rvq_from_wavs(self) -> Job:
        targets = self.model.model.get_targets
        return self.codes(
            lambda: targets(self.wavs)[0]["melspec_2048"],
            lambda codes: codes.unflatten(1, (8, -1)).transpose(1, 2),
        )


class Ours(Side):
    """The public classes of this package, as its README uses them."""

    def load(self) -> None:
        import muq_plugins as ours
        from muq_plugins.inference.official import save_official

        folder = self.folder / "official"
        if not folder.exists():  # nobody to compare with
            save_official(folder, ours.MuQEncoder(**self.size))
        self.model = ours.MuQ.from_pretrained(folder, device=self.device)
        rvq = ours.ResidualVQ(512)
        self.head = ours.MultiCodebookHead(self.size["width"], 8, 1024)
        others = self.model.checkpoint.others
        for module, name in ((rvq, "tokenizer"), (self.head.linear, "head")):
            if others[name]:
                module.load_state_dict(others[name])
        self.tokenizer = ours.MelRVQ(ours.StackedFrames(ours.LogMel()), rvq)
        self.tokenizer.to(self.device)

    def inference(self) -> Job:
        return self.hidden(self.model)

    def training(self) -> Job:
        from muq_plugins import BlockMasking, MaskedPrediction

        encoder = self.model.mods.encoder.requires_grad_()
        stage = MaskedPrediction(BlockMasking(), self.tokenizer, encoder, self.head)
        stage.to(self.device)
        path, given = self.folder / "masking.pt", stage.masking
        if path.exists():
            masked, mask = (tensor.to(self.device) for tensor in torch.load(path))
            given = BlockMasking()
            given.forward = lambda wavs, keys: (masked, mask)
        keys = torch.arange(len(self.wavs))
        return self.step(stage, stage, lambda: stage(self.wavs, None, keys).loss, given)

    def mel_rvq_from_mel(self) -> Job:
        return self.codes(lambda: self.tokenizer.quantizer.encode(self.vectors))

    def mel_rvq_from_wavs(self) -> Job:
        return self.codes(lambda: self.tokenizer(self.wavs))

    encodec_from_wavs = mel_rvq_from_wavs

    def random_projection(self) -> Job:
        from muq_plugins import RandomProjection

        quantizer = RandomProjection(512, num_codebooks=1, codebook_size=8192)
        quantizer.load_state_dict(torch.load(self.folder / "projection.pt"))
        quantizer.to(self.device)
        return self.codes(lambda: quantizer.encode(self.vectors))


class Compiled(Ours):
    """Ours with `torch.compile`, which leaves the spectrogram alone (complex)."""

    def load(self) -> None:
        super().load()
        self.model.mods.encoder.conv.compile()
        self.model.mods.encoder.conformer.compile()


class Int8(Ours):
    """Ours in integers of 8 bits, for inference on a CPU."""

    def load(self) -> None:
        super().load()
        self.model.int8()


class Others(Side):
    """SpeechBrain's random projection, and EnCodec with random weights."""

    def load(self) -> None:
        pass

    def random_projection(self) -> Job:
        from speechbrain.nnet.quantisers import RandomProjectionQuantizer

        theirs = RandomProjectionQuantizer(512, 16, 8192)
        projections = theirs.P.t()[None].contiguous()
        weights = {"projections": projections, "codebooks": theirs.CB[None]}
        torch.save(weights, self.folder / "projection.pt")
        theirs.to(self.device)
        return self.codes(lambda: theirs(self.vectors), lambda codes: codes[..., None])

    def encodec_from_wavs(self) -> Job:
        from transformers import EncodecConfig, EncodecModel

        model = EncodecModel(EncodecConfig()).eval().to(self.device)
        return self.codes(  # at 6 kbit/s: 8 codebooks at 75 Hz
            lambda: model.encode(self.wavs[:, None], bandwidth=6.0).audio_codes,
            lambda codes: codes[0].transpose(1, 2),
        )


SIDES = {
    "official": Official,
    "ours": Ours,
    "compiled": Compiled,
    "int8": Int8,
    "others": Others,
}


def peak(reset: bool = False) -> int:
    """Highest memory use of this process, on Linux since it was reset."""
    if reset:
        with contextlib.suppress(OSError, AttributeError):
            # glibc keeps freed memory, in which a measurement could hide.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def first_run(run: Callable, device: str) -> tuple[float, int]:
    """Seconds of the first run, and its bytes beside those of the loaded model."""
    gc.collect()
    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else peak(reset=True)
    seconds = timed(run, device, 1)
    after = torch.cuda.max_memory_allocated() if on_gpu else peak()
    return seconds, after - before


def timed(run: Callable, device: str, calls: int) -> float:
    """Seconds of a call."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    wait()
    return (time.perf_counter() - start) / calls


def main(name: str, task: dict[str, Any], folder: Path) -> None:
    """Answers with its first run, then with the seconds of each that is asked for."""
    # Libraries print; their words must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        run, result = getattr(SIDES[name](task, folder), task["kind"])()
        seconds, memory = first_run(run, task["device"])
        tensors = {key: value.detach().cpu() for key, value in result().items()}
        torch.save(tensors, folder / f"{name}.pt")
        print(json.dumps({"first": seconds, "bytes": memory}), file=answers)
        for line in sys.stdin:
            seconds = timed(run, task["device"], int(line))
            print(json.dumps({"seconds": seconds}), file=answers)
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        print(json.dumps({"fails": reason}), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]))
