"""``python -m muq_plugins``, the same as ``muq-plugins``."""

import sys

from muq_plugins.inference.cli.main import main

sys.exit(main())
