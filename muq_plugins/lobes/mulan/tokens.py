"""Texts as tokens.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

logger = logging.getLogger(__name__)


def tokenize(tokenizer, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Turns texts into tokens; too long ones are cut, with one warning for all.

    Arguments
    ---------
    tokenizer : PreTrainedTokenizerBase
        A tokenizer of the transformers library.
    texts : sequence of str
        Texts.
    max_tokens : int
        How many tokens of a text are kept, with those that begin and end it.

    Returns
    -------
    tokens : Tensor
        (texts, longest) int64, filled up with the padding token.
    lengths : Tensor
        Own tokens (texts,) int64.

    Raises
    ------
    ValueError
        If there is no text, or one is empty or has lone surrogates.

    Example
    -------
    >>> from transformers import ByT5Tokenizer
    >>> tokenize(ByT5Tokenizer(), ["ab", "a"], max_tokens=8)
    (tensor([[100, 101,   1],
            [100,   1,   0]]), tensor([3, 2]))
    """
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
