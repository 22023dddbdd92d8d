"""The tasks of MARBLE by name; those with one label a recording are listed here."""

from __future__ import annotations

from functools import partial

from muq_plugins.data.datasets import (
    emomusic,
    giantsteps,
    gtzan,
    magnatagatune,
    mtg_jamendo,
    nsynth,
    vocalset,
)
from muq_plugins.errors import UserError, nearest
from muq_plugins.evaluation.marble.frame_tasks import FRAME_TASKS
from muq_plugins.evaluation.marble.similarity import SIMILARITY_TASKS, SimilarityTask
from muq_plugins.evaluation.marble.task import (
    MUQ,
    PAPER,
    MarbleTask,
    Recipe,
    percents,
)

TAGGING = "roc_auc/average_precision"
# One clip a recording, however long it is.
WHOLE = 600.0
# Of its last clip, v2 hears what is at least so full.
V2_LEAST = 0.8
BY_CLIPS = "v1 updates by all clips of 64 recordings, ours by 64 clips"


def _mtg(name: str, title: str, tag_set: str, paper: dict) -> MarbleTask:
    common = {"patience": 10, "plateau": (0.5, 3), "chosen_by": "roc_auc"}
    return MarbleTask(
        name,
        f"MTG-Jamendo {title}",
        mtg_jamendo.SHEET,
        partial(mtg_jamendo.mtg_jamendo, tag_set=tag_set),
        "multi",
        "average_precision",
        30.0,
        Recipe(30.0, max_epochs=100, **common),
        Recipe(30.0, batch_size=128, max_epochs=20, least=V2_LEAST, **common),
        {PAPER: paper},
        "v1 fills the last window of a song with what came before it; ours is shorter. "
        f"And {BY_CLIPS}",
    )


def _mtt(name: str, split: str, published: dict) -> MarbleTask:
    common = {"patience": 10, "plateau": (0.5, 3), "chosen_by": "roc_auc"}
    return MarbleTask(
        name,
        f"MagnaTagATune, split {split}",
        magnatagatune.SHEET,
        partial(magnatagatune.magnatagatune, split=split),
        "multi",
        "average_precision",
        30.0,
        Recipe(WHOLE, max_epochs=100, **common),
        Recipe(30.0, batch_size=128, least=V2_LEAST, **common)
        if split == "folders"
        else None,
        published,
    )


def _vocalset(label: str, patience: int, paper: dict, muq: dict) -> MarbleTask:
    return MarbleTask(
        f"vocalset_{label}",
        f"VocalSet {label}",
        vocalset.SHEET,
        partial(vocalset.vocalset, label=label),
        "single",
        "accuracy",
        3.0,
        # 44100 // 1000 * 3000 samples; no vote over the chunks of a file
        Recipe(132_000 / 44_100, max_epochs=100, patience=patience, aggregate=None),
        None,
        {PAPER: paper, MUQ: muq},
        "v1 removes silence by a voice detector, standardises the samples of a chunk "
        "and drops what is left at the end of a file; ours hears files as they are",
    )


def _nsynth(label: str, paper: dict, muq: dict) -> MarbleTask:
    return MarbleTask(
        f"nsynth_{label}",
        f"NSynth {label}",
        nsynth.SHEET,
        partial(nsynth.nsynth, label=label),
        "single",
        "accuracy",
        4.0,
        Recipe(WHOLE, patience=10, plateau=(0.5, 3)),
        None,
        {PAPER: paper, MUQ: muq},
    )


_TASKS = (
    MarbleTask(
        "gtzan_genre",
        "GTZAN genre",
        gtzan.SHEET,
        gtzan.gtzan_genre,
        "single",
        "accuracy",
        30.0,
        Recipe(WHOLE, max_epochs=100, plateau=(0.5, 6), aggregate="probabilities"),
        Recipe(
            *(30.2, 1, 6, 5e-3, 64, 50, 20, (0.5, 6), "probabilities"), least=V2_LEAST
        ),
        {
            PAPER: percents(
                "accuracy",
                MusiCNN="73.5",
                MULE="75.5",
                Music2Vec="74.1",
                MERT_v1_95M="74.8",
                MERT_v1_330M="77.6",
                Jukebox_5B="77.9",
            ),
            MUQ: percents("accuracy", MusicFM="83.8", MuQ="85.5", MuQ_iter="85.6"),
        },
    ),
    MarbleTask(
        "gtzan_key",
        "GTZAN key",
        gtzan.KEY_SHEET,
        gtzan.gtzan_key,
        "single",
        "mirex2005",
        30.0,
        Recipe(WHOLE, max_epochs=100),
        None,
    ),
    MarbleTask(
        "giantsteps_key",
        "GiantSteps key",
        giantsteps.SHEET,
        giantsteps.giantsteps_key,
        "single",
        "mirex2005",
        30.0,
        Recipe(30.0, max_epochs=100),
        Recipe(30.0, plateau=(0.1, 5), least=V2_LEAST),
        {
            PAPER: percents(
                "mirex2005",
                MusiCNN="14.4",
                MULE="64.9",
                Music2Vec="50.6",
                MERT_v1_95M="63.5",
                MERT_v1_330M="61.7",
                Jukebox_5B="63.8",
            ),
            MUQ: percents("mirex2005", MusicFM="63.9", MuQ="63.5", MuQ_iter="65.0"),
        },
        "v1 combines the clips of a song in four ways and reports the one that is best "
        f"in validation; ours takes the mean of outputs. And {BY_CLIPS}",
    ),
    MarbleTask(
        "emo",
        "EMO",
        emomusic.SHEET,
        emomusic.emomusic,
        "numbers",
        "r2",
        15.0,
        Recipe(5.0, 6, max_epochs=100),
        Recipe(15.0, layers=6, least=V2_LEAST),
        {
            PAPER: percents(
                "r2_valence/r2_arousal",
                MusiCNN="44.4/68.8",
                MULE="60.7/73.1",
                Music2Vec="52.1/71.0",
                MERT_v1_95M="55.5/76.3",
                MERT_v1_330M="59.0/75.8",
                Jukebox_5B="57.0/73.0",
            ),
            MUQ: percents(
                "r2_valence/r2_arousal",
                MusicFM="60.3/76.3",
                MuQ="60.9/75.4",
                MuQ_iter="62.8/76.1",
            ),
        },
        BY_CLIPS,
    ),
    _mtt(
        "magnatagatune",
        "folders",
        {
            PAPER: percents(
                TAGGING,
                MusiCNN="90.3/37.8",
                MULE="91.2/40.1",
                Music2Vec="90.0/36.2",
                MERT_v1_95M="91.0/39.3",
                MERT_v1_330M="91.1/39.5",
                Jukebox_5B="91.4/40.6",
            ),
            MUQ: percents(
                TAGGING, MusicFM="91.3/40.0", MuQ="91.4/40.3", MuQ_iter="91.4/40.1"
            ),
        },
    ),
    _mtt("magnatagatune_lee_won", "lee-won", {}),
    _mtg(
        "mtg_top50",
        "top 50",
        "top50",
        percents(TAGGING, MULE="83.7/30.6", MERT_v1_330M="83.4/29.9"),
    ),
    _mtg(
        "mtg_genre",
        "genre",
        "genre",
        percents(TAGGING, MULE="88.0/20.4", MERT_v1_330M="86.7/18.6"),
    ),
    _mtg(
        "mtg_instrument",
        "instrument",
        "instrument",
        percents(TAGGING, MULE="76.6/19.2", MERT_v1_330M="78.1/19.8"),
    ),
    _mtg(
        "mtg_mood",
        "mood and theme",
        "moodtheme",
        percents(TAGGING, MULE="78.0/15.4", MERT_v1_330M="76.5/14.0"),
    ),
    _nsynth(
        "instrument",
        percents("accuracy", MULE="74.6", MERT_v1_95M="70.7", MERT_v1_330M="72.6"),
        percents("accuracy", MusicFM="76.2", MuQ="79.2", MuQ_iter="79.7"),
    ),
    _nsynth(
        "pitch",
        percents("accuracy", MULE="88.5", MERT_v1_95M="92.6", MERT_v1_330M="94.4"),
        percents("accuracy", MusicFM="91.1", MuQ="92.3", MuQ_iter="91.3"),
    ),
    _vocalset(
        "singer",
        20,
        percents("accuracy", MULE="87.5", MERT_v1_95M="83.7", MERT_v1_330M="87.1"),
        percents("accuracy", MusicFM="92.0", MuQ="95.8", MuQ_iter="96.2"),
    ),
    _vocalset(
        "technique",
        10,
        percents("accuracy", MULE="75.5", MERT_v1_95M="74.2", MERT_v1_330M="76.9"),
        percents("accuracy", MusicFM="78.4", MuQ="82.4", MuQ_iter="81.6"),
    ),
)

#: Every task by its name.
TASKS = {task.name: task for task in (*_TASKS, *FRAME_TASKS)}


def find_task(name: str) -> MarbleTask | SimilarityTask:
    """A task by its name, whether a probe is trained for it or not."""
    known = {**TASKS, **SIMILARITY_TASKS}
    if name not in known:
        raise UserError(
            f"There is no task {name!r}; the nearest is {nearest(name, known)!r}. "
            f"There are: {', '.join(known)}."
        )
    return known[name]
