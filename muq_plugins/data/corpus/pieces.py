"""The compositions of the embedded corpus: which ones, whose, in which split.

All of them ship inside the ``music21`` package. A piece is in the list when its
composer died more than a century ago and its file claims no rights to the music
(no rights notice, or an explicit dedication to the public domain). That leaves out,
among others, the Essen folk songs (non-commercial licence), Palestrina (licensing
agreement), Monteverdi (a publisher's notice in some files), Josquin (GPL), the
Trecento (a copyright sign in some files) and every edition under a Creative Commons
licence that asks for attribution.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from muq_plugins.errors import UserError

SPLITS = ("train", "valid", "test")
# The group of each file: what shares a melody, in whatever key, or belongs to one work.
# `tests.goldens.melodies` makes it from the scores.
TABLE = Path(__file__).with_name("melodies.txt")

# What can be chosen from: a corpus is of all unless it is asked for some.
COLLECTIONS = ("chorales", "classical", "fiddle tunes")
# Up to where the groups of melodies are of each split, as shares. Half of the chorales
# hang together by hymns and cantatas and are trained on, so more of the rest is not.
_SPLIT_ENDS = {"train": 0.55, "valid": 0.7, "test": 1.0}

# There are more tunes than everything else, and they have one voice only.
_TURNS_OF_A_TUNE = 1 / 3

# The classical works: path in music21's corpus, composer, title, and how many
# takes are made of a file at a time. A long movement takes longer to parse and has
# more to excerpt.
_WORKS = (
    ("mozart/k80", "Wolfgang Amadeus Mozart", "String Quartet No. 1, K. 80", 4),
    ("mozart/k155", "Wolfgang Amadeus Mozart", "String Quartet No. 2, K. 155", 4),
    ("mozart/k156", "Wolfgang Amadeus Mozart", "String Quartet No. 3, K. 156", 4),
    ("mozart/k458", "Wolfgang Amadeus Mozart", "String Quartet No. 17, K. 458", 4),
    ("mozart/k545", "Wolfgang Amadeus Mozart", "Piano Sonata No. 16, K. 545", 1),
    ("haydn/opus1no1", "Joseph Haydn", "String Quartet, Op. 1 No. 1", 4),
    ("haydn/opus74no1", "Joseph Haydn", "String Quartet, Op. 74 No. 1", 4),
    ("beethoven/opus18no1", "Ludwig van Beethoven", "String Quartet, Op. 18 No. 1", 6),
    ("beethoven/opus59no2", "Ludwig van Beethoven", "String Quartet, Op. 59 No. 2", 6),
    ("beethoven/opus59no3", "Ludwig van Beethoven", "String Quartet, Op. 59 No. 3", 6),
    ("schumann_robert/opus41no1", "Robert Schumann", "String Quartet, Op. 41 No. 1", 4),
    (
        "schumann_robert/opus48no2.mxl",
        "Robert Schumann",
        "Aus meinen Tränen sprießen",
        1,
    ),
    ("cpebach/h186.mxl", "Carl Philipp Emanuel Bach", "Sonata in A major, H. 186", 2),
    ("handel/rinaldo", "George Frideric Handel", "Lascia ch'io pianga", 2),
    ("weber/concertino_clarinet.mxl", "Carl Maria von Weber", "Concertino, Op. 26", 6),
    ("verdi/laDonnaEMobile.mxl", "Giuseppe Verdi", "La donna è mobile", 1),
    ("lusitano/allor_che_ignuda.mxl", "Vicente Lusitano", "Allor che ignuda", 2),
    ("liliuokalani/aloha_oe.mxl", "Queen Liliʻuokalani", "Aloha ʻOe", 1),
    ("joplin/maple_leaf_rag.mxl", "Scott Joplin", "Maple Leaf Rag", 2),
    ("leadSheet/fosterBrownHair.mxl", "Stephen Foster", "Jeanie", 1),
)

_LEFT_OUT = {
    # A prelude and fugue from a score-sharing site, not a chorale.
    "bach/bwv846.mxl",
    # Slow to parse; as are the Beethoven quartets that the list above lacks.
    "schumann_robert/opus41no1/movement1.mxl",
}


@dataclass(frozen=True)
class Piece:
    """One file of music21's corpus."""

    path: str  # where it is inside music21's corpus, e.g. "bach/bwv227.1.mxl"
    work: str  # the composition that it belongs to, e.g. "bach/bwv227"
    composer: str  # full name
    title: str  # title with the catalogue number
    takes: int  # how many takes are made of it at a time
    turns: float = 1.0  # how often it has its turn, beside the others

    @property
    def split(self) -> str:
        """The split that it is in, as everything that shares its melody."""
        return split_of(read_groups()[self.path])

    @property
    def slug(self) -> str:
        """The path as part of a file name."""
        return self.path.rsplit(".", 1)[0].replace("/", "-")


def corpus_folder() -> Path:
    """Find the scores inside the music21 package, without importing it."""
    folder = Path(find_spec("music21").origin).parent / "corpus"
    if not (folder / "bach").is_dir():
        raise UserError(
            f"music21 has no scores in {folder}: it was installed without its corpus. "
            "Reinstall it: pip install --force-reinstall music21"
        )
    return folder


def find_pieces(collections: Sequence[str] | None = None) -> list[Piece]:
    """List the compositions of the corpus, of which it is known what they share."""
    chosen = check_collections(COLLECTIONS if collections is None else collections)
    return [piece for piece in candidates(chosen) if piece.path in read_groups()]


@lru_cache(maxsize=1)
def read_groups() -> dict[str, str]:
    """The group of each file."""
    rows = (line.split(" ") for line in TABLE.read_text("ascii").splitlines())
    return {path: group for path, group, *_ in rows}


def candidates(collections: Sequence[str] = COLLECTIONS) -> list[Piece]:
    """List what music21 has of some collections."""
    root = corpus_folder()
    pieces = [piece for name in collections for piece in _FINDERS[name](root)]
    return sorted(pieces, key=lambda piece: piece.path)


def check_collections(collections: Sequence[str]) -> list[str]:
    """Refuses names of collections that do not exist."""
    is_list = isinstance(collections, (list, tuple))
    unknown = [name for name in collections if name not in COLLECTIONS]
    if not is_list or unknown or not collections:
        raise UserError(
            f"collections is {collections!r}: give a list of one or more of "
            f"{', '.join(COLLECTIONS)}, or null for all."
        )
    return [name for name in COLLECTIONS if name in collections]


def _chorales(root: Path) -> Iterator[Piece]:
    for path in _score_paths(root, "bach"):
        number = Path(path).stem.removeprefix("bwv")
        work = re.match(r"\d+", number).group()
        yield Piece(
            path=path,
            work=f"bach/bwv{work}",
            composer="Johann Sebastian Bach",
            title=f"Chorale, BWV {number}",
            takes=1,
        )


def _classical(root: Path) -> Iterator[Piece]:
    for place, composer, title, takes in _WORKS:
        for path in _score_paths(root, place):
            movement = re.search(r"movement(\d+)", path)
            suffix = f", movement {movement.group(1)}" if movement else ""
            work = place.removesuffix(".mxl")
            yield Piece(path, work, composer, title + suffix, takes)


def _fiddle_tunes(root: Path) -> Iterator[Piece]:
    """Of which most have no composer, as nobody knew any."""
    for file in (root / "ryansMammoth").glob("*.abc"):
        path = file.relative_to(root).as_posix()
        title = re.sub(
            r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[A-Z][a-z])", " ", file.stem
        )
        work = path.removesuffix(".abc")
        yield Piece(path, work, "Anonymous", title, takes=1, turns=_TURNS_OF_A_TUNE)


_FINDERS = {
    "chorales": _chorales,
    "classical": _classical,
    "fiddle tunes": _fiddle_tunes,
}


def split_of(group: str) -> str:
    """Tell which split a group of pieces that share melodies belongs to.

    It depends on nothing else, so what a model was trained on is never in the test
    set of another size or seed.
    """
    digest = hashlib.sha256(group.encode("utf-8")).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return next(split for split, end in _SPLIT_ENDS.items() if share < end)


def _score_paths(root: Path, place: str) -> list[str]:
    """The MusicXML files of a folder, or the file itself, as paths under `root`."""
    # Not every version of music21 has every piece.
    files = [root / place, *(root / place).glob("*")]
    paths = [file.relative_to(root).as_posix() for file in files if file.is_file()]
    scores = [path for path in paths if path.endswith((".mxl", ".xml"))]
    return [path for path in scores if path not in _LEFT_OUT]
