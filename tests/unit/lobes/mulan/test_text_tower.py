"""The text tower: latents of texts alone, any text, and what learns."""

import logging

import pytest
import torch
from transformers import BertConfig, BertModel, ByT5Tokenizer, XLMRobertaModel

from muq_plugins.lobes import TextTower
from tests.unit.lobes.mulan.parts import (
    TEXTS,
    learned,
    tiny_text_model,
    tiny_text_tower,
    tiny_tokenizer,
)


@pytest.mark.parametrize("layers", [0, 2])
def test_a_latent_does_not_depend_on_other_texts(layers):
    tower = tiny_text_tower(num_layers=layers).eval()
    together = tower(TEXTS)
    assert together.shape == (6, 16) and together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(6))
    for index, text in enumerate(TEXTS):
        torch.testing.assert_close(tower([text])[0], together[index], rtol=0, atol=1e-6)
    torch.testing.assert_close(together[0], together[5], rtol=0, atol=1e-6)
    # Mixed languages and emoji are texts of their own.
    distances = torch.cdist(together[:5], together[:5]) + torch.eye(5)
    assert distances.min() > 1e-3


def test_averaging_padding_is_what_the_official_code_does():
    tower = tiny_text_tower(average_padding=True).eval()
    tokens, lengths = tower.tokenize(TEXTS)
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    hidden = tower.model(tokens, mask.long()).last_hidden_state
    mean = tower.transformer(hidden).mean(1)  # no mask, over everything
    expected = torch.nn.functional.normalize(tower.to_latents.linear(mean), dim=-1)
    found = tower(TEXTS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    alone = tower(TEXTS[3:4])[0]
    assert (found[3] - alone).abs().max() > 1e-3
    own = tiny_text_tower().eval()  # the same weights
    torch.testing.assert_close(own(TEXTS)[3], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["fast", "slow"])
def test_long_texts_are_cut_with_a_warning(caplog, kind):
    if kind == "fast":
        tower = tiny_text_tower().eval()
        assert tower.max_tokens == 96
        begin, end = [0], [2]
    else:
        tokenizer = ByT5Tokenizer(extra_ids=0)
        model = tiny_text_model(pad_token_id=0, max_position_embeddings=97)
        tower = TextTower(model, tokenizer, 16).eval()
        begin, end = [], [1]
    long = "slow piano " * 1000
    with caplog.at_level(logging.WARNING):
        latents = tower(["drums", long[:10_000], long[:200]])
    (record,) = caplog.records
    specials = len(begin + end)
    cut = 10_000 + 200 + 2 * specials - 2 * 96
    assert f"2 of 3 texts are longer than 96 tokens: {cut} tokens" in record.message
    assert "'slow piano slow" in record.message
    # The beginning is what is read, and the text still ends as texts do.
    tokens, lengths = tower.tokenize([long])
    row = tokens[0].tolist()
    assert lengths.tolist() == [96]
    assert row[: len(begin)] == begin and row[-1:] == end
    short = tower([long[: 96 - specials]])[0]
    torch.testing.assert_close(latents[1], short, rtol=0, atol=1e-6)
    torch.testing.assert_close(latents[2], short, rtol=0, atol=1e-6)


def test_max_tokens_limits_texts_further(caplog):
    tower = tiny_text_tower(max_tokens=7)
    assert tower.tokenize(["calm solo cello"])[0].shape == (1, 7)
    assert "longer than 7 tokens: 10 tokens" in caplog.text
    caplog.clear()
    tower(["drums"])
    assert not caplog.records
    with pytest.raises(ValueError, match="max_tokens is 97: this model reads 3 to 96"):
        tiny_text_tower(max_tokens=97)
    with pytest.raises(ValueError, match="max_tokens is 2"):
        tiny_text_tower(max_tokens=2)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["drums", ""], "Text 1 of 2 is ''"),
        (["  \n"], "Text 0 of 1"),
        (["drums", "\udcff"], r"Text 1 of 2 is '\\udcff'"),
        ([None], "Text 0 of 1 is None"),
        ([], "no text"),
        ("drums", "must be a list, got the single text 'drums'"),
    ],
)
def test_what_has_no_latent_is_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        tiny_text_tower()(texts)


def test_frozen_means_frozen():
    tower = tiny_text_tower(dropout=0.5, trainable="none")
    torch.nn.ModuleDict({"tower": tower}).train()
    assert tower.training and not any(p.training for p in tower.model.modules())
    assert torch.equal(tower(TEXTS), tower(TEXTS))
    tower(TEXTS)[:, 0].sum().backward()
    assert all(p.grad is None for p in tower.model.parameters())
    gradients = learned(tower)
    assert not any(name.startswith("model.") for name in gradients)
    assert all(grad is not None for grad in gradients.values()) and gradients


def test_upper_layers_alone_can_be_trained():
    tower = tiny_text_tower(dropout=0.5, trainable=1).train()
    lower, upper = tower.model.encoder.layer
    assert upper.training and not lower.training and not tower.model.embeddings.training
    tower(TEXTS)[:, 0].sum().backward()
    names = {n.split("model.")[1] for n in learned(tower) if n.startswith("model.")}
    assert names and all(name.startswith("encoder.layer.1.") for name in names)
    assert all(grad is not None for grad in learned(tower).values())
    assert all(p.grad is None for p in lower.parameters())
    with pytest.raises(ValueError, match="trainable is 3, but the model has 2 layers"):
        tiny_text_tower(trainable=3)
    with pytest.raises(ValueError, match="trainable is 'some'.*all, none, or"):
        tiny_text_tower(trainable="some")
    none = tiny_text_tower(trainable=0)
    assert not any(p.requires_grad for p in none.model.parameters())


def test_everything_that_is_used_learns_by_default():
    tower = tiny_text_tower(dropout=0.5).train()
    assert not torch.equal(tower(TEXTS), tower(TEXTS))  # dropout is on
    tower(TEXTS)[:, 0].sum().backward()
    gradients = learned(tower)
    assert all(grad is not None for grad in gradients.values())
    assert "model.embeddings.word_embeddings.weight" in gradients
    # DDP would wait for ever for what pools for other tasks.
    assert not any("pooler" in name for name in gradients)
    assert tower.model.pooler is not None


def test_the_tower_says_what_it_is():
    tower = tiny_text_tower(trainable=1, average_padding=True)
    again = TextTower(tower.model, tower.tokenizer, **tower.config)
    again.load_state_dict(tower.state_dict())
    assert torch.equal(again.eval()(TEXTS), tower.eval()(TEXTS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with its tokenizer, as transformers writes them."""
    folder = tmp_path_factory.mktemp("text_model")
    torch.manual_seed(3)
    tiny_text_model(kind=XLMRobertaModel, dropout=0.1).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_tower_is_built_from_a_folder(folder):
    state = torch.get_rng_state()
    settings = {"latent_width": 8, "num_layers": 1, "num_heads": 2, "head_width": 8}
    tower = TextTower.from_folder(folder, **settings)
    model = XLMRobertaModel.from_pretrained(folder)
    assert tower.training and isinstance(tower.model, XLMRobertaModel)
    weights = tower.model.state_dict()
    assert weights and not any("pooler" in name for name in weights)
    saved = model.state_dict()
    assert all(torch.equal(saved[name], weights[name]) for name in weights)
    assert tower(TEXTS).shape == (6, 8)
    torch.set_rng_state(state)
    fresh = torch.nn.Linear(32, 8)
    torch.set_rng_state(state)
    plain = TextTower.from_folder(folder, latent_width=8)
    # Loading weights draws no random numbers, so what comes after does not change.
    assert torch.equal(plain.to_latents.linear.weight, fresh.weight)


def test_a_config_alone_gives_random_weights(folder, tmp_path):
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    towers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        towers.append(TextTower.from_folder(tmp_path, pretrained=False, latent_width=8))
    weights = [tower.model.embeddings.word_embeddings.weight for tower in towers]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    with pytest.raises(OSError, match="(?s)No text model can be loaded.*weights"):
        TextTower.from_folder(tmp_path, latent_width=8)
    with pytest.raises(OSError, match="No text model can be loaded from"):
        TextTower.from_folder(tmp_path / "nowhere", latent_width=8)


def test_parts_that_do_not_fit_are_refused(folder):
    tokenizer = tiny_tokenizer()
    with pytest.raises(ValueError, match="padding token is 1 .* 0 for the model"):
        TextTower(tiny_text_model(pad_token_id=0), tokenizer)
    with pytest.raises(
        ValueError, match="tokenizer has 260 tokens, the model only 200"
    ):
        TextTower(tiny_text_model(vocab_size=200), tokenizer)
    bert = BertModel(BertConfig(vocab_size=260, hidden_size=32, num_attention_heads=4))
    with pytest.raises(ValueError, match="BertModel is a bert model.*xlm-roberta"):
        TextTower(bert, tokenizer)
