"""The table file survives crashes; errors describe what is wrong with it."""

import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from ofa_tables.errors import TableError, TableUnreadable
from ofa_tables.store.sqlite import FORMAT
from ofa_tables.table import LatencyTable

WRITER = """
import os, signal, sys, time
from pathlib import Path
from ofa_tables.store.measurement import Measurement
from ofa_tables.table import LatencyTable

table = LatencyTable.open(Path(sys.argv[1]))
for number in range(20):
    table.add([Measurement(f"killed-{number}", "k", count=1, median_ms=1.0, mean_ms=1.0, std_ms=0.0)])
print("committed", flush=True)
if sys.argv[2] == "exit":
    os._exit(1)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path, identity, trial):
    path = tmp_path / "t.lut"
    with LatencyTable.create(path, identity, {}) as table:
        table.add([trial("k", 1.0, 2.0, 3.0)])
    return path


@pytest.fixture
def small_disk(tmp_path):
    """A directory on a file system of 256 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount a small file system: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_repeated_trial_is_dropped(path, trial):
    with LatencyTable.open(path) as table:
        table.add([trial("k", 5.0, trial_id="once")])
        table.add([trial("k", 9.0, trial_id="once"), trial("k", 9.0, trial_id="twice")])
        assert [m.median_ms for m in table.measurements] == [2.0, 5.0, 9.0]


def test_a_measurement_is_read_as_it_was_written(path, trial):
    taken = trial("other", 1.5, 2.5, round=2, warmup_runs=7, first_ns=9, warm=False, started_at=4.0)
    with LatencyTable.open(path) as table:
        table.add([taken])
    with LatencyTable.read(path) as table:
        found = list(table.store.measurements(samples=True))[-1]
        assert found == taken
        assert found.samples_ms.tolist() == [1.5, 2.5]
        assert table.measurements[-1].samples_ns == b""


def test_a_closed_table_is_one_file(path):
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_committed_measurements_survive_a_killed_writer(path, end):
    with subprocess.Popen([sys.executable, "-c", WRITER, path, end], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "committed\n"
        if end == "kill":
            writer.send_signal(signal.SIGKILL)
    with LatencyTable.read(path) as table:
        assert len(table.measurements) == 21
    assert os.listdir(path.parent) == [path.name]


def test_a_second_writer_is_refused(path):
    with LatencyTable.open(path):
        for again in (LatencyTable.open, LatencyTable.read):
            with pytest.raises(TableUnreadable, match="in use by another command"):
                again(path)


def test_two_readers_can_open_a_table(path):
    with LatencyTable.read(path) as one, LatencyTable.read(path) as two:
        assert one.entries == two.entries


def test_reading_does_not_change_the_file(path):
    before = path.read_bytes()
    with LatencyTable.read(path) as table:
        assert table.entries
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.01, 0.3, 0.5, 0.99])
def test_a_truncated_table_is_damaged(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    for way in (LatencyTable.open, LatencyTable.read):
        with pytest.raises(TableUnreadable, match="damaged"):
            way(path)


@pytest.mark.parametrize("content", [b"160:\n  mean: 1.0\n", b"\0" * 4096, b"SQLite format 3\0" + b"\0" * 400])
def test_a_file_that_is_not_a_table_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(TableUnreadable, match="not a latency table"):
        LatencyTable.open(path)
    assert path.read_bytes() == content


def test_another_database_is_refused_unchanged(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (x)")
    before = path.read_bytes()
    with pytest.raises(TableUnreadable, match="not a latency table"):
        LatencyTable.open(path)
    assert path.read_bytes() == before


def test_a_newer_format_asks_for_an_update(path):
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version={FORMAT + 1}")
    with pytest.raises(TableUnreadable, match=f"format {FORMAT + 1}.*update"):
        LatencyTable.open(path)


@pytest.mark.parametrize("name", ["absent.lut", "absent/t.lut"])
def test_a_missing_table_is_reported_with_the_command_that_creates_it(tmp_path, name):
    with pytest.raises(TableUnreadable, match="does not exist; create it"):
        LatencyTable.open(tmp_path / name)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(TableUnreadable, match="is a directory"):
        LatencyTable.read(tmp_path)


def test_an_existing_file_is_not_replaced(path, identity):
    before = path.read_bytes()
    with pytest.raises(TableError, match="already exists"):
        LatencyTable.create(path, identity, {})
    assert path.read_bytes() == before


def test_a_failed_build_leaves_no_file(tmp_path, identity):
    with pytest.raises(ZeroDivisionError), LatencyTable.building(tmp_path / "t.lut", identity, {}):
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("folder", ["absent", "file"])
def test_a_table_needs_an_existing_directory(tmp_path, identity, folder):
    (tmp_path / "file").touch()
    with pytest.raises(TableError, match="cannot create"):
        LatencyTable.create(tmp_path / folder / "t.lut", identity, {})


def test_the_journal_of_a_removed_table_is_ignored(path, identity):
    subprocess.run([sys.executable, "-c", WRITER, path, "exit"], capture_output=True)
    assert len(os.listdir(path.parent)) == 2
    path.unlink()
    with LatencyTable.create(path, identity, {}) as table:
        assert table.measurements == []


def test_a_full_disk_keeps_committed_measurements(small_disk, identity, trial):
    path = small_disk / "t.lut"
    with LatencyTable.create(path, identity, {}) as table:
        kept = 0
        with pytest.raises(TableError, match="no space left"):  # noqa: PT012
            while True:
                table.add([trial("k", *range(1, 1000))])
                kept += 1
    with LatencyTable.open(path) as table:
        assert len(table.measurements) == kept > 0


def test_a_full_disk_prevents_a_new_table(small_disk, identity):
    (small_disk / "filler").write_bytes(b"\0" * 250_000)
    with pytest.raises(TableError, match=r"no space|not full"):
        LatencyTable.create(small_disk / "t.lut", identity, {})
    assert os.listdir(small_disk) == ["filler"]
