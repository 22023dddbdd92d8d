"""Tags without training: texts whose latents are compared with those of audio."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import torch
from torch import Tensor

from muq_plugins.errors import UserError, given_by_user
from muq_plugins.lobes.mulan import TextModel
from muq_plugins.lobes.mulan.text_models import check_length

# Stands for the tag in a line of a file of prompts.
PLACE = "{tag}"


def read_tags(path: str | Path) -> tuple[list[str], list[str]]:
    """Reads tags, one in each line, each once, and says which lines repeat one.

    Tags that differ in spaces, in capital letters, or in how Unicode writes the same
    letters are one tag, spelt as where it comes first.

    Example
    -------
    >>> path = getfixture("tmp_path") / "tags.txt"
    >>> _ = path.write_text("solo  cello\\n\\npiano\\nSolo cello\\n")
    >>> read_tags(path)[0]
    ['solo cello', 'piano']
    >>> print(read_tags(path)[1][0])
    line 4, "Solo cello", repeats line 1, "solo cello"
    """
    first: dict[str, tuple[int, str]] = {}
    repeated = []
    for number, tag in _lines(path):
        place, spelling = first.setdefault(tag.casefold(), (number, tag))
        if place != number:
            repeated.append(
                f'line {number}, "{tag}", repeats line {place}, "{spelling}"'
            )
    if not first:
        raise UserError(f"{path} holds no tags: write one in each line.")
    return [tag for _, tag in first.values()], repeated


def read_prompts(path: str | Path) -> list[str]:
    """Reads prompts: sentences with ``{tag}`` where the tag goes, one in each line."""
    prompts = []
    for number, prompt in _lines(path):
        if PLACE not in prompt:
            raise UserError(
                f'{path}, line {number}: "{prompt}" has no {PLACE}, which is where the '
                f"tag goes."
            )
        prompts.append(prompt)
    if not prompts:
        raise UserError(
            f"{path} holds no prompts: write one in each line, with {PLACE} where the "
            f"tag goes."
        )
    return prompts


def embed_tags(
    model: TextModel, tags: list[str], prompts: tuple[str, ...] | list[str] = (PLACE,)
) -> Tensor:
    """Unit vectors (tags, latent_width) of tags, float32, on the CPU.

    With several prompts, the mean direction of all of them.

    Example
    -------
    >>> class Letters:
    ...     def embed_text(self, texts):
    ...         return torch.tensor([[t.count("a"), t.count("b")] for t in texts])
    >>> embed_tags(Letters(), ["aab", "b"], ["{tag}", "a {tag}"])
    tensor([[0.9239, 0.3827],
            [0.3827, 0.9239]])
    """
    texts = [prompt.replace(PLACE, tag) for tag in tags for prompt in prompts]
    latents = model.embed_text(texts).detach().float().cpu()
    latents = torch.nn.functional.normalize(latents, dim=-1)
    means = latents.view(len(tags), len(prompts), -1).mean(dim=1)
    return torch.nn.functional.normalize(means, dim=-1)


def _lines(path: str | Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers from 1 on."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): give a text file in UTF-8 with one "
            f"entry in each line."
        ) from error
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        with given_by_user():
            check_length(line)
        # Tools write the same letters in different ways; a model would hear two words.
        if words := " ".join(unicodedata.normalize("NFC", line).split()):
            lines.append((number, words))
    return lines
