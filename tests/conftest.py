"""What all tests share: two cores, no progress bars, and the device under test."""

import os
import signal

import pytest

# Before anything imports tqdm, which reads it once. Also for started processes.
os.environ.setdefault("TQDM_DISABLE", "1")
# Before anything imports torch: threads that wait must not take the cores of the
# processes that the tests start, which makes both many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Two workers with one thread each, or (with -n 0) one process with two; also for the
# processes that they start.
THREADS = 2
if "PYTEST_XDIST_WORKER" in os.environ:
    THREADS = 1
    os.environ["OMP_NUM_THREADS"] = "1"  # of the process that starts workers it is 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))

# Started in the background or by nohup, tests and their processes would ignore these.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import torch  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from tests import cheaper  # noqa: E402
from tests.unit.processor import needs_int8  # noqa: E402

torch.set_num_threads(THREADS)
cheaper.make_cheaper()
collect_ignore = ["preloaded.py"]  # of doctests


def pytest_addoption(parser):
    """Add SpeechBrain's --device option."""
    parser.addoption(
        "--device", default="cpu", help="The device of the tests, for example cuda:0"
    )


def pytest_collection_modifyitems(items):
    """Leaves out the examples in 8 bits where the processor has none."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.name.endswith("int8"):
            item.add_marker(needs_int8)


@pytest.fixture
def device(request):
    """The device that the tests run on, as a string."""
    return request.config.getoption("--device")


@pytest.fixture(autouse=True)
def default_device(monkeypatch):
    """What names no device is on the CPU, also where there is a GPU."""
    if torch.accelerator.is_available():
        monkeypatch.setattr("muq_plugins.inference.models.infer_device", lambda: "cpu")


@pytest.fixture
def pixels(monkeypatch):
    """Figures are rendered, as they are for everybody but most tests."""
    monkeypatch.setattr(Figure, "savefig", cheaper.savefig)
