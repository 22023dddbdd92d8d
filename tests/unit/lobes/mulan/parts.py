"""Tiny towers, and what measures them."""

import weakref

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from muq_plugins.lobes import AudioTower, ContrastiveTraining, MuQEncoder, TextTower

#: Texts of different lengths, languages and alphabets.
TEXTS = [
    "calm solo cello",
    "欢快的钢琴曲 in D major, 120 bpm",
    "🎻🎹",
    "drums",
    "a slow waltz for piano four hands by an unknown composer",
    "calm solo cello",
]


def tiny_tokenizer():
    """Bytes between <s> and </s>, which knows every text without a vocabulary."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate(specials + letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(zip(("bos", "pad", "eos", "unk"), specials, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{k}_token": v for k, v in names.items()}
    )


def tiny_text_model(tokenizer=None, kind=RobertaModel, dropout=0.0, **changes):
    """A text model of two layers, 32 wide, that reads 96 tokens."""
    settings = {
        "vocab_size": 260,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 98,
        "type_vocab_size": 1,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "pad_token_id": 1,
    }
    return kind(kind.config_class(**settings | changes))


def tiny_text_tower(seed=0, dropout=0.0, **settings):
    """A text tower with the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = tiny_text_model(dropout=dropout)
        settings = {"latent_width": 16, "num_layers": 1, "num_heads": 2} | settings
        return TextTower(model, tiny_tokenizer(), head_width=8, **settings)


def tiny_audio_tower(seed=0, dropout=0.0, statistics=True, **settings):
    """An audio tower with the same weights, and running statistics, every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = MuQEncoder(32, 2, 4, 64, conv_channels=4, dropout=dropout)
        if statistics:  # that are not 0 and 1
            encoder.train()(torch.randn(4, 12000))
        return AudioTower(encoder, **{"latent_width": 16} | settings)


def tiny_stage(loss, chunk_size=None, dropout=0.0, **settings):
    """Both towers and a loss."""
    return ContrastiveTraining(
        tiny_audio_tower(dropout=dropout, **settings),
        tiny_text_tower(dropout=dropout),
        loss,
        chunk_size,
    )


def tiny_batch(pairs=6, samples=9600):
    """Clips, one of them padded, and their texts."""
    wavs = torch.randn(pairs, samples, generator=torch.Generator().manual_seed(1))
    wav_lens = torch.ones(pairs)
    wav_lens[-1] = 0.6
    return wavs, wav_lens, (TEXTS * pairs)[:pairs]


def learned(module):
    """Name to gradient of what learns."""
    return {
        name: parameter.grad
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that live at the same time."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.alive = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Runs an operation and notes what it makes."""
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _note(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.now += size
            self.alive[key] = weakref.ref(storage, lambda _: self._gone(key, size))

    def _gone(self, key, size):
        del self.alive[key]
        self.now -= size


__all__ = [
    "TEXTS",
    "PeakMemory",
    "RobertaConfig",
    "learned",
    "tiny_audio_tower",
    "tiny_batch",
    "tiny_stage",
    "tiny_text_model",
    "tiny_text_tower",
    "tiny_tokenizer",
]
