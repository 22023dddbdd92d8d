"""What every run spends a second on, and hardly any test looks at."""

from functools import cache

from matplotlib.figure import Figure
from speechbrain.utils import logger

savefig = Figure.savefig


def make_cheaper():
    """Figures are put together, but neither laid out nor rendered, unless a test asks
    for `pixels`; and pip is asked once, not by every run, what is installed.

    Commands that tests start as processes of their own draw and ask as ever.
    """
    Figure.savefig = lambda self, file, **_: file.write(b"PNG")
    logger.get_environment_description = cache(logger.get_environment_description)
