"""An experiment file, all that it extends and includes, and what the command line says,
merged into one text that stands alone.
"""

import contextlib
import io
import math
import os
import pickle
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml
from hyperpyyaml.core import recursive_resolve
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError
from speechbrain.utils.run_opts import HELP_TEXTS, RunOptions

from muq_plugins.errors import UserError, nearest
from muq_plugins.shipped import nearest_experiment

#: Every name that SpeechBrain's Brain takes from the hparams if it finds it there.
RUN_OPTIONS = frozenset(field.name for field in fields(RunOptions))

#: Run options that take any number of values.
LIST_OPTIONS = frozenset({"compile_module_keys"})

_SHORT = "give --budget tiny, and another --output_folder"
_COMPILE = "give --compile"
_PROFILE = "run it under py-spy or torch.profiler"
#: Run options that nothing here follows, and what to do instead. With ``debug``,
#: SpeechBrain keeps checkpoints where they are lost; with ``test_only`` it loads none.
USELESS_OPTIONS = {
    "test_only": "the same command on a finished run trains nothing and tests it again",
    **dict.fromkeys(
        ("debug", "debug_batches", "debug_epochs", "debug_persistently"), _SHORT
    ),
    **dict.fromkeys(("jit", "jit_module_keys"), _COMPILE),
    **dict.fromkeys(("profile_training", "profile_steps", "profile_warmup"), _PROFILE),
    "data_parallel_backend": "start several processes with torchrun",
    "grad_accumulation_factor": "it follows from clips_per_update, batch_size and the "
    "number of processes",
}

#: Run options that exist on the command line (the others SpeechBrain finds out).
COMMAND_LINE_OPTIONS = (
    (RUN_OPTIONS & HELP_TEXTS.keys()) | LIST_OPTIONS
) - USELESS_OPTIONS.keys()

#: Run options without a value: giving one switches it on.
FLAG_OPTIONS = frozenset(
    field.name
    for field in fields(RunOptions)
    if field.default is False and field.name in COMMAND_LINE_OPTIONS
)

#: Run options that an experiment file may set as top-level keys. They change what
#: is learned or when it is saved, so they belong to the experiment and into the
#: file that reproduces it; SpeechBrain's Brain reads them from the hparams. All
#: other run options say how this one run is carried out (device, debugging,
#: compilation, distribution); in a file they would silently follow it to machines
#: where they are wrong, so there they are an error.
TRAINING_SETTINGS = frozenset(
    {
        "precision",
        "eval_precision",
        "max_grad_norm",
        "optimizer_step_limit",
        "nonfinite_patience",
        "skip_nonfinite_grads",
        "ckpt_interval_minutes",
        "ckpt_interval_steps",
        "remove_vector_weight_decay",
        "find_unused_parameters",
    }
)


# At its first use HyperPyYAML teaches ruamel, for the whole process, that a plain
# "(1, 2)" is a !tuple. Done here, no text depends on what was loaded before it.
load_hyperpyyaml("{}")

CALLABLE_TAGS = ("!new:", "!name:", "!apply:", "!applyref:", "!module:")

# What experiments of before call by another name: old to new, read here, never written.
MOVED = {
    "muq_plugins.inference.teacher.teacher_features": (
        "muq_plugins.inference.muq.teacher_features"
    ),
    "muq_plugins.evaluation.probing.cache.FeatureSettings": (
        "muq_plugins.evaluation.probing.features.FeatureSettings"
    ),
    # These take one folder instead of two, as an old experiment is told then.
    **{
        f"muq_plugins.data.datasets.prepare_{old}": f"muq_plugins.data.datasets.{new}"
        for old, new in {
            "gtzan": "gtzan.gtzan_genre",
            "magnatagatune": "magnatagatune.magnatagatune",
            "mtg_jamendo": "mtg_jamendo.mtg_jamendo",
            "wikimt_x": "wikimt_x.wikimt_x",
        }.items()
    },
}
CALL = re.compile(rf"({'|'.join(CALLABLE_TAGS)})([\w.]+)")

Location = tuple[Any, ...]


def parse_yaml(text: str, source: str) -> Any:
    """Parse one YAML document without building any object; moved names are new ones."""
    text = CALL.sub(lambda call: call[1] + MOVED.get(call[2], call[2]), text)
    try:
        return pickle.loads(_parsed(text))
    except DuplicateKeyError as error:
        key = error.problem.split('"')[1]
        line = error.problem_mark.line + 1
        raise UserError(
            f'{source}, line {line}: the key "{key}" is there twice; remove one.'
        ) from error
    except YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {error}") from error


@lru_cache(maxsize=256)
def _parsed(text: str) -> bytes:
    """A tree that nobody else changes, thirty times sooner than it was parsed.

    A study reads the same files for each of its runs.
    """
    return pickle.dumps(_yaml().load(text))


def dump_yaml(tree: Any) -> str:
    """Write a tree as YAML text."""
    stream = io.StringIO()
    try:
        _yaml().dump(tree, stream)
    except YAMLError as error:
        raise UserError(
            f"A value cannot be written as YAML ({error}); use plain Python values."
        ) from error
    return stream.getvalue()


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000  # do not fold long lines that were one line
    return yaml


def tag_of(node: Any) -> str:
    """Tell the YAML tag of a node."""
    return getattr(getattr(node, "tag", None), "value", None) or ""


def is_callable(node: Any) -> bool:
    """Tell whether a node's content is the arguments of a Python callable."""
    return tag_of(node).startswith(CALLABLE_TAGS)


def is_argument_free(node: Any) -> bool:
    """Tell whether a node is a callable written without any argument."""
    return isinstance(node, TaggedScalar) and is_callable(node)


def walk(node: Any, location: Location = ()) -> Iterator[tuple[Location, Any]]:
    """Visit a node and everything below it in the order of the document."""
    yield location, node
    if isinstance(node, dict):
        for key, child in node.items():
            yield from walk(child, (*location, key))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from walk(child, (*location, index))


def spell(location: Location) -> str:
    """Spell a location as the command line does."""
    return ".".join(map(str, location))


def hint(name: Any, candidates: Iterable[Any], location: Location = ()) -> str:
    """Say which known key a wrong one most likely meant."""
    if not (close := nearest(name, map(str, candidates))):
        return ""
    return f"; the nearest known key is '{spell((*location, close))}'"


def elsewhere(name: Any, tree: dict) -> str:
    """Say where in a tree a key is, or one like it, that was looked for at its top."""
    places: dict[str, list[str]] = {}
    for location, _ in walk(tree):
        if location and not any(isinstance(part, int) for part in location):
            places.setdefault(str(location[-1]), []).append(repr(spell(location)))
    if name in places:
        return f"; here it is {' or '.join(places[name])}"
    if (near := nearest(name, places)) and near not in tree:
        return f"; the nearest known key is {' or '.join(places[near])}"
    return ""


REFERENCE = re.compile(r"<([^>]*)>")


def settle_references(tree: dict, source: str) -> None:
    """Check every reference of a tree and make its order of keys irrelevant.

    HyperPyYAML resolves references from top to bottom. At a reference to a reference
    that comes later it stops with an obscure error, or puts the later expression into
    an arithmetic one without brackets. Files that extend others cannot choose the
    order of keys, so such a reference is replaced, in place, by the expression that
    it points to.
    """
    references = [(where, node) for where, node in walk(tree) if _is_reference(node)]
    for where, node in references:
        place = f"{source}: {spell(where)}: !ref {node.value}"
        try:
            _check_targets(tree, node)
        except KeyError as error:
            name, nearest = error.args
            raise UserError(f"{place}: there is no <{name}>{nearest}.") from error
        except RecursionError as error:
            raise UserError(f"{place}: the references go in a circle.") from error

    resolved: set[int] = set()
    for _, node in references:
        while _settle_one(tree, node, resolved):
            pass
        resolved.add(id(node))


def move_references(tree: dict, location: Location) -> None:
    """Rewrite the references of a file that becomes a part of another one."""
    root, *rest = map(str, location)
    prefix = root + "".join(f"[{part}]" for part in rest)
    for _, node in walk(tree):
        if _is_reference(node):
            node.value = re.sub(r"<([^>\[.]+)", rf"<{prefix}[\1]", node.value)


def _is_reference(node: Any) -> bool:
    return tag_of(node) in ("!ref", "!copy")


def roots_of(node: Any) -> set[str]:
    """The keys of the file that a part of it refers to."""
    some = [one for _, one in walk(node) if _is_reference(one)]
    names = [name for one in some for name in REFERENCE.findall(one.value)]
    return {re.split(r"[.\[]", name)[0] for name in names}


def _check_targets(tree: dict, node: Any) -> None:
    for name in REFERENCE.findall(node.value):
        target = _find(tree, name)
        if _is_reference(target):
            _check_targets(tree, target)


def _find(tree: dict, name: str) -> Any:
    """Find ``key[sub][sub].attribute``; KeyError(name, hint) if it is not there."""
    node: Any = tree
    location: Location = ()
    for part in name.split(".", maxsplit=1)[0].split("["):
        key = part.strip("]")
        node = _follow(tree, node)
        if not isinstance(node, dict) or key not in node:
            keys = node if isinstance(node, dict) else ()
            raise KeyError(name, hint(key, keys, location))
        node = node[key]
        location = (*location, key)
    return node


def _settle_one(tree: dict, node: Any, resolved: set[int]) -> bool:
    """Replace one reference to a later reference; tell whether there was one."""
    for name in REFERENCE.findall(node.value):
        target = _find(tree, name)
        if not _is_reference(target) or id(target) in resolved:
            continue
        expression = target.value
        if not (REFERENCE.fullmatch(node.value) or REFERENCE.fullmatch(expression)):
            if isinstance(recursive_resolve(expression, [], tree), (int, float)):
                expression = f"({expression})"
        node.value = node.value.replace(f"<{name}>", expression)
        return True
    return False


def _follow(tree: dict, node: Any) -> Any:
    """Go on from a reference to the node that it stands for."""
    if _is_reference(node) and (whole := REFERENCE.fullmatch(node.value)):
        return _follow(tree, _find(tree, whole[1]))
    return node


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
        raise UserError(f"The files build on each other in a circle: {circle}")
    chain = (*chain, here)
    tree = _read(path)
    base_name = tree.pop(EXTENDS, None)
    if base_name is not None:
        if not isinstance(base_name, str):
            raise UserError(f"{path}: '{EXTENDS}' must name one file.")
        differences = tree
        tree = _resolve_file(path.parent / base_name, chain)
        _merge(tree, differences, str(path))
    # After the merge, so that a file included by an extending file replaces a
    # mapping of the base like any other tag does.
    _insert_includes(tree, path.parent, chain)
    return tree


def _read(path: Path) -> dict:
    if not path.is_file():
        raise UserError(_describe_missing(path))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict) or tag_of(tree):
        raise UserError(
            f"{path} must be a YAML mapping of keys to values at its top level; use "
            f"'{EXTENDS}: other.yaml' to build on another file."
        )
    _find_stages(tree, path.parent)
    for key in tree:
        refuse_useless(key, f"{path}: {key}")
        if key in RUN_OPTIONS - TRAINING_SETTINGS:
            raise UserError(
                f"{path}: the key '{key}' is a run option of SpeechBrain, which "
                f"would take its value from here. Rename the key, or remove it and "
                f"give --{key} on the command line."
            )
    return tree


def refuse_useless(key: str, named: str) -> None:
    """Refuses a run option that would do nothing, or harm."""
    if key in USELESS_OPTIONS:
        raise UserError(
            f"{named} is an option of SpeechBrain's that has no place here: "
            f"{USELESS_OPTIONS[key]}."
        )


def _find_stages(tree: dict, folder: Path) -> None:
    """Lets the files of other stages be found from where the command is run.

    They are named from the file that names them, which is not where its text is merged
    into or saved beside results. Like all else, they start from the working folder.
    """
    for location, node in walk(tree):
        name = node.get("experiment") if isinstance(node, dict) else None
        if location and isinstance(name, str) and (folder / name).is_file():
            node["experiment"] = os.path.normpath(folder / name)


def _describe_missing(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder: give an experiment file in it"
    # Also where experiments of the same collection are: they may have moved.
    collection = next((p for p in path.parents if p.name == "hparams"), path.parent)
    if moved := sorted(map(str, collection.rglob(path.name))):
        return f"{path} does not exist; there is {' and '.join(moved)}"
    beside = sorted(file.name for file in path.parent.glob("*.yaml"))
    if close := nearest(
        path.stem, [name.removesuffix(".yaml") for name in beside], 0.7
    ):
        return f"{path} does not exist; the nearest is {path.parent / close}.yaml"
    if close := nearest_experiment(path.name, 0.7):
        return f"{path} does not exist; the nearest that comes along is {close}"
    if not path.parent.is_dir():
        return f"{path} does not exist, nor does its folder."
    if not beside:
        return (
            f"{path} does not exist; its folder has no YAML files. `muq-plugins "
            f"recipes` lists those that come along"
        )
    return f"{path} does not exist; beside it are: {', '.join(beside)}"


def _merge(base: dict, changes: dict, source: str, location: Location = ()) -> None:
    for key, value in changes.items():
        here = (*location, key)
        removed = tag_of(value) == REMOVE
        open_to_new = is_callable(base) or OPEN_MAPPINGS & {*location[-1:]}
        if key not in base and (removed or not open_to_new):
            if removed or location or key not in TRAINING_SETTINGS:
                where = "" if location else elsewhere(key, base)
                raise UserError(
                    f"{source}: unknown key '{spell(here)}'"
                    f"{where or hint(key, base, location)}."
                )
        if removed:
            del base[key]
            base.removed = {**getattr(base, "removed", {}), key: source}
        else:
            _check_kind(base, value, source, here)
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
        raise UserError(
            f"{source}: '{spell(location)}' takes its arguments by position; write "
            f"the whole call again, with its tag {tag_of(old)}."
        )
    # An empty mapping has no keys that could be misspelt.
    if not isinstance(old, dict) or not (old or is_callable(old)):
        return new
    _merge(old, new, source, location)
    return old


def _check_kind(base: dict, new: Any, source: str, location: Location) -> None:
    """Refuses a plain value where there was a section or a part, which would end in a
    traceback, and words where there was a number or a choice: "no" would count as true.
    """
    if tag_of(new) or new is None or isinstance(new, dict):
        return
    key = location[-1]
    old, tag = base.get(key), tag_of(base.get(key))
    if tag.startswith(("!new:", "!name:")) or isinstance(old, dict) and old and not tag:
        keys = [*old] if isinstance(old, dict) else []
        remedy = f"write the whole call again, with its tag {tag}"
        if keys:
            remedy = f"change its keys, such as '{spell((*location, keys[0]))}'"
        if f"{key}_folder" in base:
            remedy += f"; a folder goes to '{spell(location)}_folder'"
        raise UserError(
            f"{source}: '{spell(location)}' is {new!r}, which cannot take the place of "
            f"{tag.partition(':')[2] or 'a section'}: {remedy}."
        )
    if not isinstance(new, str):
        return
    expected = {bool: "True or False", int: "a number", float: "a number"}
    words = next((w for kind, w in expected.items() if isinstance(old, kind)), "")
    with contextlib.suppress(ValueError):
        if words == "a number" and math.isfinite(float(new)):
            words = ""
    if words:
        raise UserError(
            f"{source}: '{spell(location)}' is {new!r}, but must be {words}, as it is "
            f"in the file that this changes ({old})."
        )


def _override(tree: dict, key: str, value: Any) -> None:
    """Change the value at a dotted key, which must exist as far as its parent."""
    *parents, last = key.split(".")
    node = tree
    for depth, part in enumerate(parents):
        if parents[:depth][-1:] in (["overrides"], ["budget"]) and part not in node:
            # Of another file, where a key is written with its dots.
            rest = ".".join([*parents[depth:], last])
            _merge(node, {rest: value}, f"--{key}", tuple(parents[:depth]))
            return
        _check_option(tree, node, key, depth)
        if is_argument_free(node[part]):
            node[part] = _combine(node[part], {}, f"--{key}", ())
        node = node[part]
        if not isinstance(node, dict):
            known = ".".join(parents[: depth + 1])
            if node is None:
                raise UserError(
                    f"--{key}: '{known}' is null in this experiment, so it has no "
                    f"'{'.'.join([*parents[depth + 1 :], last])}' to change."
                )
            raise UserError(
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
            raise UserError(
                f"--{key} is unknown. Options cannot be abbreviated; did you mean "
                + " or ".join(f"--{name}" for name in full)
                + "?"
            )
        known |= COMMAND_LINE_OPTIONS
    known_at = elsewhere(part, tree) or hint(part, known, tuple(parents))
    if source := getattr(node, "removed", {}).get(part):
        known_at = (
            f"; {source} removes '{spell((*parents, part))}' from what it extends"
        )
    also = ""
    if node is tree and "experiments" in tree:
        also = f". A setting of all runs of a study is --budget.{key}"
    raise UserError(
        f"--{key} is neither a key of the experiment nor a run option{known_at}{also}."
    )


def _insert_includes(tree: dict, folder: Path, chain: tuple[Path, ...]) -> None:
    """Replace ``!include:`` nodes by the files, so that the text stands alone."""
    includes = [(w, n) for w, n in walk(tree) if tag_of(n).startswith(INCLUDE)]
    for location, node in includes:
        if any(isinstance(part, int) for part in location):
            raise UserError(
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
