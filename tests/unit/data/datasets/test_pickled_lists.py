"""Pickles are looked at, never loaded."""

import pickle

import pytest

from muq_plugins.data.datasets.magnatagatune import read_pickled_texts
from muq_plugins.errors import UserError


def test_a_list_as_python_2_wrote_it(tmp_path):
    path = tmp_path / "list.cP"
    path.write_bytes(b"(lp1\nS'd/a-0-29.npy'\np2\naS'd/it\\'s-0-29.npy'\np3\na.")
    assert read_pickled_texts(path) == ["d/a-0-29.npy", "d/it's-0-29.npy"]


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="list.cP does not exist"):
        read_pickled_texts(tmp_path / "list.cP")


class Runs:
    """A pickle that would run a program if it were loaded."""

    def __reduce__(self):
        return print, ("loaded",)


def test_no_pickle_is_ever_loaded(tmp_path, capsys):
    path = tmp_path / "list.cP"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(["a.npy", Runs()], protocol=protocol))
        with pytest.raises(UserError, match="list.cP holds more than a list"):
            read_pickled_texts(path)
        path.write_bytes(pickle.dumps(["a.npy", "b.npy"], protocol=protocol))
        assert read_pickled_texts(path) == ["a.npy", "b.npy"]
    assert capsys.readouterr().out == ""
    path.write_bytes(pickle.dumps(["a.npy"])[:-3])
    with pytest.raises(UserError, match="no complete pickle"):
        read_pickled_texts(path)
    path.write_bytes(pickle.dumps("a text"))
    with pytest.raises(UserError, match="holds 0 lists instead of one"):
        read_pickled_texts(path)
