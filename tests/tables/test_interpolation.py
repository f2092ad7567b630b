"""Interpolation between measured sizes."""

import numpy as np
import pytest

from ofa_nas.spaces import all_spaces
from ofa_tables.estimates.entry import Entry
from ofa_tables.estimates.interpolation import INTERPOLATED, Interpolation, not_falling
from ofa_tables.estimates.keys import kind_and_size
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.table import LatencyTable

KEY = "expanded_conv-input:{0}x{0}x40-output:{1}x{1}x80-expand:240-kernel:5-stride:2-idskip:0-se:0-hs:1"
SIZES = range(16, 29)


def key(size):
    return KEY.format(size, (size - 1) // 2 + 1)


def entry(size, latency_ms, error=0.01):
    return Entry(key(size), latency_ms, latency_ms, 0.0, 0.0, 3, 30, standard_error=error, degrees_of_freedom=6)


def truth_ms(size):
    return 0.02 + 0.001 * size**2


def test_interpolation_is_linear_in_the_area():
    between = Interpolation(entry(size, truth_ms(size)) for size in (16, 22, 28))
    for size in SIZES:
        assert between(key(size)).latency_ms == pytest.approx(truth_ms(size))
    assert between(key(20)).flags == (INTERPOLATED,)
    assert (between(key(20)).trials, between(key(20)).samples) == (0, 0)


def test_sizes_are_not_extrapolated_and_kinds_are_not_mixed():
    between = Interpolation(entry(size, truth_ms(size)) for size in (18, 24))
    assert between(key(17)) is between(key(25)) is between(key(20).replace("kernel:5", "kernel:3")) is None
    assert between("Logits-input:1x1x1280-output:1000") is None


def test_one_size_is_not_enough_to_interpolate():
    between = Interpolation([entry(18, 1.0)])
    assert between(key(19)) is between(key(18)) is None


def test_latencies_do_not_decrease_with_the_size():
    between = Interpolation([entry(16, 1.0), entry(20, 1.3), entry(24, 1.1), entry(28, 2.0)])
    latencies = [between(key(size)).latency_ms for size in SIZES]
    assert latencies == sorted(latencies)


def test_the_interval_covers_the_leave_one_out_error():
    """Kinds with more curvature have larger errors between sizes and wider intervals."""
    straight = Interpolation(entry(size, truth_ms(size), 0.001) for size in (16, 20, 24, 28))
    bent = Interpolation(entry(size, 1e-6 * size**6, 0.001) for size in (16, 20, 24, 28))
    assert bent.curvature > 5 * straight.curvature
    for size in SIZES:
        off = bent(key(size)).latency_ms / (1e-6 * size**6) - 1
        assert abs(off) <= bent(key(size)).half_width + 1e-9


def test_isotonic_regression():
    assert not_falling(np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4)).tolist() == [1.0, 2.5, 2.5, 4.0]
    assert not_falling(np.array([3.0, 1.0]), np.array([1.0, 3.0])).tolist() == [1.5, 1.5]


@pytest.mark.parametrize("space", all_spaces(), ids=lambda space: space.name)
def test_blocks_of_one_place_have_the_same_kind_at_every_resolution(space):
    smallest, *_, largest = space.resolutions_px
    between = space.resolutions_px[len(space.resolutions_px) // 2]
    for index, of_smallest in enumerate(space.keys(smallest)):
        sizes = (smallest, between, largest)
        kinds = {kind_and_size(space.keys(px)[index])[0] for px in sizes if kind_and_size(of_smallest)}
        assert len(kinds) <= 1


@pytest.fixture
def spaced(make_table):
    """A table measured at three resolutions, with random latencies."""
    return make_table(resolutions=(128, 176, 224))


def test_a_table_is_interpolated_only_after_interpolate(spaced):
    space = all_spaces()[0]
    with LatencyTable.open(spaced) as table:
        assert LatencyModel(table, space).resolutions_px == [128, 176, 224]
        table.interpolate()
        model = LatencyModel(table, space)
        assert model.resolutions_px == list(space.resolutions_px)
        assert {entry.key for entry in model.interpolated()}.isdisjoint(entry.key for entry in table.entries)
        networks = space.sample(5, np.random.default_rng(0), [128, 176])
        others = space.sample(5, np.random.default_rng(0), [132, 172])
        assert (model.interpolated_blocks(networks) == 0).all()
        assert (model.interpolated_blocks(others) > 0).all()
    with LatencyTable.read(spaced) as table:
        assert table.interpolates
