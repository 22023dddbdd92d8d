"""Three clips with tags and captions."""

import pytest

from muq_plugins.evaluation.zero_shot.clips import labelled_clips, tagged_folder
from muq_plugins.files import write_json

CLIPS = {
    "a": {"tags": ["genre---rock"], "caption": "loud", "song": "x"},
    "b": {"tags": ["genre---pop", "genre---rock"], "caption": "calm", "song": "x"},
    "c": {"tags": [], "caption": "loud", "song": "y"},
}


@pytest.fixture
def folder(tmp_path):
    """Manifests with a list of tags."""
    entries = {
        clip: {"wav": f"{{data_root}}/{clip}.wav", "duration": 1.0, **labels}
        for clip, labels in CLIPS.items()
    }
    write_json(tmp_path / "test.json", entries)
    write_json(tmp_path / "tags.json", ["genre---rock", "genre---folk", "genre---pop"])
    return tmp_path


@pytest.fixture
def load(folder):
    """Reads the clips of the folder."""

    def read(**options):
        settings = {"caption_key": "caption", "group_key": "song", **options}
        return labelled_clips(lambda: tagged_folder(folder, "/audio"), **settings)

    return read
