"""Imports point one way: recipes -> brains -> lobes, and never in a circle."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "muq_plugins"

#: What each part of muq_plugins may import from the others, besides itself.
COMMANDS = {"lobes", "data", "evaluation", "inference", "errors", "files", "shipped"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "shipped": {"errors"},
    "arrivals": {"inference"},
    "lobes": set(),
    "data": {"lobes", "errors", "files"},
    "evaluation": {"lobes", "data", "errors", "files"},
    "inference": {"lobes", "data", "errors", "files"},
    "inference.cli": COMMANDS,
    "brains": {"lobes", "data", "evaluation", "inference", "errors", "files"},
    "experiment": {"errors", "files", "shipped"},
    "__main__": {"inference.cli"},
}


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def imported_names(source: str, module: str, is_package: bool) -> set[str]:
    """Dotted names that a module imports, relative ones made absolute."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = node.level - is_package
                parents = module.split(".")
                base = ".".join([*parents[: len(parents) - up], *filter(None, [base])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def own_modules(names: set[str], modules: dict[str, Path]) -> set[str]:
    """The modules of ours that these names are, or are taken from."""
    found = set()
    for name in names:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {""}


def imports_of(module: str) -> set[str]:
    """Dotted names that one of our modules imports."""
    path = MODULES[module]
    source = path.read_text(encoding="utf-8")
    return imported_names(source, module, path.name == "__init__.py")


def part_of(module: str) -> str:
    """lobes, data, ...; the longest row that fits; empty for muq_plugins itself."""
    place = module.removeprefix(PACKAGE).removeprefix(".")
    rows = [row for row in ALLOWED if f"{place}.".startswith(f"{row}.")]
    return max(rows, key=len, default=place.split(".")[0])


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle in a graph of imports; empty if there is none."""
    finished: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in finished:
            return []
        for target in sorted(graph.get(node, ())):
            if found := visit(target, [*trail, node]):
                return found
        finished.add(node)
        return []

    for node in sorted(graph):
        if found := visit(node, []):
            return found
    return []


def test_the_table_names_every_part():
    """A new part of the package must say what it may import."""
    assert {part_of(module) for module in MODULES} - {""} <= set(ALLOWED)


def test_imports_go_one_way():
    """Each module imports only from parts that the table allows."""
    wrong = []
    for module in MODULES:
        part = part_of(module)
        names = imports_of(module) - {f"{PACKAGE}.__version__"}
        for name in names:
            if name.split(".")[0] in ("recipes", "tests"):
                wrong.append(f"{module} imports {name}; nothing imports that")
        if not part:
            continue  # muq_plugins itself re-exports from all parts
        for target in own_modules(names, MODULES):
            allowed = {part, *ALLOWED[part]}
            if target == PACKAGE:
                wrong.append(f"{module}: import from the module, not the package")
            elif part_of(target) not in allowed:
                wrong.append(
                    f"{module} imports {target}, but {part} may import only from "
                    f"{sorted(allowed)} (see ALLOWED in this file and CONTRIBUTING.md)"
                )
    assert not wrong, "\n  ".join(["", *wrong])


def test_no_circle():
    """No module imports itself through others, not even inside a function."""
    graph = {module: own_modules(imports_of(module), MODULES) for module in MODULES}
    graph = {module: targets - {module} for module, targets in graph.items()}
    found = circle(graph)
    assert not found, "imports go in a circle: " + " -> ".join(found)


def test_recipes_import_no_other_recipe_folder():
    """A recipe uses muq_plugins and modules beside it."""
    recipes = sorted((ROOT / "recipes").rglob("*.py"))
    assert recipes
    for recipe in recipes:
        names = imported_names(recipe.read_text(encoding="utf-8"), "recipe", False)
        assert "recipes" not in {name.split(".")[0] for name in names}, recipe


def test_imports_are_found():
    """The helpers see every way of importing."""
    source = (
        "import muq_plugins.data.audio as audio\n"
        "from muq_plugins.lobes import features, Conformer\n"
        "def later():\n"
        "    from . import beside\n"
        "    from ..brains.base import Base\n"
    )
    names = imported_names(source, "muq_plugins.data.scan", is_package=False)
    assert names == {
        "muq_plugins.data.audio",
        "muq_plugins.lobes.features",
        "muq_plugins.lobes.Conformer",
        "muq_plugins.data.beside",
        "muq_plugins.brains.base.Base",
    }
    modules = dict.fromkeys(
        ["muq_plugins.lobes", "muq_plugins.lobes.features", "muq_plugins.brains.base"]
    )
    assert own_modules(names, modules) == set(modules)
    package = imported_names("from . import x", "muq_plugins.data", is_package=True)
    assert package == {"muq_plugins.data.x"}


def test_circles_are_found():
    """The search for circles finds one, and only one that is there."""
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
