"""Small text models of our own: a SentencePiece tokenizer and a RoBERTa config.

What is made is a folder of the transformers library, as a download would be.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast, RobertaConfig

from muq_plugins.errors import UserError
from muq_plugins.files import atomic_folder

# In the order of their ids, which are those of RoBERTa.
SPECIAL = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
_IDS = {name: number for number, name in enumerate(SPECIAL)}
_LINE = 4192  # bytes of a text that SentencePiece reads unless told otherwise
_SPACE = "\u2581"  # what SentencePiece writes for a space


def make_text_model(
    folder: str | Path,
    texts: Sequence[str],
    vocab_size: int,
    width: int,
    num_layers: int,
    num_heads: int,
    ffn_width: int,
    dropout: float = 0.1,
    max_tokens: int = 128,
) -> Path:
    """Makes a RoBERTa text model without weights, with a tokenizer for some texts.

    The same texts give the same tokenizer. Characters that it has not seen are
    spelt in bytes, so that nothing is unknown to it.
    """
    pieces = train_pieces(texts, vocab_size)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(pieces),
        model_max_length=max_tokens,
        **{f"{name}_token": piece for name, piece in SPECIAL.items()},
    )
    config = RobertaConfig(
        vocab_size=len(pieces),
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=ffn_width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        # RoBERTa counts positions from the id of the padding on.
        max_position_embeddings=max_tokens + _IDS["pad"] + 1,
        type_vocab_size=1,
        **{f"{name}_token_id": _IDS[name] for name in ("bos", "pad", "eos")},
    )
    folder = Path(folder)
    with atomic_folder(folder) as unfinished:
        config.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return folder


def train_pieces(texts: Sequence[str], vocab_size: int) -> list[tuple[str, float]]:
    """Trains SentencePiece."""
    if not any(text.strip() for text in texts):
        raise UserError("There are no texts to train a tokenizer on.")
    longest = max(len(text.encode("utf-8")) for text in texts)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            byte_fallback=True,
            normalization_rule_name="nfkc",
            max_sentence_length=max(_LINE, longest),  # leaves out no text
            num_threads=1,  # the order of additions decides the last digits
            minloglevel=2,
            **{f"{name}_id": number for name, number in _IDS.items()},
            **{f"{name}_piece": piece for name, piece in SPECIAL.items()},
        )
    except RuntimeError as error:
        raise UserError(
            f"SentencePiece cannot make a tokenizer of at most {vocab_size} pieces "
            f"from {len(texts)} texts: {error}. Change vocab_size; it includes 260 "
            "pieces for bytes and special tokens."
        ) from error
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    numbers = range(len(trained))
    return [(trained.id_to_piece(i), trained.get_score(i)) for i in numbers]


def build_tokenizer(pieces: list[tuple[str, float]]) -> Tokenizer:
    """Makes a fast tokenizer that cuts texts as SentencePiece does."""
    tokenizer = Tokenizer(
        models.Unigram(pieces, unk_id=_IDS["unk"], byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, "always", split=True)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL['bos']} $A {SPECIAL['eos']}",
        special_tokens=[(SPECIAL[name], _IDS[name]) for name in ("bos", "eos")],
    )
    return tokenizer
