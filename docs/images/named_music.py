"""Links the clips of the embedded corpus under names that say what is heard in them.

For a demonstration of the search by text: on the page one then sees whether the answers
are right.

    python docs/images/named_music.py results/corpus-300min/test.json results/test-music
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from muq_plugins.data.manifest import load_manifest


def main(argv: list[str] | None = None) -> None:
    """Makes the links."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("manifest", type=Path, help="such as test.json of the corpus")
    parser.add_argument("folder", type=Path, help="where the links go")
    arguments = parser.parse_args(argv)
    manifest = arguments.manifest
    for name, entry in load_manifest(manifest, manifest.parent.resolve()).items():
        take = name.rpartition("-")[2]
        instruments = ", ".join(entry["instruments"])
        link = f"{instruments} - {entry['title']} - {take}.flac".replace("/", " ")
        place = arguments.folder / entry["composer"] / link
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        os.symlink(entry["wav"], place)


if __name__ == "__main__":
    main()
