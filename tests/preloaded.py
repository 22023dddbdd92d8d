"""What the process that others are forked from has imported; it computes nothing."""

import importlib
import sys

from tests.cheaper import make_cheaper
from tests.forks import RECIPES

sys.path.insert(0, str(RECIPES))
MODULES = ["train_mulan", "probe", "ablate"]  # and all that they import
MODULES += [f"muq_plugins.inference.cli.{name}" for name in ("encoder", "index")]
MODULES += ["transformers.models.roberta.modeling_roberta"]
for name in MODULES:
    importlib.import_module(name)
make_cheaper()
