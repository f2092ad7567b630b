"""Defaults of ``ofa-profile``."""

import pytest

from ofa_nas.spaces import find_space
from ofa_profiler.library import default_resolutions


@pytest.mark.parametrize(
    ("space", "resolutions_px"), [("ofa-mbv3-w1.0", (160, 176, 192, 208, 224)), ("tiny", (20, 24, 28, 32))]
)
def test_default_resolutions_are_the_published_ones_or_all(space, resolutions_px):
    assert default_resolutions(find_space(space)) == resolutions_px
