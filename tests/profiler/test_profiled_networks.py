"""Networks in which every entry of a Space stands."""

import numpy as np
import pytest

from ofa_nas.spaces import ABSENT, all_spaces, find_space
from ofa_profiler.campaign.profiled_networks import carrier_rounds
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.table import CALIBRATION, CARRIER, Identity, LatencyTable

SPACE = find_space("compofa-fixed-w1.0")


@pytest.fixture
def table(tmp_path):
    with LatencyTable.create(tmp_path / "t.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        yield table


def standing(tasks):
    return {part.key for task in tasks for part in task.parts}


@pytest.mark.parametrize("space", all_spaces(), ids=lambda space: space.name)
def test_every_entry_stands_in_a_carrier_of_every_round(table, space):
    first, *_, last = space.resolutions_px
    rounds = carrier_rounds(table, space, [first, last], 2)
    fewest = 2 * max(len({*position.entries} - {ABSENT}) for position in space.positions)
    for tasks in rounds:
        assert standing(tasks) == {*space.keys(first), *space.keys(last)}
        assert len(tasks) < max(50, 2 * fewest)
    assert {task.block.key for task in rounds[0]} != {task.block.key for task in rounds[1]}


def test_carriers_are_small_and_large_alike(table):
    (tasks,) = carrier_rounds(table, find_space("ofa-mbv3-w1.0"), [160], 1)
    macs = np.array([task.block.macs for task in tasks])
    assert macs.max() > 2 * macs.min()


def test_the_parts_of_a_carrier_are_its_operators(table):
    (tasks,) = carrier_rounds(table, SPACE, [128], 1)
    for task in tasks:
        assert sum(len(part.operators) for part in task.parts) == len(task.block.operators)


def test_a_round_whose_entries_have_all_been_visited_needs_none(table):
    table.add([Measurement(key, key, round=0, **statistics([5])) for key in SPACE.keys(128)])
    first, second = carrier_rounds(table, SPACE, [128], 2)
    assert first == []
    assert standing(second) == set(SPACE.keys(128))


def test_what_is_left_of_a_round_is_covered_by_as_few_as_it_takes(table):
    keys = SPACE.keys(128)
    table.add([Measurement(key, key, round=0, **statistics([5])) for key in keys[:-5] if key != keys[10]])
    (tasks,) = carrier_rounds(table, SPACE, [128], 1)
    assert {keys[10], *keys[-5:]} <= standing(tasks)
    assert len(tasks) <= 3


def test_a_network_that_taught_carries_nothing(table):
    (before,) = carrier_rounds(table, SPACE, [128], 1)
    key = before[0].block.key
    for stored, space, architecture, _ in table.store.networks():
        table.store.add_network(stored, space, architecture, CARRIER)
    with table.store._connection as connection:
        connection.execute("UPDATE networks SET role = ? WHERE key = ?", (CALIBRATION, key))
    (after,) = carrier_rounds(table, SPACE, [128], 1)
    assert key not in {task.block.key for task in after}
    assert standing(after) == set(SPACE.keys(128))
