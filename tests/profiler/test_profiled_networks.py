"""Networks in which every entry of a Space stands."""

import numpy as np
import pytest

from ofa_nas.spaces import ABSENT, all_spaces, find_space
from ofa_profiler.campaign.profiled_networks import profiled_network_rounds
from ofa_tables.identity import Identity
from ofa_tables.store import checksums
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.table import CALIBRATION, PROFILED, LatencyTable

SPACE = find_space("compofa-fixed-w1.0")


@pytest.fixture
def table(tmp_path):
    with LatencyTable.create(tmp_path / "t.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        yield table


def standing(jobs):
    return {part.key for job in jobs for part in job.parts}


@pytest.mark.parametrize("space", all_spaces(), ids=lambda space: space.name)
def test_every_entry_stands_in_a_profiled_network_of_every_round(table, space):
    first, *_, last = space.resolutions_px
    rounds = profiled_network_rounds(table, space, [first, last], 2)
    fewest = 2 * max(len({*position.entries} - {ABSENT}) for position in space.positions)
    for jobs in rounds:
        assert standing(jobs) == {*space.keys(first), *space.keys(last)}
        assert len(jobs) < max(50, 2 * fewest)
    assert {job.block.key for job in rounds[0]} != {job.block.key for job in rounds[1]}


def test_profiled_networks_are_small_and_large(table):
    (jobs,) = profiled_network_rounds(table, find_space("ofa-mbv3-w1.0"), [160], 1)
    macs = np.array([job.block.macs for job in jobs])
    assert macs.max() > 2 * macs.min()


def test_the_parts_of_a_profiled_network_are_its_operators(table):
    (jobs,) = profiled_network_rounds(table, SPACE, [128], 1)
    for job in jobs:
        assert sum(len(part.operators) for part in job.parts) == len(job.block.operators)


def test_a_round_with_all_entries_covered_needs_no_network(table):
    table.add([Measurement(key, key, round=0, **statistics([5])) for key in SPACE.keys(128)])
    first, second = profiled_network_rounds(table, SPACE, [128], 2)
    assert first == []
    assert standing(second) == set(SPACE.keys(128))


def test_the_rest_of_a_round_is_covered_by_few_networks(table):
    keys = SPACE.keys(128)
    table.add([Measurement(key, key, round=0, **statistics([5])) for key in keys[:-5] if key != keys[10]])
    (jobs,) = profiled_network_rounds(table, SPACE, [128], 1)
    assert {keys[10], *keys[-5:]} <= standing(jobs)
    assert len(jobs) <= 3


def test_a_network_that_calibrated_carries_nothing(table):
    (before,) = profiled_network_rounds(table, SPACE, [128], 1)
    key = before[0].block.key
    for stored, space, architecture, _ in table.store.networks():
        table.store.add_network(stored, space, architecture, PROFILED)
    with table.store._connection as connection:
        connection.execute("UPDATE networks SET role = ? WHERE key = ?", (CALIBRATION, key))
        connection.execute(checksums.storing("networks"))
    (after,) = profiled_network_rounds(table, SPACE, [128], 1)
    assert key not in {job.block.key for job in after}
    assert standing(after) == set(SPACE.keys(128))
