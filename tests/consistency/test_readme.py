"""The commands, links and pictures of the documents are real."""

import math
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from hyperpyyaml import load_hyperpyyaml
from typer.main import get_command

import muq_plugins
from muq_plugins.brains.processes import share_clips
from muq_plugins.experiment import resolve_experiment, save_experiment
from muq_plugins.experiment.command_line import parse_arguments
from muq_plugins.experiment.extends import dump_yaml, parse_yaml
from muq_plugins.inference.cli.main import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for g in ("*.md", "docs/*.md", "hparams/*.md", "recipes/**/*.md")
    for path in ROOT.glob(g)
)
WITH_COMMANDS = DOCUMENTS + sorted(ROOT.glob("recipes/**/*.py"))

TEST_COMMAND = re.compile(r"^<!-- test-command -->\n```\w*\n(.*?)\n```$", re.M | re.S)
RUN = re.compile(r"(?:python3?|torchrun)\s[^\n`|&;]*?(recipes/\S+\.py)([^\n`|&;>#]*)")
TRAINING = re.compile(r"torchrun ([^\n`|&;]*?)recipes/MuQ/train\.py([^\n`|&;>#]*)")
CONSOLE = re.compile(r"^muq-plugins ([^\n#]+)", re.M)
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)|<img[^>]*\ssrc=[\"']([^\"']+)")


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Recipes that a document runs, each with its arguments."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [(script, shlex.split(rest)) for script, rest in RUN.findall(joined)]


def check_command(script: str, argv: list[str]) -> None:
    """Fail if a recipe, its experiment or one of its options does not exist."""
    assert (ROOT / script).is_file(), f"{script} does not exist"
    if argv in (["--help"], ["-h"]):
        return
    # "..." stands for any value in a document, but is no YAML.
    command = parse_arguments([re.sub(r"(^|=)\.\.\.$", r"\1x", arg) for arg in argv])
    resolve_experiment(ROOT / command.path, command.overrides)


def links(text: str) -> list[str]:
    """Relative targets of the links and pictures of a document."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    targets = [link or image for link, image in LINK.findall(prose)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """What can stand behind the # of a link to a document: its headings."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.M)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def is_there(link: str, document: Path) -> bool:
    """Whether a relative link leads to a file, and to a heading in it."""
    name, _, anchor = link.partition("#")
    target = document.parent / name if name else document
    if not target.exists() or not anchor:
        return target.exists()
    return anchor in anchors(target.read_text(encoding="utf-8"))


def test_readme_has_the_test_command():
    """.ci/run and newcomers find the command that runs the tests."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert TEST_COMMAND.findall(text) == ["pip install -e '.[test]' && pytest"]


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_of(path):
    """Each command names an existing recipe, experiment file, keys and options."""
    for script, argv in commands(path.read_text(encoding="utf-8")):
        try:
            check_command(script, argv)
        except (AssertionError, ValueError) as error:
            pytest.fail(f"{path}: {script} {shlex.join(argv)}: {error}")


def test_towers_are_distilled_from_clips_of_the_length_that_they_know():
    """A run of a MuQ-MuLan as a teacher has the clip_seconds of its experiment."""
    seen = 0
    for path in WITH_COMMANDS:
        for _, argv in commands(path.read_text(encoding="utf-8")):
            taught = re.search(
                r"distil_mulan.* --teacher results/(\w+)/", " ".join(argv)
            )
            if taught:
                student = parse_arguments(argv)
                own = resolve_experiment(ROOT / student.path, student.overrides)
                known = resolve_experiment(ROOT / f"hparams/{taught[1]}.yaml")
                both = {parse_yaml(x, path)["clip_seconds"] for x in (own, known)}
                assert len(both) == 1, f"{path}: {shlex.join(argv)}: {both}"
                seen += 1
    assert seen >= 2


def test_processes_can_share_the_batches():
    """Each training by torchrun has as many processes as all of its stages can take."""
    seen = set()
    for path in DOCUMENTS:
        text = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
        for options, rest in TRAINING.findall(text):
            counts = re.findall(r"--(?:nnodes|nproc_per_node)=(\d+)", options)
            processes = math.prod(map(int, counts))
            command = parse_arguments(shlex.split(rest))
            merged = resolve_experiment(ROOT / command.path, command.overrides)
            tree = parse_yaml(merged, path)
            for stage in (tree, {**tree, **(tree.get("tokenizer") or {})}):
                share_clips(stage["clips_per_update"], stage["batch_size"], processes)
            seen.add(processes)
    assert seen >= {2, 8, 32}


def output_folder(text: str) -> str:
    """Where an experiment writes, without building anything else of it."""
    tree = parse_yaml(text, "the experiment")
    names = ("seed", "experiment", "study", "encoder", "model", "protocol")
    names += ("tasks", "output_folder")
    known = {n: tree[n] for n in names if not isinstance(tree.get(n, {}), dict)}
    return load_hyperpyyaml(dump_yaml(known))["output_folder"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_work_in_their_order_in_one_clone(path, tmp_path):
    """No command finds the results of another experiment where its own shall go."""
    for script, argv in commands(path.read_text(encoding="utf-8")):
        if Path(script).stem in ("extract_labels", "measure_statistics"):
            continue  # they make no run
        command = parse_arguments([re.sub(r"(^|=)\.\.\.$", r"\1x", a) for a in argv])
        text = resolve_experiment(ROOT / command.path, command.overrides)
        if "!PLACEHOLDER" in text or not re.search("^output_folder:", text, re.M):
            continue
        run = SimpleNamespace(path=command.path, yaml_text=text, argv=argv, hparams={})
        run.run_opts = command.run_opts
        # Also an absolute one stays below that of the test.
        folder = tmp_path / str(output_folder(text)).lstrip("/")
        study = "\nruns_folder:" in text
        try:
            save_experiment(run, folder, study)
        except ValueError as error:
            pytest.fail(f"{path}: {script} {shlex.join(argv)}: {error}")
        (folder / "inference").mkdir(exist_ok=True)


def test_console_commands():
    """Each use of the console command has arguments that it takes.

    What one writes is not in the way of another one with other settings.
    """
    written = {}
    for path in DOCUMENTS:
        for line in CONSOLE.findall(path.read_text(encoding="utf-8")):
            name, *argv = shlex.split(line)
            command = get_command(app).get_command(None, name)
            assert command is not None, f"{path}: muq-plugins {name}"
            try:
                given = command.make_context(name, argv).params
            except Exception as error:  # says what the command does not take
                pytest.fail(f"{path}: muq-plugins {line}: {error}")
            if name == "embed" or given.get("folder"):  # an index that is made
                before = written.setdefault(given["out"], (path, given))
                assert before[1] == given, f"{path}: muq-plugins {line}: {before}"


def test_links():
    """Each relative link and picture leads to a file, and to a heading in it."""
    missing = [
        f"{path}: {target}"
        for path in DOCUMENTS
        for target in links(path.read_text(encoding="utf-8"))
        if not is_there(target, path)
    ]
    assert not missing, "\n  ".join(["these do not exist:", *missing])


def test_commands_are_found():
    """The helper sees commands in blocks, in tables and over several lines."""
    text = (
        "```bash\npip install -e . && python recipes/A/a.py hparams/a.yaml\n```\n"
        "| `python recipes/A/b.py hparams/b.yaml --data_folder ...` | text |\n"
        "    torchrun --nproc_per_node=2 recipes/A/c.py \\\n    c.yaml --x 'a b' # so\n"
    )
    assert commands(text) == [
        ("recipes/A/a.py", ["hparams/a.yaml"]),
        ("recipes/A/b.py", ["hparams/b.yaml", "--data_folder", "..."]),
        ("recipes/A/c.py", ["c.yaml", "--x", "a b"]),
    ]


def test_links_are_found():
    """The helper sees links and pictures, and leaves addresses alone."""
    text = (
        "[a](docs/a.md#part) ![b](b.png) <img width=3 src='c.png'> [d](https://d.org)"
        "\n```\n[e](e.md)\n```\n[f](#part)"
    )
    assert links(text) == ["docs/a.md#part", "b.png", "c.png", "#part"]


def test_headings_are_found(tmp_path):
    """A link to a heading that has been renamed is noticed."""
    (tmp_path / "a.md").write_text("# A: the `part`, 2\n```\n# no heading\n```\n")
    (tmp_path / "b.md").write_text("[a](a.md#a-the-part-2)\n## Here\n")
    there = [
        link
        for link in ("a.md", "a.md#a-the-part-2", "#here", "a.md#no-heading", "c.md")
        if is_there(link, tmp_path / "b.md")
    ]
    assert there == ["a.md", "a.md#a-the-part-2", "#here"]


def test_wrong_commands_are_noticed(tmp_path, monkeypatch):
    """The check fails for each thing that can be wrong."""
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "train.py").touch()
    (tmp_path / "a.yaml").write_text("seed: 1\ndata_folder: !PLACEHOLDER\n")
    check_command(
        "train.py", ["a.yaml", "--seed=3", "--data_folder", "...", "--compile"]
    )
    with pytest.raises(AssertionError, match="tran.py does not exist"):
        check_command("tran.py", ["a.yaml"])
    with pytest.raises(ValueError, match="b.yaml does not exist"):
        check_command("train.py", ["b.yaml"])
    with pytest.raises(ValueError, match="--sede is neither"):
        check_command("train.py", ["a.yaml", "--sede", "3"])


def test_what_a_release_names_twice_is_the_same():
    cited = parse_yaml((ROOT / "CITATION.cff").read_text(), "CITATION.cff")
    assert cited["version"] == muq_plugins.__version__
    setup = (ROOT / "setup.py").read_text()
    image = (ROOT / "docs" / "examples" / "Dockerfile").read_text()
    ranges = re.findall(r'"(torch(?:audio)?>=[^"]+)"', image)
    assert len(ranges) == 2 and all(f'"{name}",' in setup for name in ranges)
    extras = re.search(r"/src\[([^]]+)\]", image)[1].split(",")
    assert extras and all(f'    "{name}": [' in setup for name in extras)
