"""Two tables of the same device and settings are merged; neither file changes."""

from dataclasses import replace

import pytest

from ofa_nas.spaces import find_space
from ofa_tables.errors import TableError, TableMismatch, UsageError
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import read_calibration, write_calibration
from ofa_tables.store.merge import merge_tables
from ofa_tables.table import LatencyTable

SPACE = find_space("ofa-mbv3-w1.0")


@pytest.fixture
def merge(tmp_path):
    def make(one, two, name="both.lut"):
        with LatencyTable.read(one) as first, LatencyTable.read(two) as second:
            return merge_tables(first, second, tmp_path / name)

    return make


def test_the_merged_table_has_the_trials_of_both(make_table, merge, tmp_path):
    one, two = make_table("a.lut", resolutions=(160,)), make_table("b.lut", resolutions=(160, 224), seed=1)
    before = one.read_bytes(), two.read_bytes()
    merge(one, two)
    assert (one.read_bytes(), two.read_bytes()) == before
    with LatencyTable.read(tmp_path / "both.lut") as both:
        assert {entry.trials for entry in both.entries if entry.key in SPACE.keys(160)} == {6}
        assert {entry.trials for entry in both.entries if entry.key not in SPACE.keys(160)} == {3}
        assert all(len(trial.samples_ns) == 40 for trial in both.store.measurements(samples=True))
        assert both.device == {"chip": "synthetic"}


def test_a_trial_that_both_have_counts_once(make_table, merge):
    one, two = make_table("a.lut"), make_table("b.lut", seed=1)
    first = merge(one, two)
    again = merge(one.with_name("both.lut"), two, "again.lut")
    assert (first.trials, first.repeats) == (2 * 288, 0)
    assert (again.trials, again.repeats) == (2 * 288, 288)


def test_tables_of_different_devices_are_refused(make_table, merge, identity, tmp_path):
    one = make_table("a.lut")
    two = make_table("b.lut", identity=replace(identity, target="pixel-1", runtime_version="1.19.0"))
    with pytest.raises(
        TableMismatch, match=r"target bench in a.lut, pixel-1 in b.lut; runtime version 1.18.0 in a.lut"
    ):
        merge(one, two)
    assert not (tmp_path / "both.lut").exists()


def test_a_table_is_not_merged_with_itself(make_table, merge):
    path = make_table()
    with pytest.raises(UsageError, match="the same file"):
        merge(path, path)


def test_an_existing_table_is_not_replaced(make_table, merge):
    one, two = make_table("a.lut"), make_table("b.lut")
    with pytest.raises(TableError, match="already exists"):
        merge(one, two, "a.lut")


def test_a_network_tested_in_either_is_a_test(make_table, merge, tmp_path):
    one, two = make_table("a.lut"), make_table("b.lut")
    for path, role in ((one, "calibration"), (two, "test")):
        with LatencyTable.open(path) as table:
            table.store.add_network("network:abc", SPACE.name, {"r": 160}, role)
    merge(one, two)
    with LatencyTable.read(tmp_path / "both.lut") as both:
        assert [role for *_, role in both.store.networks()] == ["test"]


def test_a_calibration_is_kept_if_its_entries_do_not_change(make_table, merge, tmp_path):
    rest = [key for key in SPACE.keys(224) if key in SPACE.keys(160)]
    one, two = make_table("a.lut"), make_table("b.lut", resolutions=(224,), without=rest)
    with LatencyTable.open(one) as table:
        write_calibration(table, SPACE, Calibration(1.1, 8))
    assert merge(one, two).calibrations == (SPACE.name,)
    with LatencyTable.read(tmp_path / "both.lut") as both:
        assert read_calibration(both, SPACE) == Calibration(1.1, 8)


def test_a_calibration_is_dropped_if_its_entries_change(make_table, merge, tmp_path):
    one, two = make_table("a.lut"), make_table("b.lut", seed=1)
    with LatencyTable.open(one) as table:
        write_calibration(table, SPACE, Calibration(1.1, 8))
    assert merge(one, two).dropped == (SPACE.name,)
    with LatencyTable.read(tmp_path / "both.lut") as both:
        assert read_calibration(both, SPACE) is None


def test_a_calibration_is_dropped_if_its_network_becomes_a_test(make_table, merge):
    rest = SPACE.keys(160)
    one, two = make_table("a.lut"), make_table("b.lut", without=rest)
    for path, role in ((one, "calibration"), (two, "test")):
        with LatencyTable.open(path) as table:
            table.store.add_network("network:abc", SPACE.name, {"r": 160}, role)
    with LatencyTable.open(one) as table:
        write_calibration(table, SPACE, Calibration(1.1, 8))
    assert merge(one, two).dropped == (SPACE.name,)


@pytest.fixture
def with_conditions(make_table):
    def make(name, seed, **conditions):
        path = make_table(name, seed=seed)
        with LatencyTable.open(path) as table:
            table.keep_conditions(conditions)
        return path

    return make


def test_tables_with_different_conditions_are_not_merged(make_table, with_conditions, merge):
    one, two = with_conditions("a.lut", 0, set={"affinity": "big"}), make_table("b.lut", seed=1)
    with pytest.raises(TableMismatch, match=r"--set affinity=big in a.lut, no --set in b.lut"):
        merge(one, two)


def test_a_merged_table_keeps_the_conditions_and_warnings(with_conditions, merge, tmp_path):
    one = with_conditions("a.lut", 0, set={"affinity": "0-1"}, warnings=["2 threads share"])
    two = with_conditions("b.lut", 1, set={"affinity": "0-1"}, warnings=["a quota"])
    merge(one, two)
    with LatencyTable.read(tmp_path / "both.lut") as both:
        assert both.conditions["set"] == {"affinity": "0-1"}
        assert both.conditions["warnings"] == ["2 threads share", "a quota"]
