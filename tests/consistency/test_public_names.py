"""Names that are imported on first use are seen by editors and type checkers too."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def names_for_checkers(source: str) -> dict[str, str]:
    """Names imported under `if TYPE_CHECKING`, each with the module that has it."""
    blocks = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    return {
        name: statement.module
        for block in blocks
        for statement in block.body
        for alias in statement.names
        for name in (
            import_module(statement.module).__all__
            if alias.name == "*"
            else [alias.name]
        )
    }


@pytest.mark.parametrize("package", ["muq_plugins", "muq_plugins.inference"])
def test_checkers_see_the_names_that_python_gives(package):
    module = import_module(package)
    source = Path(module.__file__).read_text(encoding="utf-8")
    seen = names_for_checkers(source)
    assert sorted(seen) == sorted(module.__all__)
    for name, home in seen.items():
        assert getattr(module, name) is getattr(import_module(home), name)
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'Nix'"):
        module.Nix  # noqa: B018


def test_the_package_is_typed_and_has_one_version():
    # `test_package` sees that all files of the package are installed.
    assert (ROOT / "muq_plugins" / "py.typed").is_file()
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert import_module("muq_plugins").__version__ not in setup
