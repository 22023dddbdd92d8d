"""The tasks of MARBLE that are read off frames: beats, chords and sections."""

from __future__ import annotations

from muq_plugins.data.datasets import chords, gtzan, harmonix
from muq_plugins.evaluation.marble.beats import DecodedBeats, FirstBeats, PickedBeats
from muq_plugins.evaluation.marble.chords import Chords, ShippedChords
from muq_plugins.evaluation.marble.sections import Sections
from muq_plugins.evaluation.marble.task import (
    MUQ,
    PAPER,
    MarbleTask,
    Recipe,
    percents,
)

MUSICFM, OMAR = "MusicFM paper", "OMAR-RQ, its README"
SONGFORMER = "SongFormBench, its README"
# Frames in a second that tell sections apart.
SECTION_RATE = 5.0
# Seconds of one recording in an update of `corrected`.
CLIP = 10.0
V2_BEATS = Recipe(
    *(10.0, 10_000, "all", 1e-3, 64, 50, 10),
    aggregate=None,
    frames=DecodedBeats(),
    least=0.8,
)
V1_BEATS = Recipe(
    *(30.0, 10_000, "all", 1e-3, 64, 100, 20, (0.5, 6)),
    aggregate=None,
    frames=FirstBeats(),
    least=0.5,
)


def _beats(name: str, title: str, metric: str, published: dict, v1=None, v2=None):
    return MarbleTask(
        name,
        f"GTZAN {title}",
        gtzan.BEAT_SHEET,
        gtzan.gtzan_beats,
        "frames",
        metric,
        CLIP,
        v1,
        v2,
        published,
        "v1 reads the weighted sum of layers alone, trains on a random 10 s of each "
        "recording in each epoch, and tells frames with a beat and those beside them "
        "from all others by a cross-entropy; ours trains on all 30 s, by a curve that "
        "is half as high beside a beat, and learns downbeats with it",
        frames=PickedBeats(),
    )


def _chords(name: str, title: str, sheet, read, published=None, v2=None):
    return MarbleTask(
        name,
        title,
        sheet,
        read,
        "frames",
        "chord_majmin",
        CLIP,
        None,
        v2,
        published or {},
        frames=Chords(),
    )


FRAME_TASKS = (
    _beats(
        "gtzan_beat",
        "beats",
        "beat_f",
        {
            PAPER: percents(
                "beat_f",
                Music2Vec="68.2",
                MERT_v0_public="88.1",
                MERT_v1_95M="88.3",
                MERT_v1_330M="87.9",
            ),
            MUSICFM: percents("beat_f", MusicFM="86.8"),
            OMAR: percents("beat_f", OMAR_RQ="85.5"),
        },
        V1_BEATS,
        V2_BEATS,
    ),
    _beats(
        "gtzan_downbeat",
        "downbeats",
        "downbeat_f",
        {MUSICFM: percents("downbeat_f", MusicFM="80.4")},
        v2=V2_BEATS,
    ),
    _beats("gtzan_tempo", "tempo", "tempo_acc1", {}),
    _chords(
        "chords1217",
        "Chords, 1217 songs",
        chords.CHORDS1217_SHEET,
        chords.chords1217,
        {
            MUSICFM: percents("frame_accuracy", MusicFM="71.4"),
            OMAR: percents("frame_accuracy", OMAR_RQ="74.9"),
        },
        Recipe(
            *(15.0, 10_000, "all", 1e-3, 64, 50, 10),
            aggregate=None,
            metric="frame_accuracy",
            frames=ShippedChords(),
            least=0.1,
        ),
    ),
    _chords(
        "isophonics_chords",
        "Chords, Isophonics",
        chords.ISOPHONICS_SHEET,
        chords.isophonics,
    ),
    _chords(
        "billboard_chords",
        "Chords, Billboard",
        chords.BILLBOARD_SHEET,
        chords.billboard,
    ),
    _chords("harte_chords", "Chords, a folder", chords.HARTE_SHEET, chords.harte),
    MarbleTask(
        "harmonix_structure",
        "Harmonix sections",
        harmonix.SHEET,
        harmonix.harmonix,
        "frames",
        "section_accuracy",
        60.0,
        None,
        None,
        {
            MUQ: percents(
                "section_accuracy", MusicFM="76.5", MuQ="76.5", MuQ_iter="77.2"
            ),
            MUSICFM: percents("section_accuracy/hit_rate_05", MusicFM="72.6/69.9"),
            SONGFORMER: percents("section_accuracy", MuQ_iter="77.2"),
        },
        frames=Sections(),
        most_rate=SECTION_RATE,
    ),
)
