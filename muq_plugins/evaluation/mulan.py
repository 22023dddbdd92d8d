"""How well a model of audio and text knows clips that it was not trained on.

Retrieval with the full captions of the clips, both ways, and zero-shot tagging with
the names of instruments and families: counted as `zero_shot` counts them, so that both
evaluations of a model give the same numbers.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import json
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
from muq_plugins.data.jsonio import write_json
from muq_plugins.evaluation.zero_shot.clips import LabelledClips
from muq_plugins.evaluation.zero_shot.latents import (
    AudioModel,
    TextModel,
    audio_latents,
    text_latents,
)
from muq_plugins.evaluation.zero_shot.scores import (
    caption_scores,
    distinct_captions,
    tag_scores,
)

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

    Arguments
    ---------
    model : MusicTextModel
        In evaluation mode.
    entries : dict
        Clip id to entry, see `muq_plugins.data.captions.CaptionWriter`.
    latents_folder : str or Path
        Where latents of audio are kept: an interrupted evaluation goes on from them.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict
        ``clips`` and ``pieces``: how many; ``retrieval``: by language and direction,
        as `RetrievalScores.to_dict` has it; ``tagging``: by kind of tag and language,
        as `TaggingScores.to_dict` has it, without kinds that are not labelled.

    Raises
    ------
    DatasetError
        If a recording is missing, or its latent is not finite.
    AudioError
        If a recording cannot be read.

    Example
    -------
    >>> import torch
    >>> class Names:  # embeds a file and its caption alike
    ...     fingerprint = "names"
    ...     def embed_file(self, path):
    ...         return torch.eye(2)[int(Path(path).name)]
    ...     def embed_text(self, texts):
    ...         return torch.eye(2)[[int(text) for text in texts]]
    >>> folder = getfixture("tmp_path")
    >>> entries = {x: {"wav": str(folder / x), "caption": x} for x in "01"}
    >>> _ = [(folder / x).write_bytes(b"") for x in "01"]
    >>> scores = evaluate_mulan(Names(), entries, folder / "latents")
    >>> scores["retrieval"]["own"]["text to music"]["recall_at_1"]["value"]
    1.0
    """
    clips = LabelledClips(
        name="",
        files=[entry["wav"] for entry in entries.values()],
        tags=[],
        truth=np.zeros((len(entries), 0), dtype=bool),
        captions=[],
        groups=[entry.get("piece", clip_id) for clip_id, entry in entries.items()],
    )
    audio = audio_latents(model, clips.files, latents_folder, progress)
    languages = caption_languages(entries)
    retrieval = {}
    for language in languages:
        captions = [full_caption(entry, language) for entry in entries.values()]
        captioned = replace(clips, captions=captions)
        texts = distinct_captions(captioned)
        found = caption_scores(captioned, audio, texts, text_latents(model, texts))
        retrieval[language] = {name: one.to_dict() for name, one in found.items()}
    tagging = {}
    for kind in TAGGED:
        tags, truth = tag_table(entries, kind)
        if not (truth.any(axis=0) & ~truth.all(axis=0)).any():
            continue  # nothing to tell apart
        tagged = replace(clips, tags=tags, truth=truth)
        tagging[kind] = {}
        for language in languages:
            texts = text_latents(model, tag_texts(tags, kind, language))
            tagging[kind][language] = tag_scores(tagged, audio, texts).to_dict()
    return {
        "clips": len(entries),
        "pieces": len(set(clips.groups)),
        "retrieval": retrieval,
        "tagging": tagging,
    }


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
