"""What a search finds is measured on this machine, and the search continues until a network is fast enough there."""

import contextlib
import shutil
import sqlite3

import pytest

pytestmark = pytest.mark.serial

SPACE = "compofa-fixed-w1.0"
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


def test_the_network_that_comes_back_is_measured_within_the_limit(ofa, profiled):
    shutil.copy(profiled.folder / "t.lut", ofa.folder / "t.lut")
    limit_ms = middle_ms(ofa)
    done = search(ofa, limit_ms, "--out", "found.json")
    assert is_verified(done, limit_ms)
    # What was measured calibrates the table, and is never measured twice.
    roles = ofa.rows("t.lut", "SELECT role FROM networks WHERE role = 'calibration'")
    assert len(roles) == 1 + len(done.json["misses"])


def test_a_table_that_promises_too_much_is_found_out(ofa, profiled):
    shutil.copy(profiled.folder / "t.lut", ofa.folder / "t.lut")
    limit_ms = middle_ms(ofa)
    with contextlib.closing(sqlite3.connect(ofa.folder / "t.lut")) as connection, connection:
        connection.execute(
            "UPDATE measurements SET median_ms = median_ms * ?, mean_ms = mean_ms * ? WHERE key NOT LIKE 'network:%'",
            (TOO_LOW, TOO_LOW),
        )
    done = search(ofa, limit_ms)
    assert is_verified(done, limit_ms)
    assert "the table is recalibrated" in done.err
    first = done.json["misses"][0]
    assert first["measured_latency_ms"] > limit_ms >= first["predicted_latency_ms"]


def test_what_cannot_be_verified_is_said(profiled):
    assert search(profiled, 0.001).fails(1, "the smallest latency is")
    assert search(profiled, 3, "--target", "nosuch").fails(2, "nosuch")
    assert search(profiled, 3, "--max-latency-ms", "4").fails(2, "--verify takes one table and one --max-latency-ms")
