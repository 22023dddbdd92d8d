"""The compositions of the embedded corpus: which ones, whose, in which split.

All of them ship inside the ``music21`` package. A piece is in the list when its
composer died more than a century ago and its file claims no rights to the music
(no rights notice, or an explicit dedication to the public domain). That leaves out,
among others, the Essen folk songs (non-commercial licence), Palestrina (licensing
agreement), Monteverdi (a publisher's notice in some files) and every edition under
a Creative Commons licence that asks for attribution.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from muq_plugins.errors import UserError

SPLITS = ("train", "valid", "test")

# What can be chosen from: a corpus is of the first two unless it is asked for others.
COLLECTIONS = ("chorales", "classical", "fiddle tunes")
_USUAL = COLLECTIONS[:2]

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
    ("cpebach/h186.mxl", "Carl Philipp Emanuel Bach", "Sonata in A major, H. 186", 2),
    ("handel/rinaldo", "George Frideric Handel", "Lascia ch'io pianga", 2),
    ("weber/concertino_clarinet.mxl", "Carl Maria von Weber", "Concertino, Op. 26", 6),
    ("verdi/laDonnaEMobile.mxl", "Giuseppe Verdi", "La donna è mobile", 1),
    ("lusitano/allor_che_ignuda.mxl", "Vicente Lusitano", "Allor che ignuda", 2),
    ("liliuokalani/aloha_oe.mxl", "Queen Liliʻuokalani", "Aloha ʻOe", 1),
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
    work: str  # the composition that it belongs to, e.g. "bach/bwv227": what is split
    composer: str  # full name
    title: str  # title with the catalogue number
    takes: int  # how many takes are made of it at a time

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
    """List the compositions of the corpus."""
    root = corpus_folder()
    pieces: list[Piece] = []
    for name in check_collections(_USUAL if collections is None else collections):
        pieces += _FINDERS[name](root)
    return sorted(pieces, key=lambda piece: piece.path)


def check_collections(collections: Sequence[str]) -> list[str]:
    """Refuses names of collections that do not exist."""
    is_list = isinstance(collections, (list, tuple))
    unknown = [name for name in collections if name not in COLLECTIONS]
    if not is_list or unknown or not collections:
        raise UserError(
            f"collections is {collections!r}: give a list of one or more of "
            f"{', '.join(COLLECTIONS)}, or null for the usual music."
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
        yield Piece(path, path.removesuffix(".abc"), "Anonymous", title, 1)


_FINDERS = {
    "chorales": _chorales,
    "classical": _classical,
    "fiddle tunes": _fiddle_tunes,
}


def split_of(work: str) -> str:
    """Tell which split a composition belongs to.

    It depends on nothing else, so what a model was trained on is never in the test
    set of another size or seed.
    """
    digest = hashlib.sha256(work.encode("utf-8")).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < 0.8:
        return "train"
    return "valid" if share < 0.9 else "test"


def _score_paths(root: Path, place: str) -> list[str]:
    """The MusicXML files of a folder, or the file itself, as paths under `root`."""
    # Not every version of music21 has every piece.
    files = [root / place, *(root / place).glob("*")]
    paths = [file.relative_to(root).as_posix() for file in files if file.is_file()]
    scores = [path for path in paths if path.endswith((".mxl", ".xml"))]
    return [path for path in scores if path not in _LEFT_OUT]
