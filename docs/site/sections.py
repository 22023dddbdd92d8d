"""Docstrings in SpeechBrain's style, as griffe reads numpy's."""

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


def _renamed(heading: re.Match) -> str:
    name = NAMES[heading[1]]
    return f"{name}\n{'-' * len(name)}"
