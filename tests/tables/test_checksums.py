"""A flipped bit in a table file is an error, or changes nothing that matters."""

import random
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from ofa_nas.spaces import find_space
from ofa_tables.errors import OfaError, TableUnreadable
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import LatencyModel, write_calibration
from ofa_tables.table import PROFILED, LatencyTable

SPACE = find_space("tiny")
PX = SPACE.resolutions_px[0]


@pytest.fixture
def table(make_table):
    """A calibrated table of a small space, with conditions and networks."""
    path = make_table(space="tiny", resolutions=(PX,))
    with LatencyTable.open(path) as opened:
        write_calibration(opened, SPACE, Calibration(1.1, 12, 0.02, 0.01, {SPACE.keys(PX)[3]: 0.02}))
        opened.keep_conditions({"set": {"governor": "performance"}})
        for architecture in SPACE.decode(SPACE.sample(5, np.random.default_rng(0), [PX])):
            key = SPACE.network(architecture).key
            opened.store.add_network(key, SPACE.name, architecture.to_json(), PROFILED)
    return path


def figures(path):
    """What the commands print of a table."""
    networks = SPACE.sample(20, np.random.default_rng(1), [PX])
    with LatencyTable.read(path) as opened:
        model = LatencyModel.calibrated(opened, SPACE)
        predicted = [model.predict(networks), model.raw(networks), model.half_widths(networks)]
        entries = sorted(
            (entry.key, entry.latency_ms, entry.mean_ms, entry.std_ms, entry.flags) for entry in opened.entries
        )
        stored = [str(opened.identity), opened.conditions, sorted(map(str, opened.store.networks()))]
    return np.stack(predicted).tolist(), entries, stored


def count_wrong(path, flips, seed):
    """Flip one bit at a time. Count the files that are refused, and those that give other figures."""
    whole, expected = path.read_bytes(), figures(path)
    chance = random.Random(seed)
    refused = wrong = 0
    for _ in range(flips):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            wrong += figures(path) != expected
        except OfaError:
            refused += 1
    return refused, wrong


def test_no_flipped_bit_changes_a_figure(table):
    refused, wrong = count_wrong(table, 150, seed=0)
    assert wrong == 0
    assert refused > 20


@pytest.mark.slow  # a thousand files
def test_no_flipped_bit_of_a_thousand_changes_a_figure(table):
    refused, wrong = count_wrong(table, 1000, seed=1)
    assert wrong == 0
    assert refused > 100


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE measurements SET median_ms = median_ms * 2",
        "UPDATE measurements SET condition = '{}', status = 'crashed' WHERE rowid = 3",
        "UPDATE meta SET value = replace(value, '1.1', '1.2') WHERE name LIKE 'calibration/%'",
        "UPDATE networks SET role = 'test'",
    ],
)
def test_a_value_that_does_not_fit_its_checksum_is_refused(table, change):
    with closing(sqlite3.connect(table)) as connection, connection:
        connection.execute(change)
    with pytest.raises(TableUnreadable, match="the checksum of the row"):
        figures(table)
