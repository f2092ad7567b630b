"""What ``ofa-profile`` does where nothing is said."""

import pytest

from ofa_nas.spaces import find_space
from ofa_profiler.library import default_resolutions


@pytest.mark.parametrize(
    ("space", "resolutions_px"), [("ofa-mbv3-w1.0", (160, 176, 192, 208, 224)), ("tiny", (20, 24, 28, 32))]
)
def test_the_published_resolutions_are_measured_or_all_of_a_space_without_them(space, resolutions_px):
    assert default_resolutions(find_space(space)) == resolutions_px
