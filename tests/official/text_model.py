"""A small text model in the files of ``xlm-roberta-base``, which are written here as
its authors have written them, not as the transformers library would today.
"""

import base64
import io
import json
import struct
from pathlib import Path

import sentencepiece

from tests.official.seeded import TEXTS

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
# What the small tokenizer normalises, by code points: full-width letters and a dash.
RULES = {"Ａ": "A", "Ｂ": "B", "Ｃ": "C", "—": "-"}


def make_xlm_roberta(folder: Path) -> Path:
    """Writes config.json, tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True)
    pieces, charsmap = _sentencepiece(folder / "rules.tsv")
    tokenizer = _tokenizer(pieces, charsmap)
    config = {
        "architectures": ["XLMRobertaForMaskedLM"],
        "model_type": "xlm-roberta",
        "vocab_size": len(tokenizer["model"]["vocab"]),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "hidden_act": "gelu",
        "max_position_embeddings": 130,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    for name, content in (
        ("config.json", config),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", {"model_max_length": 128}),
    ):
        text = json.dumps(content, ensure_ascii=False)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def _sentencepiece(rules: Path) -> tuple[list, str]:
    """Pieces with their scores, and the normalisation in SentencePiece's format."""
    lines = ("\t".join(f"{ord(c):X}" for c in pair) for pair in RULES.items())
    rules.write_text("\n".join(lines), encoding="utf-8")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:3] * 20),
        model_writer=model,
        model_type="unigram",
        vocab_size=80,
        hard_vocab_limit=False,
        normalization_rule_tsv=str(rules),
        num_threads=1,
        minloglevel=2,
    )
    rules.unlink()
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [
        [trained.id_to_piece(i), trained.get_score(i)]
        for i in range(len(trained))
        if not trained.is_control(i) and not trained.is_unknown(i)
    ]
    return pieces, base64.b64encode(_charsmap(model.getvalue())).decode()


def _charsmap(model: bytes) -> bytes:
    """The compiled rules in a SentencePiece model, which is a protocol buffer."""
    normalizer = _field(model, 3)
    charsmap = _field(normalizer, 2)
    (size,) = struct.unpack("<I", charsmap[:4])
    assert 0 < size < len(charsmap)
    return charsmap


def _field(message: bytes, wanted: int) -> bytes:
    """The content of a field of bytes."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        if key & 7 == 2:
            size, place = _number(message, place)
            if key >> 3 == wanted:
                return message[place : place + size]
            place += size
        elif key & 7 == 5:
            place += 4
        elif key & 7 == 1:
            place += 8
        else:
            _, place = _number(message, place)
    raise ValueError(f"no field {wanted}")


def _number(message: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value, shift = 0, 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place


def _tokenizer(pieces: list, charsmap: str) -> dict:
    """tokenizer.json in the spelling of the published file."""
    vocab = [[token, 0.0] for token in SPECIAL] + pieces + [["<mask>", 0.0]]
    space = {
        "type": "Metaspace",
        "replacement": "▁",
        "str_rep": "▁",
        "add_prefix_space": True,
    }
    added = [
        {
            "id": number,
            "special": True,
            "content": content,
            "single_word": False,
            "lstrip": content == "<mask>",
            "rstrip": False,
            "normalized": False,
        }
        for number, (content, _) in enumerate(vocab)
        if content in (*SPECIAL, "<mask>")
    ]
    around = [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
    ]
    pair = [
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, space],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": around,
            "pair": [*around, *pair],
            "special_tokens": {
                token: {"id": token, "ids": [number], "tokens": [token]}
                for number, token in ((0, "<s>"), (2, "</s>"))
            },
        },
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab},
    }
