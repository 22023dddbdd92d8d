"""Text models of transformers: which fit, what of them learns, and their tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from muq_plugins.lobes.finite import check_weights
from muq_plugins.lobes.quantizers.base import private_randomness

logger = logging.getLogger(__name__)

# Models read some hundred tokens; what is longer than this is a mistake.
MOST_CHARACTERS = 100_000

# Kinds of models whose layers have the same names and whose positions begin after the
# number of the padding token.
KINDS = ("roberta", "xlm-roberta")


def load_text_model(
    source: str | Path,
    pretrained: bool = True,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
):
    """Loads a model and its tokenizer, and executes nothing that was downloaded."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    where = _where(revision, cache_dir)
    # What pools for other tasks has no place here: it would learn nothing.
    without_pooler = {"add_pooling_layer": False}
    with _found(source):
        config = AutoConfig.from_pretrained(str(source), **where)
        _check_kind(config, source)
        tokenizer = AutoTokenizer.from_pretrained(str(source), **where)
        if pretrained:
            # Building a model draws weights before they are replaced.
            with private_randomness():
                model = AutoModel.from_pretrained(
                    str(source), config=config, **without_pooler, **where
                )
        else:
            model = AutoModel.from_config(config, **without_pooler)
    check_weights(model.state_dict(), source)
    return model.float(), tokenizer


def check_text_model(source: str | Path) -> None:
    """Refuses what `load_text_model` would, as far as its config can tell."""
    from transformers import AutoConfig

    with _found(source):
        _check_kind(AutoConfig.from_pretrained(str(source), **_where()), source)


def _where(revision: str | None = None, cache_dir: str | Path | None = None) -> dict:
    """How something is loaded from the hub."""
    return {
        "revision": revision or "main",
        "cache_dir": None if cache_dir is None else str(cache_dir),
        "trust_remote_code": False,
    }


@contextmanager
def _found(source: str | Path) -> Iterator[None]:
    """Says what a text model is made of if there is none."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"No text model can be loaded from {source}: {error}\nGive a model id "
            f"of the Hugging Face hub, or a folder with config.json, the files of "
            f"the tokenizer and, unless pretrained is False, weights."
        ) from error


def readable_tokens(model: nn.Module, tokenizer, max_tokens: int | None = None) -> int:
    """How many tokens of a text a model reads."""
    config = model.config
    _check_kind(config, type(model).__name__)
    if tokenizer.pad_token_id != config.pad_token_id:
        raise ValueError(
            f"The padding token is {tokenizer.pad_token_id} for the tokenizer and "
            f"{config.pad_token_id} for the model, which counts positions from it: "
            f"take both from the same folder."
        )
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, the model only "
            f"{config.vocab_size}: take both from the same folder."
        )
    limit = config.max_position_embeddings - config.pad_token_id - 1
    least = tokenizer.num_special_tokens_to_add() + 1
    if max_tokens is not None and not least <= max_tokens <= limit:
        raise ValueError(
            f"max_tokens is {max_tokens}: this model reads {least} to {limit} tokens."
        )
    return limit if max_tokens is None else max_tokens


def frozen_parts(model: nn.Module, trainable: str | int) -> list[nn.Module]:
    """The parts of a model that do not learn."""
    layers = list(model.encoder.layer)
    # What pools for other tasks is not used.
    unused = [] if getattr(model, "pooler", None) is None else [model.pooler]
    if trainable == "all":
        return unused
    if trainable == "none":
        return [model]
    if isinstance(trainable, bool) or not isinstance(trainable, int):
        raise ValueError(
            f"trainable is {trainable!r}: give all, none, or the number of upper "
            f"layers that are trained."
        )
    if not 0 <= trainable <= len(layers):
        raise ValueError(
            f"trainable is {trainable}, but the model has {len(layers)} layers."
        )
    if trainable == 0:
        return [model]
    return [model.embeddings, *layers[: len(layers) - trainable], *unused]


def _check_kind(config, source: str | Path | type) -> None:
    """Refuses models that are built in another way."""
    if config.model_type not in KINDS:
        raise ValueError(
            f"{source} is a {config.model_type} model: the text tower takes "
            f"{' or '.join(KINDS)}."
        )


def tokenize(tokenizer, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Turns texts into tokens; too long ones are cut, with one warning for all."""
    _check_texts(texts)
    # Whole, to know how much is cut; and without padding, which tokenizers put on
    # either side.
    encoded = tokenizer(
        list(texts),
        truncation=False,
        padding=False,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        verbose=False,
    )
    rows, cut = [], {}
    both = (encoded["input_ids"], encoded["special_tokens_mask"])
    for text, whole, special in zip(texts, *both, strict=True):
        row = _cut(whole, special, max_tokens)
        rows.append(torch.tensor(row))
        if len(row) < len(whole):
            cut.setdefault(text, []).append(len(whole) - len(row))
    if cut:
        counts = [count for counts in cut.values() for count in counts]
        logger.warning(
            f"{len(counts)} of {len(rows)} texts are longer than {max_tokens} tokens: "
            f"{sum(counts)} tokens at their ends are left out. The first of these "
            f"texts begins with {next(iter(cut))[:40]!r}."
        )
    tokens = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    return tokens, torch.tensor([len(row) for row in rows])


def check_length(text: str) -> None:
    """Refuses what is no description: tokenizers take minutes for megabytes."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(
            f"A text of {len(text):,} characters is no description of music: it may "
            f"have {MOST_CHARACTERS:,}. It begins with {text[:40]!r}."
        )


def _check_texts(texts: Sequence[str]) -> None:
    """Refuses what has no latent."""
    if isinstance(texts, str):
        raise ValueError(f"Texts must be a list, got the single text {texts[:40]!r}.")
    if not texts:
        raise ValueError("There is no text: give at least one.")
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"Text {index} of {len(texts)} is {text!r}: every text must say "
                f"something."
            )
        check_length(text)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Text {index} of {len(texts)} is {text[:40]!r}: its character "
                f"{error.start} is half of one (a lone surrogate), which no tokenizer "
                f"reads; decode its source as UTF-8."
            ) from None


def _cut(ids: list[int], special: list[int], limit: int) -> list[int]:
    """Leaves out the last ordinary tokens of a text that is too long."""
    excess = len(ids) - limit
    if excess <= 0:
        return ids
    ordinary = [place for place, flag in enumerate(special) if not flag]
    dropped = set(ordinary[len(ordinary) - excess :])
    return [token for place, token in enumerate(ids) if place not in dropped]
