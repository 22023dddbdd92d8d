"""What the processor of the tests can do."""

import pytest

from muq_plugins.lobes.int8 import check_int8


def _has_int8() -> bool:
    try:
        check_int8()
    except ValueError:
        return False
    return True


needs_int8 = pytest.mark.skipif(not _has_int8(), reason="no VNNI, see check_int8")
