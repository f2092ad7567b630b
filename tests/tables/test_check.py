"""Each fault is found when it is added to a table without faults, and no other is reported."""

import dataclasses
import time

import numpy as np
import pytest

from ofa_agent.operators import Block
from ofa_nas.spaces import find_space
from ofa_tables.identity import IMPORTED
from ofa_tables.inspection.check import ERROR, WARNING, Inspected, check
from ofa_tables.store import checksums
from ofa_tables.table import LatencyTable

SPACE = find_space("ofa-mbv3-w1.0")
KEY = SPACE.keys(160)[40]
BLOCKS: dict[str, Block] = {block.key: block for block in SPACE.blocks(160)}


@pytest.fixture
def table(tmp_path, identity, trial):
    """A table of latencies that are linear in MACs, with three trials of five samples each."""
    rng = np.random.default_rng(0)
    with LatencyTable.create(tmp_path / "t.lut", identity, {"chip": "synthetic"}) as table:
        for key, block in BLOCKS.items():
            latency_ms = 0.02 + block.macs / 3e7
            table.add([trial(key, *(latency_ms * rng.normal(1, 0.01, 5)), round=number) for number in range(3)])
        yield table


@pytest.fixture
def plant(table, trial):
    """Replace the trials of a key."""

    def plant(key, *medians_ms, **fields):
        with table.store._connection as connection:
            connection.execute("DELETE FROM measurements WHERE key = ?", (key,))
        table.add([trial(key, *[median] * 5, round=number, **fields) for number, median in enumerate(medians_ms)])

    return plant


def found(table, **options):
    return {(finding.check, finding.key) for finding in check(Inspected(table, SPACE, **options))}


def latency_ms(table, key=KEY):
    return table.entry(key).latency_ms


def test_a_table_without_faults_has_no_findings(table):
    assert found(table) == set()


@pytest.mark.parametrize(("latency", "name"), [(0.0, "zero"), (-1.5, "negative")])
def test_a_latency_that_is_not_positive_is_found(table, plant, latency, name):
    plant(KEY, 1.0, 1.0, 1.0)
    with table.store._connection as connection:
        connection.execute("UPDATE measurements SET median_ms = ? WHERE key = ?", (latency, KEY))
        connection.execute(checksums.storing("measurements"))
    table.add([])
    assert (name, KEY) in found(table)


def test_a_duplicated_row_is_found(table, trial):
    first, second = SPACE.keys(160)[40:42]
    samples = [trial(key, 0.50123, 0.60456, 0.70789) for key in (first, second)]
    with table.store._connection as connection:
        connection.execute("DELETE FROM measurements WHERE key IN (?, ?)", (first, second))
    table.add(samples)
    assert ("duplicated", second) in found(table)


def test_latencies_of_few_digits_may_agree(table, trial):
    first, second = SPACE.keys(160)[40:42]
    with table.store._connection as connection:
        connection.execute("DELETE FROM measurements WHERE key IN (?, ?)", (first, second))
    table.add([trial(key, 0.5, 0.6, 0.7) for key in (first, second)])
    assert ("duplicated", second) not in found(table)


def test_a_row_copied_from_another_table_is_found(table, make_table):
    with LatencyTable.open(make_table("other.lut", seed=5)) as other:
        other.add(
            [
                dataclasses.replace(measurement, trial_id=f"copy-{number}")
                for number, measurement in enumerate(table.store.measurements(samples=True))
                if measurement.key == KEY
            ]
        )
        with other.store._connection as connection:
            connection.execute("DELETE FROM measurements WHERE key = ? AND trial_id NOT LIKE 'copy-%'", (KEY,))
        other.add([])
        assert found(table, others=[other]) == {("copied", KEY)}


def test_a_larger_kernel_that_is_faster_is_found(table, plant):
    smaller = next(key for key in SPACE.keys(160) if "expand:240-kernel:3" in key)
    larger = smaller.replace("kernel:3", "kernel:7")
    fast = 0.75 * latency_ms(table, smaller)
    plant(larger, fast, 1.001 * fast, 0.999 * fast)
    assert ("not monotone", larger) in found(table)


@pytest.mark.parametrize("factor", [3.0, 1 / 3.0])
def test_an_entry_far_from_similar_blocks_is_found(table, plant, factor):
    value = factor * latency_ms(table)
    plant(KEY, value, 1.001 * value, 0.999 * value)
    assert ("out of line", KEY) in found(table)
    assert {key for check_, key in found(table) if check_ == "out of line"} == {KEY}


def test_an_entry_with_a_large_spread_is_found(table, plant):
    value = latency_ms(table)
    plant(KEY, 0.7 * value, value, 1.6 * value)
    assert ("noisy", KEY) in found(table)


def test_few_trials_give_a_warning(table, plant):
    value = latency_ms(table)
    plant(KEY, value, 1.01 * value)
    findings = check(Inspected(table, SPACE))
    assert [(finding.check, finding.severity) for finding in findings] == [("few samples", WARNING)]


def test_an_old_entry_is_found(table, plant):
    value = latency_ms(table)
    plant(KEY, value, 1.01 * value, 0.99 * value, received_at=time.time() - 500 * 86400)
    assert found(table) == {("old", KEY)}
    assert found(table, max_age_days=600) == set()


def test_a_missing_key_is_reported_with_the_command_that_fixes_it(table, plant):
    plant(KEY)
    (finding,) = check(Inspected(table, SPACE))
    assert (finding.check, finding.key, finding.severity) == ("missing", KEY, ERROR)
    assert "--resolutions 160" in finding.advice


def test_a_failed_entry_is_found(table, plant, failed_trial):
    plant(KEY)
    table.add([failed_trial(KEY)])
    assert found(table) == {("failed", KEY)}


def test_a_table_without_a_device_description_is_found(table):
    table.store.remove("device")
    table.__dict__.pop("device", None)
    assert found(table) == {("no provenance", "")}


def test_missing_provenance_of_a_published_table_is_a_warning(tmp_path, identity, trial):
    published = dataclasses.replace(identity, runtime=IMPORTED, fingerprint=IMPORTED, runtime_version="")
    with LatencyTable.create(tmp_path / "p.lut", published, {}) as table:
        table.add([trial(key, 0.02 + block.macs / 3e7, resolution_px=160) for key, block in BLOCKS.items()])
        findings = check(Inspected(table, SPACE))
    assert [(finding.check, finding.severity) for finding in findings] == [("no provenance", WARNING)]


def test_a_published_row_with_a_large_deviation_is_found(tmp_path, identity, trial):
    published = dataclasses.replace(identity, runtime=IMPORTED, fingerprint=IMPORTED)
    with LatencyTable.create(tmp_path / "p.lut", published, {}) as table:
        values = {key: 0.02 + block.macs / 3e7 for key, block in BLOCKS.items()}
        table.add([trial(key, value, resolution_px=160) for key, value in values.items() if key != KEY])
        table.add([trial(KEY, *(values[KEY] * part for part in (0.5, 1.0, 1.5)), resolution_px=160)])
        assert ("noisy", KEY) in found(table)
