"""Every experiment file resolves, names what exists, and has no key nobody reads."""

import ast
from pathlib import Path

import pytest

from muq_plugins.experiment import resolve_experiment
from muq_plugins.experiment.checks import check_callables
from muq_plugins.experiment.extends import (
    REFERENCE,
    TRAINING_SETTINGS,
    parse_yaml,
    tag_of,
    walk,
)

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted((ROOT / "hparams").rglob("*.yaml"))
SOURCES = sorted([*ROOT.glob("recipes/**/*.py"), *ROOT.glob("muq_plugins/**/*.py")])


def is_hparams(node: ast.AST) -> bool:
    """Tell whether an expression is hparams, self.hparams, experiment.hparams, ..."""
    return getattr(node, "id", getattr(node, "attr", None)) == "hparams"


def keys_read(source: str) -> set[str]:
    """Keys that Python source reads from hparams."""
    keys: set[str | None] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript) and is_hparams(node.value):
            keys.add(getattr(node.slice, "value", None))
        elif isinstance(node, ast.Attribute) and is_hparams(node.value):
            keys.add(node.attr)
        elif isinstance(node, ast.Compare) and is_hparams(node.comparators[0]):
            keys.add(getattr(node.left, "value", None))
        elif isinstance(node, ast.Call) and node.args:
            method = node.func
            if isinstance(method, ast.Attribute) and is_hparams(method.value):
                keys.add(getattr(node.args[0], "value", None))
            elif getattr(method, "id", "") in ("getattr", "hasattr"):
                if is_hparams(node.args[0]):
                    keys.add(getattr(node.args[1], "value", None))
    return {key for key in keys if isinstance(key, str)}


def keys_referred_to(tree: dict) -> set[str]:
    """Top-level keys that !ref and !copy expressions name."""
    keys = set()
    for location, node in walk(tree):
        if tag_of(node) in ("!ref", "!copy"):
            for name in REFERENCE.findall(node.value):
                key = name.replace(".", "[").split("[")[0]
                if location[0] != key:
                    keys.add(key)
    return keys


@pytest.fixture(scope="module")
def trees():
    """All experiment files, resolved."""
    assert EXPERIMENTS, "the folder hparams holds no YAML file"
    return {p: parse_yaml(resolve_experiment(p), str(p)) for p in EXPERIMENTS}


def test_every_key_is_used(trees):
    """Each top-level key is read by the code, by another key, or by SpeechBrain."""
    sources = (path.read_text(encoding="utf-8") for path in SOURCES)
    read_in_code = set().union(*map(keys_read, sources))
    wrong = []
    for path, tree in trees.items():
        used = read_in_code | keys_referred_to(tree) | TRAINING_SETTINGS
        unused = [k for k in tree if k not in used and not k.startswith("__")]
        wrong += [f"{path}: nobody reads {key}" for key in unused]
    assert not wrong, "\n  ".join(["", *wrong])


def test_every_class_and_function_exists_and_takes_its_arguments(trees):
    """Each !new:, !name: and !apply: can be imported and called as written."""
    wrong = []
    for path, tree in trees.items():
        try:
            check_callables(tree)
        except ValueError as error:
            wrong.append(f"{path}: {error}")
    assert not wrong, "\n  ".join(["", *wrong])


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_what_is_saved_beside_results_runs_again(path, tmp_path, monkeypatch):
    """The merged text says the same anywhere, and finds the files of other stages."""
    monkeypatch.chdir(ROOT)
    text = resolve_experiment(path.relative_to(ROOT))
    (tmp_path / "hyperparams.yaml").write_text(text, encoding="utf-8")
    again = resolve_experiment(tmp_path / "hyperparams.yaml")
    assert again.split() == text.split()  # comments may move to another line
    for location, node in walk(parse_yaml(again, "again")):
        if location[-1:] == ("experiment",) and location[1:]:
            assert (ROOT / node).is_file(), f"{location}: {node}"


@pytest.mark.parametrize(
    "source",
    [
        "hparams['key']",
        "self.hparams.key",
        "experiment.hparams['key']",
        "hparams.get('key', None)",
        "getattr(self.hparams, 'key')",
        "hasattr(hparams, 'key')",
        "'key' in hparams",
        "brain(hparams=hparams, folder=hparams['key'])",
    ],
)
def test_every_way_of_reading_a_key_is_seen(source):
    """The helper finds keys however they are read."""
    assert "key" in keys_read(source)


def test_keys_that_are_not_read_are_not_seen():
    """Other mappings and computed keys do not count."""
    assert keys_read("options['key']; hparams[key]; other.key") == set()


def test_references_count_as_use():
    """A key is used if another one refers to it, not if only it itself does."""
    tree = parse_yaml("a: 1\nb:\n  c: !ref <a> + 1\n  d: !ref <b[c]>\n", "test")
    assert keys_referred_to(tree) == {"a"}
