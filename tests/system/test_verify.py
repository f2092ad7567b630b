"""`ofa-search --verify` measures the network that it found, and searches on until one is within the limit."""

import shutil

import pytest

from ofa_nas.spaces import find_space
from ofa_tables.table import LatencyTable

SPACE, PX = "compofa-fixed-w1.0", 128
TOO_LOW = 0.8


def middle_ms(ofa):
    """A limit in the middle of what the networks of the table take."""
    shown = ofa("ofa-table", "show", "t.lut", "--json").json
    (space,) = (space for space in shown["spaces"] if space["space"] == SPACE)
    return round((space["smallest_ms"] + space["largest_ms"]) / 2, 3)


def search(ofa, limit_ms, *more):
    words = ("--table", "t.lut", "--space", SPACE, "--max-latency-ms", limit_ms, "--method", "exhaustive")
    return ofa("ofa-search", *words, "--verify", "--json", *more)


def is_verified(done, limit_ms):
    assert done.code == 0, done.err
    assert len(done.json["passes_ms"]) == 2
    assert max(done.json["passes_ms"]) <= limit_ms
    return True


@pytest.mark.serial
def test_the_network_that_comes_back_is_measured_within_the_limit(ofa, profiled):
    shutil.copy(profiled.folder / "t.lut", ofa.folder / "t.lut")
    limit_ms = middle_ms(ofa)
    done = search(ofa, limit_ms, "--out", "found.json")
    assert is_verified(done, limit_ms)


def test_a_table_with_too_low_latencies_is_recalibrated(by_macs, profiled_by_macs):
    shutil.copy(profiled_by_macs.folder / "t.lut", by_macs.folder / "t.lut")
    limit_ms = middle_ms(by_macs)
    by_macs.rows(
        "t.lut",
        "UPDATE measurements SET median_ms = median_ms * ?, mean_ms = mean_ms * ? WHERE key NOT LIKE 'network:%'",
        *(TOO_LOW, TOO_LOW),
    )
    done = search(by_macs, limit_ms)
    assert is_verified(done, limit_ms)
    assert "the table is recalibrated" in done.err
    first = done.json["misses"][0]
    assert first["measured_latency_ms"] > limit_ms >= first["predicted_latency_ms"]
    # Each measured network calibrates the table; none is measured for this twice.
    roles = by_macs.rows("t.lut", "SELECT role FROM networks WHERE role = 'calibration'")
    assert len(roles) == 1 + len(done.json["misses"])


def test_predicted_blocks_of_the_network_that_is_found_are_measured_first(by_macs, profiled_by_macs):
    """Half of the blocks were not measured, so that every network has some of them."""
    path = by_macs.folder / "t.lut"
    shutil.copy(profiled_by_macs.folder / "t.lut", path)
    blocks = find_space(SPACE).blocks(PX)
    unknown = {block.key for block in blocks[::2]}
    by_macs.rows("t.lut", f"DELETE FROM measurements WHERE key IN ({', '.join('?' * len(unknown))})", *unknown)
    with LatencyTable.open(path) as table:
        table.estimate(blocks)
    done = search(by_macs, middle_ms(by_macs))
    assert done.code == 0, done.err
    assert "are only predicted; measuring them" in done.err
    with LatencyTable.read(path) as table:
        measured = {trial.key for trial in table.measurements if trial.ok}
    assert measured & unknown


def test_unreachable_and_ambiguous_limits_are_refused(profiled):
    assert search(profiled, 0.001).fails(1, "the smallest latency is")
    assert search(profiled, 3, "--target", "nosuch").fails(2, "nosuch")
    assert search(profiled, 3, "--max-latency-ms", "4").fails(2, "--verify takes one table and one --max-latency-ms")
