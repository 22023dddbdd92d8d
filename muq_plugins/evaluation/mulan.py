"""How well a model of audio and text knows clips that it was not trained on.

Retrieval with the full captions of the clips, both ways, and zero-shot tagging with
the names of instruments and families.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from muq_plugins.data.captions import (
    TAGGED,
    caption_languages,
    full_caption,
    tag_table,
    tag_texts,
)
from muq_plugins.data.jsonio import write_json
from muq_plugins.evaluation.retrieval import retrieval_scores
from muq_plugins.evaluation.tagging import tagging_scores

SCORES_FILE = "mulan.json"
DIRECTIONS = ("text to music", "music to text")
TEXTS_AT_ONCE = 64


class MusicTextModel(Protocol):
    """What is evaluated: anything that embeds files and texts in one space."""

    def embed_file(self, path: str) -> Tensor:
        """Embeds a recording.

        Arguments
        ---------
        path : str
            The file.

        Returns
        -------
        Tensor
            (latent_width,) or (1, latent_width).
        """
        ...

    def embed_text(self, texts: list[str]) -> Tensor:
        """Embeds texts.

        Arguments
        ---------
        texts : list of str
            The texts.

        Returns
        -------
        Tensor
            (texts, latent_width).
        """
        ...


def evaluate_mulan(
    model: MusicTextModel, entries: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Retrieves and tags the clips of a manifest.

    A text is taken to fit all clips that have the same full caption. Intervals are
    bootstrapped over pieces, or over clips where the manifest names no ``piece``.

    Arguments
    ---------
    model : MusicTextModel
        In evaluation mode.
    entries : dict
        Clip id to entry, see `muq_plugins.data.captions.CaptionWriter`.

    Returns
    -------
    dict
        ``clips`` and ``pieces``: how many; ``retrieval``: by language and direction,
        as `RetrievalScores.to_dict` has it; ``tagging``: by kind of tag and language,
        as `TaggingScores.to_dict` has it, without kinds that are not labelled.

    Example
    -------
    >>> class Names:  # embeds a file and its caption alike
    ...     def embed_file(self, path):
    ...         return torch.eye(2)[int(path)]
    ...     def embed_text(self, texts):
    ...         return torch.eye(2)[[int(text) for text in texts]]
    >>> entries = {name: {"wav": name, "caption": name} for name in "01"}
    >>> scores = evaluate_mulan(Names(), entries)
    >>> scores["retrieval"]["own"]["text to music"]["recall_at_1"]["value"]
    1.0
    """
    clips = list(entries.values())
    pieces = [entry.get("piece", clip_id) for clip_id, entry in entries.items()]
    audio = torch.stack(
        [model.embed_file(entry["wav"]).detach().cpu().flatten() for entry in clips]
    )
    scores: dict[str, Any] = {"clips": len(clips), "pieces": len(set(pieces))}
    scores["retrieval"] = {
        language: _retrieval(
            model, audio, [full_caption(entry, language) for entry in clips], pieces
        )
        for language in caption_languages(entries)
    }
    scores["tagging"] = {}
    for kind in TAGGED:
        tags, truth = tag_table(entries, kind)
        if not (truth.any(axis=0) & ~truth.all(axis=0)).any():
            continue  # nothing to tell apart
        scores["tagging"][kind] = {
            language: tagging_scores(
                _similarities(audio, _embed(model, tag_texts(tags, kind, language))),
                truth,
                tags,
                pieces,
            ).to_dict()
            for language in caption_languages(entries)
        }
    return scores


def save_scores(run_folder: str | Path, scores: dict[str, Any]) -> Path:
    """Saves scores where the report of the run looks for them.

    Arguments
    ---------
    run_folder : str or Path
        Folder of the run.
    scores : dict
        From `evaluate_mulan`.

    Returns
    -------
    Path
        The file.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = save_scores(folder, {"clips": 3})
    >>> load_scores(folder)
    {'clips': 3}
    """
    path = Path(run_folder) / SCORES_FILE
    write_json(path, scores)
    return path


def load_scores(run_folder: str | Path) -> dict[str, Any]:
    """Loads what `save_scores` has saved.

    Arguments
    ---------
    run_folder : str or Path
        Folder of the run.

    Returns
    -------
    dict
        The scores; empty if the run has saved none.

    Example
    -------
    >>> load_scores(getfixture("tmp_path"))
    {}
    """
    path = Path(run_folder) / SCORES_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _retrieval(
    model: MusicTextModel, audio: Tensor, texts: list[str], pieces: list[str]
) -> dict[str, Any]:
    """Both directions, in one language."""
    found = _similarities(audio, _embed(model, texts))
    same = np.array([[one == other for other in texts] for one in texts])
    tables = dict(zip(DIRECTIONS, (found.T, found), strict=True))
    return {
        direction: retrieval_scores(table, same, pieces).to_dict()
        for direction, table in tables.items()
    }


def _similarities(audio: Tensor, text: Tensor) -> np.ndarray:
    return (audio.double() @ text.double().T).numpy()


def _embed(model: MusicTextModel, texts: list[str]) -> Tensor:
    """Latents of any number of texts."""
    starts = range(0, len(texts), TEXTS_AT_ONCE)
    parts = [model.embed_text(texts[i : i + TEXTS_AT_ONCE]) for i in starts]
    return torch.cat(parts).detach().cpu()
