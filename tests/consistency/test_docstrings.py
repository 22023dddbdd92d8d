"""The public API has the docstrings that CONTRIBUTING asks for; modules have one."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "muq_plugins"

#: The modules whose exported names are the public API.
PUBLIC = ("muq_plugins", "muq_plugins.lobes", "muq_plugins.brains")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sections(docstring: str) -> dict[str, str]:
    """Split a docstring at its underlined headings."""
    parts = re.split(r"^[ ]*(\w[\w ]*)\n[ ]*-{3,}[ ]*$", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(docstring: str) -> set[str]:
    """Names that the sections Arguments and Attributes explain."""
    names = set()
    for heading in ("Arguments", "Attributes"):
        lines = sections(docstring).get(heading, "").splitlines()
        indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
        for line in lines:
            if line.strip() and len(line) - len(line.lstrip()) == min(indents):
                entry = line.split(" : ")[0].rstrip(": ")
                names |= {name.strip(" *") for name in entry.split(",")}
    return names


def parameters(function: Function) -> list[str]:
    """Names of the parameters of a function, without self and cls."""
    a = function.args
    named = [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]
    names = [argument.arg for argument in named if argument is not None]
    return [name for name in names if is_public(name) and name not in ("self", "cls")]


def is_public(name: str) -> bool:
    """Tell whether a name is part of what others may use."""
    return not name.startswith("_")


def decorators(node: Function | ast.ClassDef) -> set[str]:
    """Last names of the decorators: property, dataclass, setter, ..."""
    names = set()
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call):
            decorator = decorator.func
        names.add(getattr(decorator, "attr", getattr(decorator, "id", "")))
    return names


def fields(node: ast.ClassDef) -> list[str]:
    """Names of the arguments of a dataclass or named tuple."""
    bases = {getattr(base, "id", getattr(base, "attr", "")) for base in node.bases}
    if "dataclass" not in decorators(node) and "NamedTuple" not in bases:
        return []
    lines = [line for line in node.body if isinstance(line, ast.AnnAssign)]
    return [
        line.target.id
        for line in lines
        if is_public(line.target.id)
        and "ClassVar" not in ast.unparse(line.annotation)
        and "init=False" not in ast.unparse(line).replace(" ", "")
    ]


def gives_something(function: Function) -> str | None:
    """The section that a function needs for what it returns or yields."""
    todo = list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, Function | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return "Yields"
        if isinstance(node, ast.Return) and node.value is not None:
            if not (isinstance(node.value, ast.Constant) and node.value.value is None):
                return "Returns"
        todo += ast.iter_child_nodes(node)
    return None


def function_problems(function: Function, class_docstring: str = "") -> Iterator[str]:
    """What is missing in the docstring of a function or method."""
    docstring = ast.get_docstring(function)
    if not docstring:
        yield "no docstring"
        return
    named = documented(docstring)
    if function.name == "forward":
        named |= documented(class_docstring)
    for name in parameters(function):
        if name not in named:
            yield f"argument '{name}' is not in the section Arguments"
    if decorators(function) & {"property", "cached_property"}:
        return  # the docstring of a property says what it is
    needed = gives_something(function)
    found = sections(docstring).keys() | (
        sections(class_docstring).keys() if function.name == "forward" else set()
    )
    if needed and not found & {"Returns", "Yields"}:
        yield f"no section {needed}"


def class_problems(node: ast.ClassDef) -> Iterator[str]:
    """What is missing in the docstrings of a class and its public methods."""
    docstring = ast.get_docstring(node) or ""
    if not docstring:
        yield f"{node.name}: no docstring"
    methods = [line for line in node.body if isinstance(line, Function)]
    arguments = fields(node)
    for method in methods:
        if method.name == "__init__":
            arguments = parameters(method)
    for name in arguments:
        if name not in documented(docstring):
            yield f"{node.name}: argument '{name}' is not in the section Arguments"
    for method in methods:
        if is_public(method.name) and not decorators(method) & {"setter", "overload"}:
            for problem in function_problems(method, docstring):
                yield f"{node.name}.{method.name}: {problem}"


def problems(tree: ast.Module) -> Iterator[str]:
    """What is missing in the docstrings of the public definitions in a source."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            yield from class_problems(node)
        elif isinstance(node, Function) and is_public(node.name):
            for problem in function_problems(node):
                yield f"{node.name}: {problem}"


def overrides(kind: object, problem: str) -> bool:
    """Tell whether a problem is one of a method that a contract above explains."""
    method = problem.split(":")[0].partition(".")[2]
    above = kind.__mro__[1:] if isinstance(kind, type) else ()
    return any(
        inspect.getdoc(vars(base)[method]) for base in above if method in vars(base)
    )


def test_the_public_api_is_documented():
    """Every exported name has its sections: arguments and what it gives."""
    exported = {}
    for home in map(import_module, PUBLIC):
        exported |= {name: getattr(home, name) for name in home.__all__}
    assert len(exported) > 50
    found = []
    for thing in exported.values():
        if not inspect.isclass(thing) and not inspect.isfunction(thing):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
        where = inspect.getsourcefile(thing)
        found += [
            f"{where}: {problem}"
            for problem in problems(tree)
            if not overrides(thing, problem)
        ]
    assert not found, "\n  ".join(["", *found])


def test_every_module_says_what_it_is():
    """One line at the top of each file."""
    silent = [
        str(path)
        for path in sorted(PACKAGE.rglob("*.py"))
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent, "no docstring: " + ", ".join(silent)


GOOD = '''
class Part:
    """A part.

    Arguments
    ---------
    size : int
        Any.
    wavs, lens : tensors
        Of forward.
    """

    def __init__(self, size):
        ...

    def forward(self, wavs, lens):
        """Do it.

        Returns
        -------
        int
            One.
        """
        return 1

    @property
    def width(self):
        """Its width."""
        return 2

def count(*names, **options):
    """Count.

    Arguments
    ---------
    *names : str
        Any.
    **options : dict
        Any.

    Yields
    ------
    int
    """
    yield 1

def _private(x):
    return x
'''


def test_good_docstrings_have_no_problems():
    """The checks do not ask for more than they should."""
    assert list(problems(ast.parse(GOOD))) == []


@pytest.mark.parametrize(
    ("good", "bad", "problem"),
    [
        ("    size : int", "    sise : int", "Part: argument 'size'"),
        ("wavs, lens : tensors", "wavs : tensors", "Part.forward: argument 'lens'"),
        ("        Returns\n", "        Gives\n", "Part.forward: no section Returns"),
        ('"""Its width."""', "", "Part.width: no docstring"),
        ("    *names", "    *name", "count: argument 'names'"),
        ("    **options", "    **option", "count: argument 'options'"),
        ("    Yields\n", "    Gives\n", "count: no section Yields"),
        ("    Arguments\n    ---------\n    *n", "    *n", "count: argument 'names'"),
    ],
)
def test_every_problem_is_found(good, bad, problem):
    """The checks find what they are there for."""
    assert good in GOOD
    found = problems(ast.parse(GOOD.replace(good, bad)))
    assert any(problem in text for text in found)
