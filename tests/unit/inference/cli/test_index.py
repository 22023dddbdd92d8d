"""The command that makes an index: what it says, and how it ends."""

import threading
import time

import pytest

from muq_plugins.files import locked
from muq_plugins.inference.cli.main import main
from muq_plugins.inference.index.search import MusicIndex
from muq_plugins.inference.index.store import create
from muq_plugins.inference.space import INT8, track_space
from tests.unit.inference.tones import ToneModel, make_model, use_tones, write_tone


@pytest.fixture
def command(tmp_path, monkeypatch):
    use_tones(monkeypatch)
    for name, pitch in (("a", 220), ("b", 440)):
        write_tone(tmp_path / "music" / f"{name}.wav", pitch)
    model, music = make_model(tmp_path / "model"), str(tmp_path / "music")
    return ["index", music, "--model", model, "--out", str(tmp_path / "index")]


def test_new_changed_and_removed_files(command, tmp_path, capsys):
    assert main(command) == 0
    assert capsys.readouterr().err.endswith(
        "index: 2 new, 0 changed, 0 moved, 0 removed, 0 unchanged. Now 2 files in "
        f"the space {ToneModel().space().name}.\n"
    )
    (tmp_path / "music" / "a.wav").unlink()
    write_tone(tmp_path / "music" / "b.wav", 660, seconds=0.5)
    write_tone(tmp_path / "music" / "c.wav", 880)
    assert main(command) == 0
    assert "1 new, 1 changed, 0 moved, 1 removed, 0 unchanged. Now 2 files in" in (
        capsys.readouterr().err
    )
    del command[2:4]  # the model of the index
    assert main(command) == 0
    assert "0 new, 0 changed, 0 moved, 0 removed, 2 unchanged" in (
        capsys.readouterr().err
    )


def test_bad_files_are_listed_every_time(command, tmp_path, capsys):
    (tmp_path / "music" / "bad.wav").write_text("no audio")
    for _ in range(2):
        assert main(command) == 1
        assert "bad.wav: undecodable" in capsys.readouterr().err


def test_a_damaged_config_is_what_is_wrong(command, tmp_path, capsys):
    (tmp_path / "model" / "config.json").write_text("{")
    assert main([*command, "--layer", "1"]) == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_an_interrupted_command_goes_on(command, monkeypatch, capsys):
    embed = ToneModel.embed_file

    def interrupt(self, path, loudness):
        if path.endswith("b.wav"):
            raise KeyboardInterrupt
        return embed(self, path, loudness)

    monkeypatch.setattr(ToneModel, "embed_file", interrupt)
    assert main(command) == 130
    monkeypatch.setattr(ToneModel, "embed_file", embed)
    assert main(command) == 0
    assert (
        "1 new, 0 changed, 0 moved, 0 removed, 1 unchanged" in capsys.readouterr().err
    )


def test_the_model_is_found_from_other_folders(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command[command.index("--model") + 1] = "model"
    assert main(command) == 0
    assert MusicIndex(tmp_path / "index").store.model == str(tmp_path / "model")


def test_a_model_that_has_moved_is_noted(command, tmp_path):
    assert main(command) == 0
    (tmp_path / "model").rename(tmp_path / "moved")
    assert main([*command, "--model", str(tmp_path / "moved")]) == 0
    assert MusicIndex(tmp_path / "index").store.model == str(tmp_path / "moved")


def test_a_second_command_waits_and_says_so(command, tmp_path, capsys):
    (tmp_path / "index").mkdir()
    codes = []
    second = threading.Thread(target=lambda: codes.append(main(command)))
    with locked(tmp_path / "index"):
        second.start()
        while "Waiting for another process" not in capsys.readouterr().err:
            assert second.is_alive()
            time.sleep(0.01)
        assert not (tmp_path / "index" / "music.sqlite").exists()
    second.join(120)
    assert codes == [0]
    assert len(MusicIndex(tmp_path / "index")) == 2


@pytest.mark.parametrize("model", ["model", "small"])
def test_settings_of_another_model_are_not_in_question(
    command, tmp_path, capsys, model
):
    """What nobody gave is no mistake: a layer that the index has, and its precision."""
    if model == "small":
        command[3] = model
    space = track_space("a1b2", 30, precision=INT8)
    create(tmp_path / "index", "another", space, 24)
    assert main(command) == 2
    message = capsys.readouterr().err
    assert f"index holds vectors of the space {space.name}, and" in message
    assert "--layer" not in message and "--dtype" not in message
    assert ("layers 30 there, none here" in message) == (model == "model")


def test_mistakes_are_explained(command, tmp_path, monkeypatch, capsys):
    assert main(command) == 0
    other = make_model(tmp_path / "other", "0ff0")
    assert main([*command, "--model", other]) == 2
    message = capsys.readouterr().err
    held, given = ToneModel().space().name, ToneModel("0ff0").space().name
    assert f"index holds vectors of the space {held}, and {other} gives" in message
    assert f"the space {given}" in message and "give that model" in message
    assert main(["index", str(tmp_path / "nowhere"), *command[2:]]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert main(["index", str(tmp_path / "model"), *command[2:]]) == 2
    assert "There are no audio files in" in capsys.readouterr().err
    (tmp_path / "index" / "music.sqlite").write_bytes(b"x" * 5000)
    assert main(command) == 2
    assert "music.sqlite is damaged" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "music")]) == 2
    assert "holds a.wav and is not an index" in capsys.readouterr().err
    assert main(["index", "--out", str(tmp_path / "index")]) == 2
    assert "Give a folder with music, or --prune" in capsys.readouterr().err
    with monkeypatch.context() as torchrun:
        torchrun.setenv("WORLD_SIZE", "2")
        torchrun.setenv("RANK", "0")
        assert main([*command, "--prune"]) == 2
    assert "leave them out of torchrun" in capsys.readouterr().err
    assert main([*command[:2], "--out", str(tmp_path / "new")]) == 2
    assert "There is no index in" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
