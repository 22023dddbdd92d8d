"""Published results: their numbers, and what their reports say."""

import hashlib

from tests.goldens.parts import ROOT, write


def digests() -> dict[str, str]:
    """A hash of each published file of numbers and of its report."""
    folder = ROOT / "docs" / "results"
    paths = sorted([*folder.glob("*/*.json"), *folder.glob("*/report.md")])
    # Records of runs come one by one; what is made of them is held to them elsewhere.
    paths = [path for path in paths if path.parent.name != "runs"]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in paths
    }


def make() -> None:
    """Writes the hashes of today."""
    write("results.json", digests())
