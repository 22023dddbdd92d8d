"""Names of embedding spaces."""

import pytest

from muq_plugins.errors import UserError
from muq_plugins.inference.space import check_space, latent_space, track_space


def test_spaces_differ_by_each_of_their_parts():
    spaces = [
        track_space("70e5", 1),
        track_space("70e5", 2),
        track_space("0ff0", 1),
        track_space("70e5", 1, loudness=-16.0),
        track_space("70e5", 1, precision="int8"),
        latent_space("70e5"),
        latent_space("70e5", -16.0),
    ]
    assert len({space.name for space in spaces}) == len(spaces)
    check_space(spaces[0], track_space("70e5", 1), "here", "there")
    for other in spaces[1:]:
        with pytest.raises(UserError, match=f"{spaces[0].name}.*{other.name}"):
            check_space(spaces[0], other, "here", "there")
