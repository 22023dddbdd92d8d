"""MagnaTagATune in its published layout; pickles are looked at, never loaded."""

import csv
import pickle

import numpy as np
import pytest

from muq_plugins.data.datasets.magnatagatune import (
    UNREADABLE,
    magnatagatune,
    read_pickled_texts,
)
from muq_plugins.errors import UserError
from tests.unit.data.datasets.conftest import spoil

# Path and tags; "no vocals" is the more frequent one though its column is the last.
CLIPS = [
    ("0/one-album-01-song-0-29.mp3", ["guitar", "no vocals"]),
    ("0/one-album-01-song-30-59.mp3", ["no vocals"]),
    ("b/two-album-07-tune-0-29.mp3", []),
    ("c/three-album-01-a-0-29.mp3", ["guitar"]),
    ("d/four-album-01-b-0-29.mp3", ["no vocals"]),
    ("f/five-album-01-c-0-29.mp3", []),
]


COLUMNS = ["guitar", *(f"rare {i:02}" for i in range(50)), "no vocals"]


LISTS = {"train": [0, 1], "valid": [3], "test": [4]}


@pytest.fixture
def published(tmp_path):
    """The folder of the annotations; the lists of Lee and Won lie in `MTAT_split`."""
    with open(tmp_path / "annotations_final.csv", "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL)
        writer.writerow(["clip_id", *COLUMNS, "mp3_path"])
        for number, (path, tags) in enumerate(CLIPS):
            writer.writerow([number, *(int(tag in tags) for tag in COLUMNS), path])
    folder = tmp_path / "MTAT_split"
    folder.mkdir()
    tags = ["noVocals", *(tag.replace(" ", "") for tag in COLUMNS[:49])]
    (folder / "top50_tags.txt").write_text("\n".join(tags) + "\n")
    for part, rows in LISTS.items():
        names = [CLIPS[row][0].replace(".mp3", ".npy") for row in rows]
        # As Python 2 wrote a list of texts.
        items = (f"S'{name}'\np{i}\na" for i, name in enumerate(names, start=2))
        content = "".join(["(lp1\n", *items, "."]).encode()
        (folder / f"{part}_list_pub.cP").write_bytes(content)
    return tmp_path


def truth_of(part):
    tags = ["no vocals", *COLUMNS[:49]]
    rows = [[tag in CLIPS[row][1] for tag in tags] for row in LISTS[part]]
    return np.array(rows, dtype=float)


def by_part(data):
    found = {"train": {}, "valid": {}, "test": {}}
    for clip in data.clips:
        found[clip.part][clip.path] = clip.tags
    return found


def test_the_split_by_folders_keeps_clips_without_a_tag(published):
    data = magnatagatune(published)
    assert by_part(data) == {
        "train": {
            "0/one-album-01-song-0-29.mp3": ["no vocals", "guitar"],
            "0/one-album-01-song-30-59.mp3": ["no vocals"],
            "b/two-album-07-tune-0-29.mp3": [],
        },
        "valid": {"c/three-album-01-a-0-29.mp3": ["guitar"]},
        "test": {
            "d/four-album-01-b-0-29.mp3": ["no vocals"],
            "f/five-album-01-c-0-29.mp3": [],
        },
    }
    # The 50 most frequent, equally frequent ones in the order of their columns.
    assert data.classes == ["no vocals", "guitar", *COLUMNS[1:49]]
    assert len({clip.labels["song"] for clip in data.clips[:3]}) == 2


def test_the_split_of_lee_and_won_is_that_of_its_lists(published):
    for part in ("valid", "test"):
        np.save(published / f"MTAT_split/y_{part}_pub.npy", truth_of(part))
    data = magnatagatune(published, split="lee-won")
    assert by_part(data) == {
        "train": {
            "0/one-album-01-song-0-29.mp3": ["no vocals", "guitar"],
            "0/one-album-01-song-30-59.mp3": ["no vocals"],
        },
        "valid": {"c/three-album-01-a-0-29.mp3": ["guitar"]},
        "test": {"d/four-album-01-b-0-29.mp3": ["no vocals"]},
    }
    assert data.classes == ["no vocals", *COLUMNS[:49]]  # as top50_tags.txt lists them


def test_the_three_broken_files_are_listed(published, sounds):
    path = published / "annotations_final.csv"
    text = path.read_text().replace(CLIPS[0][0], UNREADABLE[0])
    path.write_text(text)
    audio = sounds(*(path for path, _ in CLIPS[1:])).rename(published / "mp3")
    (audio / UNREADABLE[0]).parent.mkdir()
    (audio / UNREADABLE[0]).write_bytes(b"")
    _, left_out = magnatagatune(published).found()
    assert [(one["path"], one["reason"]) for one in left_out] == [
        (UNREADABLE[0], "empty")
    ]


def test_a_split_that_nobody_has_published(published):
    with pytest.raises(UserError, match="split must be 'folders' or 'lee-won'"):
        magnatagatune(published, split="random")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("annotations_final.csv", ("clip_id", "id"), "it must have the columns clip_i"),
        ("annotations_final.csv", ('"1"\t"0"', '"2"\t"0"'), "line 2: expected 54 colu"),
        ("annotations_final.csv", ("0/one", "x/one"), "'x/one-album-01-song-0-29.mp3'"),
        ("top50_tags.txt", b"guitar\nkazoo\n", "it lists the tag 'kazoo'"),
        ("test_list_pub.cP", None, "does not exist. Get it from the folder"),
        (
            "test_list_pub.cP",
            pickle.dumps(["9/unknown-0-29.npy"], protocol=0),
            "has no '9/unknown-0-29.mp3'. Get it again from .* mirg.city",
        ),
        ("test_list_pub.cP", pickle.dumps(["a"])[:-3], "no whole pickle"),
        ("test_list_pub.cP", pickle.dumps("a"), "0 lists instead of one"),
        ("y_test_pub.npy", b"", "it is no matrix"),
        # In another order of the tags, of other tags, and one that would run a program.
        ("y_test_pub.npy", truth_of("test")[:, ::-1], "tags to 'd/four-alb"),
        (
            "y_test_pub.npy",
            truth_of("test")[:, :49],
            r"\(1, 49\), .* \(1, 5",
        ),
        (
            "y_test_pub.npy",
            np.array([{}], dtype=object),
            "no matrix .*pickl",
        ),
    ],
)
def test_damaged_annotations(published, name, change, message):
    folder, split = published, "folders"
    if name != "annotations_final.csv":
        folder, split = published / "MTAT_split", "lee-won"
    spoil(folder / name, change)
    with pytest.raises(UserError, match=f"{name}.*{message}"):
        magnatagatune(published, split)


def test_a_list_as_python_2_wrote_it(tmp_path):
    path = tmp_path / "list.cP"
    path.write_bytes(b"(lp1\nS'd/a-0-29.npy'\np2\naS'd/it\\'s-0-29.npy'\np3\na.")
    assert read_pickled_texts(path) == ["d/a-0-29.npy", "d/it's-0-29.npy"]


class Runs:
    """A pickle that would run a program if it were loaded."""

    def __reduce__(self):
        return print, ("loaded",)


def test_no_pickle_is_ever_loaded(tmp_path, capsys):
    path = tmp_path / "list.cP"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(["a.npy", Runs()], protocol=protocol))
        with pytest.raises(UserError, match="list.cP: its .*could run a program"):
            read_pickled_texts(path)
        path.write_bytes(pickle.dumps(["a.npy", "b.npy"], protocol=protocol))
        assert read_pickled_texts(path) == ["a.npy", "b.npy"]
    assert capsys.readouterr().out == ""
