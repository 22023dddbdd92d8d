"""What is installed holds every file of the package, data and models included."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_build_holds_every_file_of_the_package(tmp_path):
    """As a wheel does, which is made of it."""
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    expected = {
        path.relative_to(ROOT)
        for path in (ROOT / "muq_plugins").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    built = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    assert Path("muq_plugins/models/small/tokenizer/model.safetensors") in built
    assert built == expected
