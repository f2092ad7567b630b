"""Which resolutions are measured, on tables whose figures the test makes up."""

import numpy as np
import pytest

from ofa_nas.spaces import find_space
from ofa_profiler.campaign.choosing_resolutions import MOST_SHARE, curvature, measured_resolutions, next_resolution
from ofa_tables.identity import Identity
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.table import LatencyTable

SPACE = find_space("ofa-mbv3-w1.0")
ALL = SPACE.resolutions_px


def area(size):
    return size**2


def wavy(size):
    """As on a device whose kernels like some sizes and not others."""
    return size**2 * (1 + 0.3 * np.sin(size / 5))


@pytest.fixture
def table(tmp_path):
    with LatencyTable.create(tmp_path / "t.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        yield table


def chosen(table, latency, wanted=ALL):
    """The resolutions that are measured one after the other; a Block takes what ``latency`` says of its maps."""
    order = []
    while (px := next_resolution(table, SPACE, wanted)) is not None:
        assert px not in order
        order.append(px)
        table.add(
            [
                Measurement(
                    f"{block.key} {trial}",
                    block.key,
                    **statistics([round(1e3 * index * latency(block.input_shape[1]))]),
                )
                for index, block in enumerate(SPACE.blocks(px), start=1)
                for trial in range(3)
            ]
        )
    return order


def test_the_ends_and_the_middle_first_then_some_but_not_most(table):
    order = chosen(table, area)
    assert order[:3] == [128, 224, 168]
    measured = {key for px in order for key in SPACE.keys(px)}
    assert 3 < len(order) < 8
    assert len(measured) <= MOST_SHARE * len({key for px in ALL for key in SPACE.keys(px)})


def test_the_next_size_is_the_one_that_serves_most_resolutions(table):
    """From 132 to 160 px the last stage's maps are 5 × 5, which none of the first three has."""
    assert chosen(table, area)[3] in range(132, 164, 4)


def test_of_three_all_are_measured(table):
    assert sorted(chosen(table, area, wanted=(128, 144, 160))) == [128, 144, 160]


def test_measured_sizes_are_not_measured_again(table):
    order = chosen(table, area)
    assert next_resolution(table, SPACE, ALL) is None
    assert measured_resolutions(table, SPACE, ALL) == sorted(order)


def test_bends_are_seen_where_a_resolution_is_left_out(table, tmp_path):
    chosen(table, area)
    with LatencyTable.create(tmp_path / "wavy.lut", table.identity, {}) as other:
        chosen(other, wavy)
        assert curvature(other, SPACE, measured_resolutions(other, SPACE, ALL)) > 3 * curvature(
            table, SPACE, [128, 168, 224]
        )
