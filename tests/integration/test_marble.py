"""MARBLE as a user does it: a data set as it is downloaded, an encoder, a report."""

import importlib.util
import json

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.data.datasets.gtzan import GENRES
from muq_plugins.errors import UserError
from muq_plugins.evaluation.probing.run import probe_folder
from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes import MuQEncoder
from tests.integration.commands import ROOT
from tests.unit.evaluation.marble.test_similarity import write_abx

SECONDS = 1.0
IN = {"train": range(3), "valid": range(3, 5), "test": range(5, 7)}


# An encoder among what else a training needs.
TINY = """
width: 16
checkpointer: !new:muq_plugins.brains.AtomicCheckpointer
    checkpoints_dir: save
encoder: !new:muq_plugins.lobes.MuQEncoder
    width: !ref <width>
    num_layers: 1
    num_heads: 2
    ffn_width: !ref <width>
    conv_channels: 2
"""


def load_recipe():
    path = ROOT / "recipes" / "MARBLE" / "probe.py"
    spec = importlib.util.spec_from_file_location("marble_probe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def marble(experiment, *options, device="cpu"):
    """Runs the recipe in this process."""
    experiment = ROOT / "hparams" / "marble" / f"{experiment}.yaml"
    options = [experiment, *options, "--noprogressbar"]
    options += ["--device", device] if device else []
    load_recipe().main([str(option) for option in options])


def write_gtzan(folder):
    """Tones, a pitch for each genre, and their lists; keys too."""
    for part, places in IN.items():
        lines = []
        for number, genre in enumerate(GENRES):
            for place in places:
                path = folder / "genres_original" / genre / f"{genre}.{place:05}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                time = np.arange(int(22050 * SECONDS)) / 22050
                hertz = 200 * 1.4**number * (1 + 0.01 * place)
                soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * time), 22050)
                lines.append(f"{genre}/{path.name}")
                key = folder / "gtzan_key/genres" / genre / f"{path.stem}.lerch.txt"
                key.parent.mkdir(parents=True, exist_ok=True)
                key.write_text(f"{-1 if number == 0 else number}\n")
        (folder / f"{part}_filtered.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def gtzan(tmp_path_factory):
    return write_gtzan(tmp_path_factory.mktemp("data") / "GTZAN")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    encoder = MuQEncoder(16, num_layers=1, num_heads=2, ffn_width=16, conv_channels=2)
    save_muq(folder / "encoder", encoder)
    return folder


def test_one_entry_of_a_list_needs_no_brackets():
    recipe = load_recipe()
    (task,) = recipe.find_tasks({"tasks": "gtzan_genre", "labels": None})
    assert task.name == "gtzan_genre"
    assert recipe.listed("beside", "chroma") == ["chroma"]
    assert probe_folder("all", "chroma", "emo") == probe_folder(
        "all", "chroma", ["emo"]
    )


def options(run, out, *more, seeds="[0]"):
    return [
        *("--encoder", run / "encoder", "--output_folder", run / out),
        *("--features.folder", run / "features", "--seeds", seeds, *more),
    ]


def test_genres_from_folder_to_report(gtzan, run, capsys):
    (run / "tiny.yaml").write_text(TINY)
    beside = "--beside", f"[log_mel, 'untrained:{run / 'tiny.yaml'}']"
    untrained = "--untrained_seeds", "[1, 2]"
    more = options(run, "one", *beside, *untrained, seeds="[0, 1]")
    arguments = "--data_folder", gtzan, *more
    marble("gtzan_genre", *arguments)
    said = capsys.readouterr().out
    assert "GTZAN genre " in said and not (run / "save").exists()
    heard = "24000 Hz, 25 frames a second, 2 hidden states, 2 initialisations."
    assert f"untrained:{run / 'tiny.yaml'}: {heard}" in said
    (result,) = json.loads((run / "one" / "scores.json").read_text())
    assert result["clips"] == {"train": 30, "valid": 20, "test": 20}
    assert result["classes"] == list(GENRES) and result["chance"] == 0.1
    about = result["about"]
    assert about["protocol"] == "corrected" and about["seeds"] == [0, 1]
    assert len(about["split"]) == 16 and len(about["features"]["log_mel"]) == 1
    assert {len(x) for x in about["features"].values()} == {1, 2}
    rows = {(r["features"], r["layer"]): r for r in result["rows"]}
    assert [layer for name, layer in rows if name == str(run / "encoder")] == [
        *(0, 1, "mixture")
    ]
    log_mel = rows["log_mel", None]
    assert log_mel["value"] >= 0.7 and log_mel["low"] <= log_mel["value"]
    assert log_mel["lr"] in about["learning_rates"]
    for name in about["encoders"]:
        assert sum(r["chosen"] for r in result["rows"] if r["features"] == name) == 1
    text = (run / "one" / "report.md").read_text()
    assert "| GTZAN genre | Accuracy | 10.0% |" in text
    assert "Artists are not known" in text
    assert "how its probes were trained and chosen is not published" in text

    # Nothing is computed again, and the same comes out.
    stamps = {p: p.stat().st_mtime_ns for p in (run / "features").rglob("*.*")}
    marble("gtzan_genre", *arguments)
    again = {p: p.stat().st_mtime_ns for p in (run / "features").rglob("*.*")}
    assert again == stamps
    assert json.loads((run / "one" / "scores.json").read_text()) == [result]

    # What is another run there is refused before the data are looked at.
    other = options(run, "one", *beside, *untrained, seeds="[2]")
    with pytest.raises(UserError, match=r"seeds: \[0, 1\] there, \[2\] here"):
        marble("gtzan_genre", "--data_folder", run / "nowhere", *other)


def test_whatever_is_there_under_a_protocol_that_has_it(gtzan, run, capsys):
    write_abx(gtzan.parent / "Inst-Sim-ABX", triplets=2)
    more = "--data_root", gtzan.parent, "--protocol", "v1_constrained"
    marble("all", *more, *options(run, "all", "--beside", "[]"))
    said = capsys.readouterr().out
    results = json.loads((run / "all" / "scores.json").read_text())
    labels = [one["label"] for one in results]
    assert labels[:2] == ["gtzan_genre", "gtzan_key"] and len(labels) == 10
    assert labels[2:4] == ["abx_xab_overall", "abx_xab_timbre"]
    assert "Left out: nsynth_pitch. NSynth in " in said and "CC BY 4.0" in said
    genre, key, *similar = results
    assert {row["layer"] for row in similar[0]["rows"]} == {0, 1}
    text = (run / "all" / "report.md").read_text()
    assert "Protocol majority: the larger cosine" in text
    assert len(genre["about"]["learning_rates"]) == 6
    mixture = next(row for row in genre["rows"] if row["layer"] == "mixture")
    assert mixture["weights"][0] == 0 and sum(mixture["weights"]) == pytest.approx(1)
    beside = [x for x in genre["about"]["published"] if x["not_comparable"] is None]
    assert {x["by"] for x in beside} == {"MARBLE paper, constrained track"}
    assert key["clips"] == {"train": 27, "valid": 18, "test": 18}
    assert {"mirex2005", "mirex2017", "accuracy"} <= set(key["rows"][0]["metrics"])
    # One file of features for both tasks.
    assert 1 <= len(list((run / "features").glob("cutting-*"))) <= 5

    with pytest.raises(UserError, match="gtzan_key is no task of v2_as_shipped"):
        marble(
            "gtzan_genre",
            *("--tasks", "[gtzan_key]", "--protocol", "v2_as_shipped"),
            *("--data_folder", gtzan, *options(run, "none")),
        )
    assert not (run / "none").exists()


def test_labels_of_a_table_are_tasks(gtzan, run, capsys):
    rows = ["path,genre,part"]
    for part in IN:
        names = (gtzan / f"{part}_filtered.txt").read_text().split()
        rows += [f"{name},{name.split('/')[0]},{part}" for name in names]
    table = gtzan.parent / "labels.csv"
    table.write_text("\n".join(rows))
    marble(
        *("own", "--labels.path", table, "--labels.split_column", "part"),
        *("--labels.audio_folder", gtzan / "genres_original"),
        *("--tasks", "[{label: genre}]", *options(run, "own")),
    )
    assert "Genre " in capsys.readouterr().out
    (own,) = json.loads((run / "own" / "scores.json").read_text())
    assert own["classes"] == list(GENRES) and own["clips"]["test"] == 20
    assert own["rows"][-1]["value"] >= 0.7
    text = (run / "own" / "report.md").read_text()
    assert "of 20 different recordings" in " ".join(text.split())


def test_what_is_missing_is_said_before_anything_is_computed(gtzan, run, tmp_path):
    (tmp_path / "GTZAN").symlink_to(gtzan / "genres_original")
    arguments = "--data_folder", tmp_path / "GTZAN", *options(run, "missing")
    with pytest.raises(UserError) as error:
        marble("gtzan_genre", *arguments)
    assert "train_filtered.txt does not exist" in str(error.value)
    assert "kaggle.com" in str(error.value) and "no licence" in str(error.value)
    more = *arguments, "--devices"
    with pytest.raises(UserError, match="Give --device, or --devices for several"):
        marble("gtzan_genre", *more, "[cpu, cpu]")
    for wrong in ("cpu", "[]"):
        with pytest.raises(
            UserError, match=r"list such as \[cuda:0, cuda:1\], or null"
        ):
            marble("gtzan_genre", *more, wrong, device=None)
    with pytest.raises(UserError, match="cuda:99: there is no such device here"):
        marble("gtzan_genre", *more, "[cpu, 'cuda:99']", device=None)
    wrong = [
        *(("--seeds", one, "seeds must list") for one in ("5", "[a]", "0", "[0, 0]")),
        ("--seeds", "[-1, 1.5]", r"from 0 on, such as \[0, 1, 2\], got \[-1, 1.5\]"),
        ("--untrained_seeds", "1", "untrained_seeds must list"),
        ("--beside", "3", "beside must be a list"),
        ("--precision", "bf16", "^precision: only a training follows this"),
        ("--folders", "GTZAN", "folders must be a mapping"),
        ("--folders", "{gtzan: x}", "no data set 'gtzan'. There are: .*GTZAN"),
        ("--folders", "{GTZAN: x}", "data_root, which is not given"),
        ("--features.folder", "null", "features.folder must be"),
        ("--features.max_windows", "2", "hears whole recordings"),
        ("--tasks", "[gtzan_genre, gtzan_genre]", "both be kept in gtzan_genre.npz"),
        ("--tasks", "[{label: a b}, {label: a_b}]", "'a b' and 'a_b' would both"),
    ]
    labels = "--labels.path", tmp_path
    for option, value, message in wrong:
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        given[option] = value
        experiment = "own" if "label" in value else "gtzan_genre"
        more = labels if experiment == "own" else ()
        pairs = [word for pair in given.items() for word in pair]
        with pytest.raises(UserError, match=message):
            marble(experiment, *pairs, *more)
    assert not (run / "missing").exists()
