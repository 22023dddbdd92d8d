"""The YAML tree of an experiment: reading, writing and walking it.

The tree is ruamel's round-trip form, so comments, tags and the text of ``!ref``
expressions survive until HyperPyYAML builds the objects.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import difflib
import io
from collections.abc import Iterable, Iterator
from typing import Any

from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import TaggedScalar
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

# At its first use HyperPyYAML teaches ruamel, for the whole process, that a plain
# "(1, 2)" is a !tuple. Done here, no text depends on what was loaded before it.
load_hyperpyyaml("{}")

CALLABLE_TAGS = ("!new:", "!name:", "!apply:", "!applyref:", "!module:")

Location = tuple[Any, ...]


class ExperimentError(ValueError):
    """What is wrong with an experiment file or its command line, for the user.

    Example
    -------
    >>> raise ExperimentError("muq.yaml: unknown key 'sede'")
    Traceback (most recent call last):
    ...
    muq_plugins.experiment.tree.ExperimentError: muq.yaml: unknown key 'sede'
    """


def parse_yaml(text: str, source: str) -> Any:
    """Parse one YAML document without building any object.

    Arguments
    ---------
    text : str
        The document.
    source : str
        The file or option it came from, for error messages.

    Returns
    -------
    Any
        ruamel round-trip node: mapping, list, tagged scalar or plain value.

    Raises
    ------
    ExperimentError
        If the text is not valid YAML or has a key twice.

    Example
    -------
    >>> parse_yaml("a: 1\\na: 2", "muq.yaml")
    Traceback (most recent call last):
    ...
    muq_plugins.experiment.tree.ExperimentError: muq.yaml, line 2: the key "a" ...
    """
    try:
        return _yaml().load(text)
    except DuplicateKeyError as error:
        key = error.problem.split('"')[1]
        line = error.problem_mark.line + 1
        raise ExperimentError(
            f'{source}, line {line}: the key "{key}" is there twice; remove one.'
        ) from error
    except YAMLError as error:
        raise ExperimentError(f"{source} is not valid YAML: {error}") from error


def dump_yaml(tree: Any) -> str:
    """Write a tree as YAML text.

    Arguments
    ---------
    tree : Any
        Round-trip node.

    Returns
    -------
    str
        The text, with the comments and tags of the tree.

    Raises
    ------
    ExperimentError
        If the tree holds an object that YAML has no form for.

    Example
    -------
    >>> dump_yaml(parse_yaml("lr: 1e-4 # peak\\nx: !ref <lr> * 2", "muq.yaml"))
    'lr: 1e-4 # peak\\nx: !ref <lr> * 2\\n'
    """
    stream = io.StringIO()
    try:
        _yaml().dump(tree, stream)
    except YAMLError as error:
        raise ExperimentError(
            f"A value cannot be written as YAML ({error}); use plain Python values."
        ) from error
    return stream.getvalue()


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000  # do not fold long lines that were one line
    return yaml


def tag_of(node: Any) -> str:
    """Tell the YAML tag of a node.

    Arguments
    ---------
    node : Any
        Round-trip node.

    Returns
    -------
    str
        The tag, for example ``"!new:torch.nn.Linear"``; ``""`` if there is none.

    Example
    -------
    >>> tag_of(parse_yaml("!new:torch.nn.Linear {in_features: 2}", "muq.yaml"))
    '!new:torch.nn.Linear'
    """
    return getattr(getattr(node, "tag", None), "value", None) or ""


def is_callable(node: Any) -> bool:
    """Tell whether a node's content is the arguments of a Python callable.

    Arguments
    ---------
    node : Any
        Round-trip node.

    Returns
    -------
    bool
        True for ``!new:``, ``!name:``, ``!apply:``, ``!applyref:``, ``!module:``.

    Example
    -------
    >>> is_callable(parse_yaml("!name:torch.nn.GELU", "muq.yaml"))
    True
    """
    return tag_of(node).startswith(CALLABLE_TAGS)


def is_argument_free(node: Any) -> bool:
    """Tell whether a node is a callable written without any argument.

    Arguments
    ---------
    node : Any
        Round-trip node.

    Returns
    -------
    bool
        True for example for ``!name:torch.nn.GELU`` alone.

    Example
    -------
    >>> is_argument_free(parse_yaml("!new:torch.nn.ReLU {inplace: True}", "a.yaml"))
    False
    """
    return isinstance(node, TaggedScalar) and is_callable(node)


def walk(node: Any, location: Location = ()) -> Iterator[tuple[Location, Any]]:
    """Visit a node and everything below it in the order of the document.

    Arguments
    ---------
    node : Any
        Round-trip node.
    location : tuple
        Keys and list indices that lead to the node.

    Yields
    ------
    tuple
        Location and node.

    Example
    -------
    >>> [where for where, _ in walk({"a": {"b": [1]}})]
    [(), ('a',), ('a', 'b'), ('a', 'b', 0)]
    """
    yield location, node
    if isinstance(node, dict):
        for key, child in node.items():
            yield from walk(child, (*location, key))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from walk(child, (*location, index))


def spell(location: Location) -> str:
    """Spell a location as the command line does.

    Arguments
    ---------
    location : tuple
        Keys and list indices.

    Returns
    -------
    str
        The parts joined by dots.

    Example
    -------
    >>> spell(("encoder", "num_layers"))
    'encoder.num_layers'
    """
    return ".".join(map(str, location))


def hint(name: Any, candidates: Iterable[Any], location: Location = ()) -> str:
    """Say which known key a wrong one most likely meant.

    Arguments
    ---------
    name : Any
        The unknown key.
    candidates : Iterable
        The known keys beside it.
    location : tuple
        Keys that lead to them.

    Returns
    -------
    str
        A clause for the end of a message; empty if there are no candidates.

    Example
    -------
    >>> hint("num_layer", ["seed", "num_layers"], ("encoder",))
    "; the nearest known key is 'encoder.num_layers'"
    """
    known = sorted(map(str, candidates))
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
    if not close:
        return ""
    return f"; the nearest known key is '{spell((*location, close[0]))}'"
