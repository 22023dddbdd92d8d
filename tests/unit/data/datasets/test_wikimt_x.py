"""WikiMT-X: texts and the recordings that their links name."""

import functools
import json

import pytest

from muq_plugins.data.datasets.wikimt_x import wikimt_x
from muq_plugins.errors import UserError
from muq_plugins.evaluation.zero_shot.clips import labelled_clips

LINKS = [
    "https://www.youtube.com/watch?v=a1B2c3D4e5F&t=3",
    "https://youtu.be/z-9_y8x7w6V",
]


def write(folder, *changes):
    """Two songs in the layout of the data set; `sounds` writes its folder `audio`."""
    lines = []
    for number, link in enumerate(LINKS):
        texts = {kind: f"{kind} {number}" for kind in ("background", "analysis")}
        texts |= {kind: f"{kind} {number}" for kind in ("description", "scene")}
        song = {"title": "v=", "leadsheet": "X:1", **texts, "audio": link}
        song = {**song, "lyrics": "a line\u2028and another", **dict(changes)}
        lines.append(json.dumps(song, ensure_ascii=False))
    (folder / "wikimt-x-public.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def test_each_kind_of_text_is_a_test_of_its_own(tmp_path, sounds):
    sounds("a1B2c3D4e5F.mp3", "z-9_y8x7w6V.wav")
    write(tmp_path)

    def read(kinds):
        prepare = functools.partial(wikimt_x, tmp_path)
        return labelled_clips(prepare, tag_key=None, caption_key=kinds)

    clips = read(["background", "scene"])
    expected = {x: [f"{x} 0", f"{x} 1"] for x in ("background", "scene")}
    assert clips.texts == expected and read("scene").captions == expected["scene"]
    assert clips.name == "WikiMT-X, test" and not clips.tags
    assert [path.rpartition("/")[2] for path in clips.files] == [
        *("a1B2c3D4e5F.mp3", "z-9_y8x7w6V.wav")
    ]
    write(tmp_path, ("scene", " "))  # which only who asks for scenes misses
    assert read("background").captions == ["background 0", "background 1"]
    with pytest.raises(UserError, match="has None under 'scene', expected a str"):
        read(["background", "scene"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("audio", "unknown"), "line 1: it has no link to a recording"),
        (("audio", LINKS[0]), "line 2: the recording a1B2c3D4e5F is there twice"),
    ],
)
def test_what_is_damaged_is_named(tmp_path, change, words):
    folder = write(tmp_path, change)
    with pytest.raises(UserError, match=words):
        wikimt_x(folder)
    for line, lacks in (("[]", "it holds no song"), ('{"audio": ""}', "has no link")):
        (folder / "wikimt-x-public.jsonl").write_text(f"{line}\n")
        with pytest.raises(UserError, match=lacks):
            wikimt_x(folder)
    song = json.dumps({"audio": LINKS[0], "scene": " "})
    (folder / "wikimt-x-public.jsonl").write_text(song)
    with pytest.raises(UserError, match="line 1: it has no text"):
        wikimt_x(folder)


def test_dead_links_stop_it_unless_they_may_be_left_out(tmp_path, sounds):
    sounds("z-9_y8x7w6V.m4a.wav")
    data = wikimt_x(write(tmp_path))
    with pytest.raises(UserError, match="2 of 2 recordings are missing"):
        data.found()
    sounds("z-9_y8x7w6V.wav")
    _, left_out = data.found(leave_out_missing=True)
    assert [one["path"] for one in left_out] == ["a1B2c3D4e5F.mp3"]
