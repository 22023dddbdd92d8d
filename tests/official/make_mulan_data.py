"""Makes ``tests/data/official_mulan_small``: what the official MuQ-MuLan computes.

The folder holds settings, a tokenizer, the names and shapes of all tensors, and what
the official package computes with the weights that `tests.official.seeded` gives them;
the weights themselves are made again by the tests.

    python -m tests.official.make_mulan_data [--official-python PYTHON]
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.official.text_model import make_xlm_roberta

SIDE = Path(__file__).with_name("official_mulan_side.py")
ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "official_mulan_small"
KEPT = ("golden.safetensors", "tensors.json", "muq/config.json")


def main() -> None:
    """Reads the command line and makes the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--official-python", help="interpreter of an environment with the package"
    )
    python = parser.parse_args().official_python
    if python is None:
        sys.path.insert(0, str(ROOT / "benchmarks"))
        from environment import default_cache, official_python

        python = official_python(default_cache())
    shutil.rmtree(DATA, ignore_errors=True)
    text = make_xlm_roberta(DATA / "xlm-roberta")
    (DATA / "muq").mkdir()
    with TemporaryDirectory() as folder:
        made = Path(folder) / "official"
        command = [python, SIDE, "make", "--text", text, "--out", made]
        subprocess.run(command, check=True)
        for name in KEPT:
            shutil.copyfile(made / name, DATA / name)
        config = json.loads((made / "config.json").read_text())
    # The names of the published checkpoint, which are not on this machine either.
    config["audio_model"]["name"] = "OpenMuQ/MuQ-large-msd-iter"
    config["text_model"]["name"] = "xlm-roberta-base"
    (DATA / "config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    main()
