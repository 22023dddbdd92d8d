"""Music that may be used: FMA and MTG-Jamendo, as their authors publish them.

Facts are those of github.com/mdeff/fma and github.com/MTG/mtg-jamendo-dataset: the
addresses, the checksums, the layout of the archives, and the list of broken clips.
"""

from __future__ import annotations

import ast
import collections
import csv
import functools
import io
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from tqdm import tqdm

from muq_plugins.data.downloads import Published, download
from muq_plugins.data.manifest import (
    PARTS,
    manifest_entry,
    split_files,
    write_manifest,
)
from muq_plugins.data.scan import check_files, judge, look_at, usual_fraction
from muq_plugins.errors import UserError
from muq_plugins.files import (
    append_json_line,
    atomic,
    locked,
    open_json_lines,
    read_json,
    read_json_lines,
    write_json,
)

FMA = "https://os.unil.cloud.switch.ch/fma"
JAMENDO = "https://cdn.freesound.org/mtg-jamendo/raw_30s"
JAMENDO_COMMIT = "1b4fa8c32e076c73b5175c1703ae805b4109309d"
JAMENDO_NOTES = (
    f"https://raw.githubusercontent.com/MTG/mtg-jamendo-dataset/{JAMENDO_COMMIT}"
)
# Of the README of FMA.
FMA_SHA1 = {
    "fma_metadata.zip": "f0df49ffe5f2a6008d7dc83c6915b31835dfe733",
    "fma_small.zip": "ade154f733639d52e35e32f5593efe5be76c6d70",
    "fma_medium.zip": "c67b69ea232021025fca9231fc1c7c1a063ab50b",
    "fma_large.zip": "497109f4dd721066b5ce5e5f250ec604dc78939e",
    "fma_full.zip": "0f0ace23fbe9ba30ecb7e95f763e435ea802b8ab",
}
# Clips that were cut out at a wrong place, since the stated length of their track is
# wrong: too short, or without a sound (mdeff/fma#8, by its author). The tracks of
# fma_full are whole.
FMA_BROKEN = {
    *(1486, 5574, 65753, 80391, 98558, 98559, 98560, 98565, 98566, 98567, 98568),
    *(98569, 98571, 99134, 105247, 108924, 108925, 126981, 127336, 133297, 143992),
}
FMA_SIZES = ("small", "medium", "large", "full")
# What git calls these files at the commit above, which is a checksum too. Two of them
# list the SHA-256 of every archive.
JAMENDO_BLOBS = {
    "audio_licenses.txt": "0672e1840650a4e1352dfe9ab487f67de8954171",
    "data/raw.meta.tsv": "b04c274789a6de3c0f8d40ef69aa5699e48d5e4f",
    "data/raw_30s.tsv": "ff21eccc35cc885eda78be316de8df60332c8de0",
    "data/download/raw_30s_audio-low_sha256_tars.txt": (
        "844c66c4bc0b2bc1a71043439a180766dcdafd32"
    ),
    "data/download/raw_30s_audio_sha256_tars.txt": (
        "d47112aca5fe52efd0cdea4315077fa81402125c"
    ),
}
_TABLE = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
# As Creative Commons calls them; "pd" is a work without any rights, "other" all else.
LICENCES = (
    *("cc0", "pd", "by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd", "other"),
)


@dataclass(frozen=True)
class Track:
    """A recording of a corpus, and what its authors say about it."""

    path: str  # below the folder of the corpus
    artist_id: str
    licence: str  # of `LICENCES`
    labels: dict[str, Any] = field(default_factory=dict)
    broken: bool = False


@dataclass(frozen=True)
class OpenCorpus:
    """What is asked of a corpus."""

    notes: Callable[[Path, str | None, bool], list[Track]]  # downloads what is known
    archives: Callable[[Path, str | None], list[Published]]


def licence_of(words: str) -> str:
    """The licence that words, or an address of Creative Commons, mean."""
    text = words.lower()
    if address := re.search(r"creativecommons\.org/[a-z]+/([a-z+-]+)", text):
        names = {"zero": "cc0", "mark": "pd", "publicdomain": "pd"}
        code = names.get(address[1], address[1])
        return code if code in LICENCES else "other"
    if "cc0" in text:
        return "cc0"
    if "public domain" in text:
        return "pd"
    if "attribution" not in text:
        return "other"
    parts = ["by"]
    parts += ["nc"] * bool(re.search(r"non.?commercial", text))
    parts += ["sa"] * bool(re.search(r"share.?alike", text))
    parts += ["nd"] * bool(re.search(r"no.?deriv", text))
    code = "-".join(parts)
    return code if code in LICENCES else "other"


def _fma(size: str) -> OpenCorpus:
    """One of the sizes of FMA."""

    def archives(folder: Path, mirror: str | None) -> list[Published]:
        name = f"fma_{size}.zip"
        return [Published(f"{mirror or FMA}/{name}", "sha1", FMA_SHA1[name])]

    def notes(folder: Path, mirror: str | None, progress: bool) -> list[Track]:
        name = "fma_metadata.zip"
        file = Published(f"{mirror or FMA}/{name}", "sha1", FMA_SHA1[name])
        with zipfile.ZipFile(download(file, folder, progress)) as archive:
            tracks, genres = (
                io.StringIO(archive.read(f"fma_metadata/{table}.csv").decode(), "")
                for table in ("tracks", "genres")
            )
        csv.field_size_limit(1 << 24)  # biographies
        return list(_fma_tracks(tracks, genres, size))

    return OpenCorpus(notes, archives)


def _fma_tracks(tracks: TextIO, genres: TextIO, size: str) -> Iterator[Track]:
    """Reads tracks.csv, whose columns have names of two levels."""
    titles = {row["genre_id"]: row["title"] for row in csv.DictReader(genres)}
    rows = csv.reader(tracks)
    names = zip(next(rows), next(rows), strict=True)
    columns = {name: at for at, name in enumerate(names)}
    next(rows)  # the name of the index
    wanted = FMA_SIZES[: FMA_SIZES.index(size) + 1]
    for row in rows:

        def get(*name: str, row: list[str] = row) -> str:
            return row[columns[name]]

        if get("set", "subset") not in wanted:
            continue
        name = f"{int(row[0]):06d}"
        genre_ids = ast.literal_eval(get("track", "genres"))
        yield Track(
            path=f"fma_{size}/{name[:3]}/{name}.mp3",
            artist_id=get("artist", "id"),
            licence=licence_of(get("track", "license")),
            labels={
                "title": get("track", "title"),
                "artist": get("artist", "name"),
                "album": get("album", "title"),
                "genre": get("track", "genre_top") or None,
                "genres": [titles[str(one)] for one in genre_ids if str(one) in titles],
                "licence_text": get("track", "license"),
            },
            broken=size != "full" and int(row[0]) in FMA_BROKEN,
        )


def _jamendo(quality: str) -> OpenCorpus:
    """MTG-Jamendo, all tracks of at least 30 s."""
    low = ".low" if quality == "audio-low" else ""

    def get(folder: Path, mirror: str | None, name: str, progress: bool) -> Path:
        url = f"{mirror or JAMENDO_NOTES}/{name}"
        return download(Published(url, "blob", JAMENDO_BLOBS[name]), folder, progress)

    def archives(folder: Path, mirror: str | None) -> list[Published]:
        name = f"data/download/raw_30s_{quality}_sha256_tars.txt"
        lines = get(folder, mirror, name, False).read_text().split("\n")
        pairs = [line.split() for line in lines if line]
        return [
            Published(f"{mirror or JAMENDO}/{quality}/{name}", "sha256", digest)
            for digest, name in pairs
        ]

    def notes(folder: Path, mirror: str | None, progress: bool) -> list[Track]:
        texts = {
            name: get(folder, mirror, name, progress).read_text(encoding="utf-8")
            for name in ("data/raw_30s.tsv", "data/raw.meta.tsv", "audio_licenses.txt")
        }
        return list(_jamendo_tracks(*texts.values(), low))

    return OpenCorpus(notes, archives)


def _jamendo_tracks(table: str, meta: str, licences: str, low: str) -> Iterator[Track]:
    """Reads the table of tags, that of names, and the licences, in blocks of lines."""
    names = {row["TRACK_ID"]: row for row in csv.DictReader(meta.split("\n"), **_TABLE)}
    granted, path = {}, None
    for line in map(str.strip, licences.split("\n")):
        if re.fullmatch(r"\d+/\d+\.mp3", line):
            path = line
        elif path is not None and "license" in line.lower() and "://" in line:
            granted[path] = line.rpartition(" ")[2]
    rows = csv.reader(filter(None, table.split("\n")), **_TABLE)
    next(rows)
    for track, artist, _, path, _, *tags in rows:
        name = names.get(track, {})
        genres = [tag.partition("---")[2] for tag in tags if tag.startswith("genre---")]
        address = granted.get(path, "")
        yield Track(
            path=path.removesuffix(".mp3") + f"{low}.mp3",
            artist_id=artist,
            licence=licence_of(address),
            labels={
                "title": name.get("TRACK_NAME"),
                "artist": name.get("ARTIST_NAME", artist),
                "album": name.get("ALBUM_NAME"),
                "genre": genres[0] if genres else None,
                "genres": genres,
                "tags": [tag.partition("---")[2] for tag in tags],
                "licence_text": address,
            },
        )


CORPORA = {
    **{f"fma-{size}": _fma(size) for size in FMA_SIZES},
    "mtg-jamendo": _jamendo("audio"),
    "mtg-jamendo-low": _jamendo("audio-low"),
}


def prepare_corpus(
    name: str,
    folder: str | Path,
    licences: Iterable[str] = LICENCES,
    keep_archives: bool = False,
    mirror: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Downloads a corpus, unpacks what its licence allows, and writes manifests.

    One archive after another is downloaded, checked, unpacked and removed, so the disk
    holds the music and one archive. What was interrupted goes on. Gives what there is:
    recordings and hours of each part and licence, and what was left out.
    """
    folder, corpus, wanted = Path(folder), CORPORA[name], set(licences)
    mirror = mirror and mirror.rstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _keep_apart(name, folder)
        tracks = corpus.notes(folder / "notes", mirror, progress)
        asked = {t.path: t for t in tracks if t.licence in wanted and not t.broken}
        if not asked:
            counts = collections.Counter(track.licence for track in tracks)
            raise UserError(
                f"{name} has no recordings with the licences {', '.join(wanted)}; it "
                f"has {_counted(counts)}."
            )
        known = {track.path for track in tracks}
        for archive in corpus.archives(folder / "notes", mirror):
            _unpack_once(archive, folder, known, asked, wanted, keep_archives, progress)
        return _write_manifests(name, folder, tracks, asked, workers, progress)


def _keep_apart(name: str, folder: Path) -> None:
    """Refuses a folder that has another corpus, whose manifests would be lost."""
    mark = folder / "corpus.json"
    if mark.is_file():
        before = read_json(mark).get("name")
    elif any((folder / f"{part}.json").exists() for part in PARTS):
        before = "manifests of other music"
    else:
        write_json(mark, {"name": name})
        return
    if before != name:
        raise UserError(f"{folder} has {before}: give another folder for {name}.")


def _unpack_once(
    archive: Published,
    folder: Path,
    known: set[str],
    asked: dict[str, Track],
    wanted: set[str],
    keep: bool,
    progress: bool,
) -> None:
    """Downloads and unpacks an archive, if nobody has."""
    log = folder / "unpacked.jsonl"
    done = {"archive": archive.checksum, "licences": sorted(wanted)}
    if any(
        record["archive"] == done["archive"] and wanted <= set(record["licences"])
        for record in read_json_lines(log)
    ):
        return
    path, strange = download(archive, folder, progress), True
    for name, size, open_member in _members(path):
        strange = strange and name not in known
        place = folder / name
        if name not in asked or (place.is_file() and place.stat().st_size == size):
            continue
        with (
            atomic(place) as partial,
            open_member() as source,
            open(partial, "wb") as out,
        ):
            shutil.copyfileobj(source, out)
    if strange:
        raise UserError(
            f"{path} has none of the recordings that the tables in {folder / 'notes'} "
            "list: it is laid out in another way than we know. It was kept."
        )
    with open_json_lines(log) as file:
        append_json_line(file, done)
    if not keep:
        path.unlink()


def _members(path: Path) -> Iterator[tuple[str, int, Callable[[], BinaryIO]]]:
    """Name and bytes of each file of an archive, and what opens it."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in tqdm(archive.infolist(), desc=path.name, unit="file"):
                # zipfile compares the checksum of each member when it is read.
                opened = functools.partial(archive.open, info)
                yield info.filename, info.file_size, opened
        return
    with tarfile.open(path) as archive:
        for info in archive:
            if info.isfile():
                name = info.name.removeprefix("./")
                yield name, info.size, functools.partial(archive.extractfile, info)


def _write_manifests(
    name: str,
    folder: Path,
    tracks: list[Track],
    asked: dict[str, Track],
    workers: int | None,
    progress: bool,
) -> dict[str, Any]:
    """Decodes every recording once, and divides those that can be used by artist."""
    checks, _ = check_files(look_at(folder).only(asked), folder, workers, progress)
    left_out = [
        {"path": track.path, "reason": "known to be broken", "detail": "by its authors"}
        for track in tracks
        if track.broken
    ]
    usable = {}
    for path, check in checks.items():
        reason, detail = judge(check)
        if reason is None:
            usable[path] = check
        else:
            left_out.append({"path": path, "reason": reason, "detail": detail})
    write_json(folder / "left_out.json", left_out)
    if not usable:
        raise UserError(
            f"None of {len(asked)} recordings of {name} can be used: see "
            f"{folder / 'left_out.json'}."
        )
    artists = sorted({asked[path].artist_id for path in usable})
    share = usual_fraction(len(artists))
    parts = {
        artist: part
        for part, some in split_files(artists, 1234, share, share).items()
        for artist in some
    }
    manifests: dict[str, dict] = {part: {} for part in PARTS}
    hours: collections.Counter = collections.Counter()
    for path, check in usable.items():
        track = asked[path]
        labels = {key: value for key, value in track.labels.items() if value}
        labels |= {"licence": track.licence, "artist_id": track.artist_id}
        clip = os.path.splitext(path)[0].replace("/", "__")
        entry = manifest_entry(path, check, **labels)
        manifests[parts[track.artist_id]][clip] = entry
        hours[track.licence] += check.duration / 3600
    for part, entries in manifests.items():
        write_manifest(folder / f"{part}.json", entries)
    return {
        "parts": {part: len(entries) for part, entries in manifests.items()},
        "hours": dict(hours),
        "left_out": left_out,
        "other_licences": len(tracks) - len(asked) - sum(t.broken for t in tracks),
    }


def _counted(counts: collections.Counter) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
