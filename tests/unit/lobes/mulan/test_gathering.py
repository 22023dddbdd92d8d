"""Two processes compute what one computes, gradients included."""

import pytest
import torch

from muq_plugins.lobes import gather_with_gradient
from tests.unit.lobes.mulan import processes


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes found."""
    return processes.run_both(tmp_path_factory.mktemp("processes"))


def test_without_other_processes_a_tensor_is_itself():
    tensor = torch.ones(2, 3)
    assert gather_with_gradient(tensor) is tensor


def test_rows_come_in_the_order_of_ranks_with_the_gradients_of_all(both):
    first, second = (found["gathered"] for found in both)
    rows = torch.tensor([[0.0, 1, 2], [10, 11, 12], [13, 14, 15]])
    assert torch.equal(first["rows"], rows) and torch.equal(second["rows"], rows)
    # The losses are the sum of squares, and twice that: together three times.
    assert torch.equal(first["gradient"], 6 * rows[:1])
    assert torch.equal(second["gradient"], 6 * rows[1:])
    assert first["numbers"].tolist() == [[0], [0], [1]]
    assert first["numbers"].dtype == torch.int64
    assert first["empty"].tolist() == [[5.0, 5.0]]


@pytest.mark.parametrize("case", processes.CASES)
def test_two_processes_equal_one(both, case):
    alone = processes.compute(case)
    for rank, found in enumerate(both):
        found = found[case]
        torch.testing.assert_close(found["loss"], alone["loss"], rtol=0, atol=1e-5)
        for name, mean in alone["means"].items():
            torch.testing.assert_close(found["means"][name], mean, rtol=0, atol=1e-4)
        assert found["gradients"].keys() == alone["gradients"].keys()
        for name, gradient in alone["gradients"].items():
            torch.testing.assert_close(
                found["gradients"][name], gradient, rtol=1e-5, atol=1e-5, msg=name
            )
        # In evaluation nobody waits for processes that have fewer batches.
        first = processes.CASES[case][2]
        assert found["pairs in evaluation"] == (first if rank == 0 else 6 - first)
    assert max(g.abs().max() for g in alone["gradients"].values()) > 0.1
