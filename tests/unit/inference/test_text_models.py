"""Text models of our own."""

import io

import pytest
import sentencepiece
import torch
from transformers import AutoConfig, AutoTokenizer

from muq_plugins.data.captions import CaptionWriter
from muq_plugins.inference.text_models import make_text_model, train_pieces
from muq_plugins.lobes import TextTower

SIZES = {"width": 32, "num_layers": 2, "num_heads": 4, "ffn_width": 64}


@pytest.fixture(scope="module")
def texts():
    instruments = ["flute", "viola", "oboe", "tuba", "cello", "church organ"]
    entries = {
        name: {"instruments": [name], "tempo_bpm": 60.0 + 20 * i, "key": "Eb minor"}
        for i, name in enumerate(instruments)
    }
    return CaptionWriter(entries).captions(entries, per_clip=60)


@pytest.fixture(scope="module")
def folder(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "text_model"
    return make_text_model(path, texts, vocab_size=500, max_tokens=24, **SIZES)


def test_the_text_tower_reads_it(folder):
    tower = TextTower.from_folder(folder, pretrained=False, latent_width=16).eval()
    assert tower.model.config.hidden_size == 32
    assert tower.max_tokens == 24
    latents = tower(["slow flute", "缓慢的长笛", "🎻"])
    assert latents.shape == (3, 16) and torch.isfinite(latents).all()


def test_ids_are_those_of_roberta(folder):
    config, tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoConfig, AutoTokenizer)
    )
    assert config.model_type == "roberta" and config.vocab_size == len(tokenizer)
    for name, number in {"bos": 0, "pad": 1, "eos": 2}.items():
        assert getattr(config, f"{name}_token_id") == number
        assert getattr(tokenizer, f"{name}_token_id") == number
    ids = tokenizer("flute").input_ids
    assert ids[0] == 0 and ids[-1] == 2


def test_it_cuts_texts_as_sentencepiece_does(folder, texts):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="unigram",
        vocab_size=500,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="nfkc",
        num_threads=1,
        minloglevel=2,
        unk_id=3,
        bos_id=0,
        pad_id=1,
        eos_id=2,
    )
    original = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    odd = ["  two   spaces ", "ＦＵＬＬ　width，、", "emoji 🎻🥁 here", "новое слово"]
    for text in [*texts[:100], *odd]:
        assert tokenizer(text).input_ids[1:-1] == original.encode(text), text


def test_nothing_is_unknown(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "🎻 ελληνικά 音乐 é"
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_same_texts_give_the_same_files(folder, texts, tmp_path):
    again = make_text_model(tmp_path / "x", texts, 500, max_tokens=24, **SIZES)
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_an_older_model_is_replaced(texts, tmp_path):
    for vocab_size in (400, 420):
        make_text_model(tmp_path / "x", texts, vocab_size, **SIZES)
    assert AutoConfig.from_pretrained(tmp_path / "x").vocab_size == 420
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_few_texts_have_fewer_pieces():
    assert len(train_pieces(["slow flute"] * 5, vocab_size=5000)) < 300


def test_long_texts_are_learned_from():
    long = "slow flute " * 500  # SentencePiece leaves out such a one unless told
    pieces = dict(train_pieces([long], vocab_size=300))
    assert {"s", "f", "▁"} <= {letter for piece in pieces for letter in piece}


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [
        ([], 400, "no texts to train a tokenizer on"),
        (["", "  "], 400, "no texts to train a tokenizer on"),
        (["slow flute"], 100, "at most 100 pieces from 1 texts"),
    ],
)
def test_what_cannot_be_learned_is_an_error(texts, vocab_size, message):
    with pytest.raises(ValueError, match=message):
        train_pieces(texts, vocab_size)
