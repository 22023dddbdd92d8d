"""Docstrings in SpeechBrain's style, as griffe reads numpy's, and of contracts."""

import re

import griffe

NAMES = {"Arguments": "Parameters", "Example": "Examples"}
HEADING = re.compile(rf"^({'|'.join(NAMES)})\n-+$", re.M)


class Sections(griffe.Extension):
    """Gives the sections of docstrings the names that numpy has for them."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Called for every object that is read."""
        if obj.docstring:
            obj.docstring.value = HEADING.sub(_renamed, obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **kwargs: object) -> None:
        """Has methods that say nothing say what the contract above them says."""
        modules = [pkg]
        while modules:
            module = modules.pop()
            modules += [m for m in module.modules.values() if not m.is_alias]
            for kind in module.classes.values():
                if kind.is_alias:
                    continue
                for name, method in kind.functions.items():
                    above = (base.members.get(name) for base in kind.mro())
                    said = [found.docstring for found in above if found is not None]
                    if method.docstring is None:
                        method.docstring = next(filter(None, said), None)


def _renamed(heading: re.Match) -> str:
    name = NAMES[heading[1]]
    return f"{name}\n{'-' * len(name)}"
