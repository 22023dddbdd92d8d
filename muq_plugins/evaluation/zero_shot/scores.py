"""Latents of audio against those of texts: tags, classes, and retrieval both ways.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import numpy as np

from muq_plugins.data.datasets.files import DatasetError
from muq_plugins.evaluation.intervals import draws, interval
from muq_plugins.evaluation.retrieval import RetrievalScores, retrieval_scores
from muq_plugins.evaluation.tagging import TaggingScores, tagging_scores
from muq_plugins.evaluation.zero_shot.clips import LabelledClips

TO_MUSIC, TO_TEXT = "text to music", "music to text"


def tag_scores(
    clips: LabelledClips, audio: np.ndarray, texts: np.ndarray
) -> TaggingScores:
    """How well similarities to the texts of tags tell which clip has which tag.

    Arguments
    ---------
    clips : LabelledClips
        Clips with tags.
    audio : numpy.ndarray
        Latents of the clips (clips, latent_width).
    texts : numpy.ndarray
        Latents of the tags (tags, latent_width).

    Returns
    -------
    TaggingScores
        ROC-AUC and average precision, with intervals over groups of clips.

    Example
    -------
    >>> clips = LabelledClips("two", ["a", "b"], ["calm"], np.array([[1], [0]]), [],
    ...                       ["a", "b"])
    >>> tag_scores(clips, np.eye(2), np.eye(2)[:1]).roc_auc.value
    1.0
    """
    return tagging_scores(audio @ texts.T, clips.truth, clips.tags, clips.groups)


def class_accuracy(
    clips: LabelledClips, audio: np.ndarray, texts: np.ndarray
) -> dict[str, float] | None:
    """Share of the clips whose only tag is the one with the most similar text.

    Arguments
    ---------
    clips, audio, texts
        See `tag_scores`.

    Returns
    -------
    dict or None
        "value", "low" and "high" (an interval over groups of clips) and "chance"; None
        unless every clip has exactly one tag. Tags that are the most similar together
        share a hit.

    Example
    -------
    >>> clips = LabelledClips("two", ["a", "b"], ["calm", "loud"], np.eye(2), [],
    ...                       ["a", "b"])
    >>> class_accuracy(clips, np.eye(2), np.eye(2))["value"]
    1.0
    """
    if not (clips.truth.sum(axis=1) == 1).all():
        return None
    near = audio @ texts.T
    best = near == near.max(axis=1, keepdims=True)
    hits = (best & clips.truth.astype(bool)).sum(axis=1) / best.sum(axis=1)
    weights = draws(clips.groups)
    found = interval(hits.mean(), weights @ hits / weights.sum(axis=1))
    return {**found._asdict(), "chance": 1 / len(clips.tags)}


def caption_scores(
    clips: LabelledClips, audio: np.ndarray, captions: list[str], texts: np.ndarray
) -> dict[str, RetrievalScores]:
    """Retrieval both ways. A caption that several clips share is one text of them all.

    Arguments
    ---------
    clips : LabelledClips
        Clips with captions.
    audio : numpy.ndarray
        Latents of the clips (clips, latent_width).
    captions : list of str
        All captions, each once, as `distinct_captions` gives them.
    texts : numpy.ndarray
        Their latents (captions, latent_width).

    Returns
    -------
    dict
        "text to music" and "music to text", each `RetrievalScores`.

    Raises
    ------
    DatasetError
        If a clip has a caption that is not listed.

    Example
    -------
    >>> clips = LabelledClips("two", ["a", "b"], [], np.zeros((2, 0)), ["x", "y"],
    ...                       ["a", "b"])
    >>> scores = caption_scores(clips, np.eye(2), ["x", "y"], np.eye(2))
    >>> scores["text to music"].recall[1].value
    1.0
    """
    # Numbers instead of texts: many clips make very many pairs to compare.
    _, number = np.unique([*captions, *clips.captions], return_inverse=True)
    own = number[: len(captions), None] == number[len(captions) :]
    if not own.any(axis=0).all():
        caption = clips.captions[int((~own.any(axis=0)).argmax())]
        raise DatasetError(f"The caption {caption!r} of a clip is not among the texts.")
    near = texts @ audio.T
    # A shared caption goes with the group of its first clip.
    groups = [clips.groups[int(row.argmax())] for row in own]
    return {
        TO_MUSIC: retrieval_scores(near, own, groups),
        TO_TEXT: retrieval_scores(near.T, own.T, clips.groups),
    }


def distinct_captions(clips: LabelledClips) -> list[str]:
    """The captions of clips, each once.

    Arguments
    ---------
    clips : LabelledClips
        Clips with captions.

    Returns
    -------
    list of str
        In the order of their first clips.

    Example
    -------
    >>> clips = LabelledClips("two", ["a", "b"], [], np.zeros((2, 0)), ["x", "x"], [])
    >>> distinct_captions(clips)
    ['x']
    """
    return list(dict.fromkeys(clips.captions))
