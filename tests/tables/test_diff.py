"""Differences of two tables, compared with the spread of their trials."""

import pytest

from ofa_nas.spaces import find_space
from ofa_tables.errors import EntriesMissing
from ofa_tables.inspection.diff import diff_tables
from ofa_tables.table import LatencyTable

KEYS = find_space("ofa-mbv3-w1.0").keys(160)


@pytest.fixture
def both(make_table):
    with LatencyTable.open(make_table("a.lut")) as first, LatencyTable.open(make_table("b.lut")) as second:
        yield first, second


def test_a_table_does_not_differ_from_itself(both):
    compared = diff_tables(both[0], both[0])
    assert len(compared.differences) == len(KEYS)
    assert (compared.median_ratio, compared.median_apart) == (1.0, 0.0)
    assert not any(difference.exceeds for difference in compared.differences)


def test_a_difference_beyond_the_spread_of_trials_is_reported(both, trial):
    first, second = both
    slow = 1.3 * second.entry(KEYS[5]).latency_ms
    second.add([trial(KEYS[5], slow, round=number) for number in range(3, 20)])
    exceeding = [difference for difference in diff_tables(first, second).differences if difference.exceeds]
    assert [difference.key for difference in exceeding] == [KEYS[5]]
    back = [difference.key for difference in diff_tables(second, first).differences if difference.exceeds]
    assert back == [KEYS[5]]
    assert exceeding[0].ratio == pytest.approx(1.3, rel=0.02)


def test_keys_of_only_one_table_are_reported(make_table):
    with (
        LatencyTable.read(make_table("a.lut", without=KEYS[:1])) as first,
        LatencyTable.read(make_table("b.lut", without=KEYS[1:3])) as second,
    ):
        compared = diff_tables(first, second)
    assert sorted(compared.only_first) == sorted(KEYS[1:3])
    assert compared.only_second == (KEYS[0],)


def test_tables_without_common_entries_are_refused(make_table):
    with (
        LatencyTable.read(make_table("a.lut")) as first,
        LatencyTable.read(make_table("b.lut", space="ofa-mbv3-w1.2")) as second,
        pytest.raises(EntriesMissing, match="no entry in common"),
    ):
        diff_tables(first, second)
