"""``!ref`` and ``!copy`` expressions: checking, ordering and moving them.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import re
from typing import Any

from hyperpyyaml.core import recursive_resolve

from muq_plugins.experiment.tree import (
    ExperimentError,
    Location,
    hint,
    spell,
    tag_of,
    walk,
)

REFERENCE = re.compile(r"<([^>]*)>")


def settle_references(tree: dict, source: str) -> None:
    """Check every reference of a tree and make its order of keys irrelevant.

    HyperPyYAML resolves references from top to bottom. At a reference to a reference
    that comes later it stops with an obscure error, or puts the later expression into
    an arithmetic one without brackets. Files that extend others cannot choose the
    order of keys, so such a reference is replaced, in place, by the expression that
    it points to.

    Arguments
    ---------
    tree : dict
        Round-trip mapping of the whole experiment; changed in place.
    source : str
        The file it came from, for error messages.

    Raises
    ------
    ExperimentError
        If a reference points nowhere or in a circle.

    Example
    -------
    >>> from muq_plugins.experiment.tree import dump_yaml, parse_yaml
    >>> tree = parse_yaml("a: !ref <b>\\nb: !ref <c>\\nc: 3", "muq.yaml")
    >>> settle_references(tree, "muq.yaml")
    >>> print(dump_yaml(tree))
    a: !ref <c>
    b: !ref <c>
    c: 3
    <BLANKLINE>
    """
    references = [(where, node) for where, node in walk(tree) if _is_reference(node)]
    for where, node in references:
        place = f"{source}: {spell(where)}: !ref {node.value}"
        try:
            _check_targets(tree, node)
        except KeyError as error:
            name, nearest = error.args
            raise ExperimentError(f"{place}: there is no <{name}>{nearest}.") from error
        except RecursionError as error:
            raise ExperimentError(f"{place}: the references go in a circle.") from error

    resolved: set[int] = set()
    for _, node in references:
        while _settle_one(tree, node, resolved):
            pass
        resolved.add(id(node))


def move_references(tree: dict, location: Location) -> None:
    """Rewrite the references of a file that becomes a part of another one.

    Arguments
    ---------
    tree : dict
        Round-trip mapping of an included file; changed in place.
    location : tuple
        Keys under which the mapping will stand.

    Example
    -------
    >>> from muq_plugins.experiment.tree import dump_yaml, parse_yaml
    >>> tree = parse_yaml("width: 8\\ntwice: !ref <width> * 2", "model.yaml")
    >>> move_references(tree, ("models", "student"))
    >>> tree["twice"].value
    '<models[student][width]> * 2'
    """
    root, *rest = map(str, location)
    prefix = root + "".join(f"[{part}]" for part in rest)
    for _, node in walk(tree):
        if _is_reference(node):
            node.value = re.sub(r"<([^>\[.]+)", rf"<{prefix}[\1]", node.value)


def _is_reference(node: Any) -> bool:
    return tag_of(node) in ("!ref", "!copy")


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
