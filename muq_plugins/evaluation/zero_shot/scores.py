"""Latents of audio against those of texts: tags, classes, and retrieval both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from muq_plugins.data.captions import (
    TAGGED,
    caption_languages,
    full_caption,
    tag_table,
    tag_texts,
)
from muq_plugins.errors import UserError
from muq_plugins.evaluation.intervals import draws, interval, plain
from muq_plugins.evaluation.retrieval import (
    RetrievalScores,
    pooled,
    retrieval_scores,
)
from muq_plugins.evaluation.scores import TaggingScores, tagging_scores
from muq_plugins.evaluation.zero_shot.clips import (
    LabelledClips,
    audio_latents,
    text_latents,
)
from muq_plugins.files import read_json, write_json
from muq_plugins.lobes.mulan import AudioModel, TextModel

TO_MUSIC, TO_TEXT = "text to music", "music to text"


def tag_scores(
    clips: LabelledClips, audio: np.ndarray, texts: np.ndarray
) -> TaggingScores:
    """How well similarities to the texts of tags tell which clip has which tag."""
    return tagging_scores(audio @ texts.T, clips.truth, clips.tags, clips.groups)


def class_accuracy(
    clips: LabelledClips, audio: np.ndarray, texts: np.ndarray
) -> dict[str, float] | None:
    """Share of the clips whose only tag is the one with the most similar text."""
    if not (clips.truth.sum(axis=1) == 1).all():
        return None
    near = audio @ texts.T
    best = near == near.max(axis=1, keepdims=True)
    hits = (best & clips.truth.astype(bool)).sum(axis=1) / best.sum(axis=1)
    weights = draws(clips.groups)
    found = interval(hits.mean(), weights @ hits / weights.sum(axis=1))
    return {**found._asdict(), "chance": 1 / len(clips.tags)}


def least_similarity(texts: np.ndarray) -> float | None:
    """The smallest cosine of two of some latents; None if there are not two.

    Near 1 the texts are all the same to the model: published ones have had a projection
    of texts that says nothing.
    """
    if len(texts) < 2:
        return None
    norms = np.linalg.norm(texts, axis=1, keepdims=True)
    directions = texts / np.maximum(norms, 1e-12)
    return float((directions @ directions.T).min())


def caption_scores(
    clips: LabelledClips, audio: np.ndarray, captions: list[str], texts: np.ndarray
) -> dict[str, RetrievalScores]:
    """Retrieval both ways. A caption that several clips share is one text of
    them all.
    """
    # Numbers instead of texts: many clips make very many pairs to compare.
    _, number = np.unique([*captions, *clips.captions], return_inverse=True)
    own = number[: len(captions), None] == number[len(captions) :]
    if not own.any(axis=0).all():
        caption = clips.captions[int((~own.any(axis=0)).argmax())]
        raise UserError(f"The caption {caption!r} of a clip is not among the texts.")
    near = texts @ audio.T
    # A shared caption goes with the group of its first clip.
    groups = [clips.groups[int(row.argmax())] for row in own]
    return {
        TO_MUSIC: retrieval_scores(near, own, groups),
        TO_TEXT: retrieval_scores(near.T, own.T, clips.groups),
    }


def retrieval_of(
    by_kind: Mapping[str, Mapping[str, RetrievalScores]],
) -> dict[str, dict]:
    """What is kept of `caption_scores` of every kind of text, and of all together."""

    def kept(ways: Mapping[str, RetrievalScores]) -> dict[str, dict]:
        return {way: plain(one, "per_query") for way, one in ways.items()}

    every = list(by_kind.values())
    ways = {way: pooled([one[way] for one in every]) for way in every[0]}
    found = {"retrieval": kept(ways)}
    if len(every) > 1:
        found["retrieval_by_text"] = {kind: kept(one) for kind, one in by_kind.items()}
    return found


def distinct_captions(clips: LabelledClips) -> list[str]:
    """The captions of clips, each once."""
    return list(dict.fromkeys(clips.captions))


SCORES_FILE = "mulan.json"


class MusicTextModel(AudioModel, TextModel, Protocol):
    """What is evaluated: anything that embeds files and texts in one space."""


def evaluate_mulan(
    model: MusicTextModel,
    entries: dict[str, dict[str, Any]],
    latents_folder: str | Path,
    progress: bool = False,
) -> dict[str, Any]:
    """Retrieves and tags the clips of a manifest.

    A full caption that several clips share is one text that fits them all. Intervals
    are bootstrapped over pieces, or over clips where the manifest names no ``piece``.
    """
    files = [entry["wav"] for entry in entries.values()]
    groups = [entry.get("piece", clip_id) for clip_id, entry in entries.items()]
    clips = LabelledClips("", files, groups)
    audio = audio_latents(model, clips.files, latents_folder, progress)
    languages = caption_languages(entries)
    retrieval = {}
    for language in languages:
        captions = [full_caption(entry, language) for entry in entries.values()]
        captioned = replace(clips, captions=captions)
        texts = distinct_captions(captioned)
        found = caption_scores(captioned, audio, texts, text_latents(model, texts))
        # With what is found of each query and in each draw: studies pair models by it.
        retrieval[language] = {name: plain(one) for name, one in found.items()}
    tagging = {}
    for kind in TAGGED:
        tags, truth = tag_table(entries, kind)
        if not (truth.any(axis=0) & ~truth.all(axis=0)).any():
            continue  # nothing to tell apart
        tagged = replace(clips, tags=tags, truth=truth)
        tagging[kind] = {}
        for language in languages:
            texts = text_latents(model, tag_texts(tags, kind, language))
            tagging[kind][language] = plain(tag_scores(tagged, audio, texts))
    return {
        "clips": len(entries),
        "pieces": len(set(clips.groups)),
        "retrieval": retrieval,
        "tagging": tagging,
    }


def save_scores(run_folder: str | Path, scores: dict[str, Any]) -> None:
    """Saves scores where the report of the run looks for them."""
    write_json(Path(run_folder) / SCORES_FILE, scores)


def load_scores(run_folder: str | Path) -> dict[str, Any]:
    """Loads what `save_scores` has saved."""
    path = Path(run_folder) / SCORES_FILE
    return read_json(path, "evaluate the run again") if path.exists() else {}
