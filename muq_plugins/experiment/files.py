"""Experiment files that extend others, and overrides on top of them.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import os
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from muq_plugins.experiment.references import move_references, settle_references
from muq_plugins.experiment.run_options import (
    COMMAND_LINE_OPTIONS,
    RUN_OPTIONS,
    TRAINING_SETTINGS,
)
from muq_plugins.experiment.tree import (
    ExperimentError,
    Location,
    dump_yaml,
    hint,
    is_argument_free,
    is_callable,
    parse_yaml,
    spell,
    tag_of,
    walk,
)

EXTENDS = "extends"
INCLUDE = "!include:"
REMOVE = "!remove"
# Mappings that may get keys their base does not name: those of another file, which
# checks them itself, and the experiments of a study.
OPEN_MAPPINGS = frozenset({"overrides", "budget", "experiments", "probes"})


def resolve_experiment(
    path: str | os.PathLike, overrides: dict[str, Any] | None = None
) -> str:
    """Merge an experiment file, all that it extends and includes, and overrides.

    ``extends: muq.yaml`` at the top of a file takes over that file; the other lines
    are the differences. Scalars and lists replace; mappings merge, and so do the
    arguments of a ``!new:X`` with the same or no new tag; another tag replaces the
    whole. A key that the base does not know is an error, unless it is an argument of
    a callable, in one of `OPEN_MAPPINGS` or a training setting of SpeechBrain.
    ``key: !remove`` takes out a key that the variant has no use for, so that giving it
    is an error there.

    Arguments
    ---------
    path : str or PathLike
        The experiment file.
    overrides : dict, optional
        New values, by dotted key (``{"encoder.num_layers": 4}``), with the same
        rules. Texts are taken literally.

    Returns
    -------
    str
        YAML text in the order of the base file, without ``extends`` and
        ``!include``, that HyperPyYAML loads by itself.

    Raises
    ------
    ExperimentError
        If a file is missing or wrong, or a key is unknown.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "muq.yaml").write_text("seed: 1\\nlr: 5e-4 # peak\\n")
    >>> _ = (folder / "slow.yaml").write_text("extends: muq.yaml\\nlr: 1e-4\\n")
    >>> print(resolve_experiment(folder / "slow.yaml", {"seed": 7}))
    seed: 7
    lr: 1e-4 # peak
    <BLANKLINE>
    """
    path = Path(path)
    tree = _resolve_file(path, ())
    for key, value in (overrides or {}).items():
        _override(tree, key, value)
    _insert_includes(tree, Path.cwd(), ())
    settle_references(tree, str(path))
    return dump_yaml(tree)


def _resolve_file(path: Path, chain: tuple[Path, ...]) -> dict:
    here = path.resolve()
    if here in chain:
        circle = " -> ".join(file.name for file in [*chain, here])
        raise ExperimentError(f"The files build on each other in a circle: {circle}")
    chain = (*chain, here)
    tree = _read(path)
    base_name = tree.pop(EXTENDS, None)
    if base_name is not None:
        if not isinstance(base_name, str):
            raise ExperimentError(f"{path}: '{EXTENDS}' must name one file.")
        differences = tree
        tree = _resolve_file(path.parent / base_name, chain)
        _merge(tree, differences, str(path))
    # After the merge, so that a file included by an extending file replaces a
    # mapping of the base like any other tag does.
    _insert_includes(tree, path.parent, chain)
    return tree


def _read(path: Path) -> dict:
    if not path.is_file():
        raise ExperimentError(_describe_missing(path))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path} cannot be read: {error}") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict) or tag_of(tree):
        raise ExperimentError(
            f"{path} must be a YAML mapping of keys to values at its top level; use "
            f"'{EXTENDS}: other.yaml' to build on another file."
        )
    for key in tree:
        if key in RUN_OPTIONS - TRAINING_SETTINGS:
            raise ExperimentError(
                f"{path}: the key '{key}' is a run option of SpeechBrain, which "
                f"would take its value from here. Rename the key, or remove it and "
                f"give --{key} on the command line."
            )
    return tree


def _describe_missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"{path} does not exist, nor does its folder."
    beside = sorted(file.name for file in path.parent.glob("*.yaml"))
    if not beside:
        return f"{path} does not exist; its folder has no YAML files."
    return f"{path} does not exist; beside it are: {', '.join(beside)}"


def _merge(base: dict, changes: dict, source: str, location: Location = ()) -> None:
    for key, value in changes.items():
        here = (*location, key)
        removed = tag_of(value) == REMOVE
        open_to_new = is_callable(base) or OPEN_MAPPINGS & {*location[-1:]}
        if key not in base and (removed or not open_to_new):
            if removed or location or key not in TRAINING_SETTINGS:
                raise ExperimentError(
                    f"{source}: unknown key '{spell(here)}'{hint(key, base, location)}."
                )
        if removed:
            del base[key]
        else:
            base[key] = _combine(base.get(key), value, source, here)


def _combine(old: Any, new: Any, source: str, location: Location) -> Any:
    """Give the node that stands at ``location`` after the change."""
    same_tag = tag_of(new) in ("", tag_of(old))
    if is_argument_free(new) and same_tag:
        return old
    if not isinstance(new, dict) or not same_tag:
        return new
    if is_argument_free(old):
        call = CommentedMap(new)
        call.yaml_set_ctag(old.tag)
        return call
    if is_callable(old) and not isinstance(old, dict):
        raise ExperimentError(
            f"{source}: '{spell(location)}' takes its arguments by position; write "
            f"the whole call again, with its tag {tag_of(old)}."
        )
    # An empty mapping has no keys that could be misspelt.
    if not isinstance(old, dict) or not (old or is_callable(old)):
        return new
    _merge(old, new, source, location)
    return old


def _override(tree: dict, key: str, value: Any) -> None:
    """Change the value at a dotted key, which must exist as far as its parent."""
    *parents, last = key.split(".")
    node = tree
    for depth, part in enumerate(parents):
        _check_option(tree, node, key, depth)
        if is_argument_free(node[part]):
            node[part] = _combine(node[part], {}, f"--{key}", ())
        node = node[part]
        if not isinstance(node, dict):
            known = ".".join(parents[: depth + 1])
            raise ExperimentError(
                f"--{key}: '{known}' is not a mapping but "
                f"{dump_yaml({known: node}).strip()!r}; override what it refers to."
            )
    _check_option(tree, node, key, len(parents))
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    _merge(node, {last: value}, f"--{key}", tuple(parents))


def _check_option(tree: dict, node: dict, key: str, depth: int) -> None:
    """Refuse an unknown part of a dotted key; only here can run options be meant."""
    *parents, part = key.split(".")[: depth + 1]
    open_to_new = is_callable(node) or OPEN_MAPPINGS & {*parents[-1:]}
    if part in node or open_to_new and ".".join((*parents, part)) == key:
        return
    known = set(map(str, node))
    if node is tree:
        if part in TRAINING_SETTINGS:
            return
        full = sorted(name for name in COMMAND_LINE_OPTIONS if name.startswith(part))
        if full:
            raise ExperimentError(
                f"--{key} is unknown. Options cannot be abbreviated; did you mean "
                + " or ".join(f"--{name}" for name in full)
                + "?"
            )
        known |= COMMAND_LINE_OPTIONS
    raise ExperimentError(
        f"--{key} is neither a key of the experiment nor a run option"
        f"{hint(part, known, tuple(parents))}."
    )


def _insert_includes(tree: dict, folder: Path, chain: tuple[Path, ...]) -> None:
    """Replace ``!include:`` nodes by the files, so that the text stands alone."""
    includes = [(w, n) for w, n in walk(tree) if tag_of(n).startswith(INCLUDE)]
    for location, node in includes:
        if any(isinstance(part, int) for part in location):
            raise ExperimentError(
                f"{spell(location)}: a file cannot be included in a list; include it "
                "under a key of its own and use !ref."
            )
        path = folder / tag_of(node)[len(INCLUDE) :]
        included = _resolve_file(path, chain)
        move_references(included, location)
        if isinstance(node, dict):
            _merge(included, node, spell(location))
        parent = tree
        for key in location[:-1]:
            parent = parent[key]
        parent[location[-1]] = included
