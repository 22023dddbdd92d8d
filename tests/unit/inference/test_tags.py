"""Lists of tags and prompts, and their latents."""

import pytest
import torch

from muq_plugins.inference.tags import embed_tags, read_prompts, read_tags
from tests.unit.inference.tones import ToneModel


def test_repeated_tags_count_once(tmp_path):
    path = tmp_path / "tags.txt"
    path.write_text(
        "\ufeffPiano\ncafe\u0301\n 钢琴 \n\npiano\ncaf\u00e9\nPIANO\n", "utf-8"
    )
    tags, repeated = read_tags(path)
    assert tags == ["Piano", "caf\u00e9", "钢琴"]
    assert repeated == [
        'line 5, "piano", repeats line 1, "Piano"',
        'line 6, "caf\u00e9", repeats line 2, "caf\u00e9"',
        'line 7, "PIANO", repeats line 1, "Piano"',
    ]


def test_lists_that_cannot_be_used(tmp_path):
    path = tmp_path / "tags.txt"
    path.write_text("\n \n")
    with pytest.raises(ValueError, match="tags.txt holds no tags: write one in each"):
        read_tags(path)
    with pytest.raises(ValueError, match="tags.txt holds no prompts"):
        read_prompts(path)
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match="position 3.* give a text file in UTF-8"):
        read_tags(path)
    path.write_text("a {tag}\nmusic\n")
    with pytest.raises(ValueError, match='line 2: "music" has no {tag}'):
        read_prompts(path)


def test_prompts_are_averaged():
    latents = embed_tags(ToneModel(), ["220", "440"], ["{tag}", "{tag} and 880"])
    model = ToneModel()
    expected = model.embed_text(["220", "220 and 880"]).mean(dim=0)
    expected = torch.nn.functional.normalize(expected, dim=0)
    assert torch.allclose(latents[0], expected, atol=1e-6)
    assert torch.allclose(latents.norm(dim=1), torch.ones(2))


def test_a_tag_of_megabytes_is_refused(tmp_path):
    path = tmp_path / "tags.txt"
    path.write_text("piano\n" + "x" * 10_000_000)
    with pytest.raises(ValueError, match="10,000,000 characters is no description"):
        read_tags(path)
