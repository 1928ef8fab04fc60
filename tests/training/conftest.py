"""What tests of several stages are given."""

import pytest

from generator.data.collect import collect


@pytest.fixture(scope="session")
def houses(tmp_path_factory):
    """A few seconds of a small map of Halls."""
    out = tmp_path_factory.mktemp("houses")
    collect("halls", out, 3 * 41, seed=4, maps="0-0", clip_frames=41, size="small")
    return out
