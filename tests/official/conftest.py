"""The environment of the official package, and the scripts that run in it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# They cannot be imported in this environment.
collect_ignore = ["official_server.py", "official_side.py", "official_mulan_side.py"]


@pytest.fixture(scope="session")
def official_python(tmp_path_factory):
    """Runs a script of this folder with the official package."""
    sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))
    from environment import default_cache, official_python

    command = [official_python(default_cache()), HERE / "official_server.py"]
    log = tmp_path_factory.mktemp("official") / "log.txt"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with log.open("w") as errors:
        server = subprocess.Popen(command, stderr=errors, **pipes)

    def run(script, *arguments):
        words = [str(HERE / script), *map(str, arguments)]
        print(json.dumps(words), file=server.stdin, flush=True)
        assert server.stdout.readline() == "done\n", log.read_text()

    with server:  # waits for its end
        yield run
        server.stdin.close()
