"""Files are regular and of limited size; JSON has limited depth and digits."""

import json
import os
import time

import pytest

from ofa_tables.errors import FileError, TableError, TableUnreadable
from ofa_tables.reading import DEEPEST, parse_json, read_bytes, read_text
from ofa_tables.store import schema
from ofa_tables.table import LatencyTable


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="is a pipe, a device or a socket; give a regular file"):
        read_bytes(tmp_path / "pipe", 1 << 20, "a test")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(path):
    with pytest.raises(FileError, match="give a regular file"):
        read_bytes(path, 1 << 20, "a test")


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfabc")
    (tmp_path / "link").symlink_to("file")
    assert read_text(tmp_path / "link", 1 << 20, "a test", "") == "abc"


def test_a_file_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(FileError, match="larger than 1 MiB, the limit of a test"):
        read_bytes(tmp_path / "file", 1 << 20, "a test")


def test_a_directory_and_a_missing_file_are_refused(tmp_path):
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "absent", "No such file")):
        with pytest.raises(FileError, match=f"cannot read .*{reason}"):
            read_bytes(path, 1 << 20, "a test")


@pytest.mark.parametrize("value", [{"a": [1, -2.5, "[[", "é\U0001f600"], "b": None}, [], "x", 2**63, {"[": "]"}])
def test_json_is_read_as_it_was_written(value):
    assert parse_json(json.dumps(value)) == value


def test_json_may_be_wide_but_not_deep():
    assert parse_json(json.dumps([[{}]] * 1000)) == [[{}]] * 1000
    deepest = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse_json(deepest)) == deepest
    for text in (f"[{deepest}]", '{"a":' * 5000 + "1" + "}" * 5000, "[" * 100_000):
        with pytest.raises(ValueError, match=r"nested|delimiter|Expecting"):
            parse_json(text)


@pytest.mark.parametrize("text", ["9" * 21, "-" + "9" * 5000, '"\\ud800"', '{"\\udfff": 1}', '["', "nul"])
def test_json_that_could_not_be_stored_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(text)


@pytest.mark.parametrize("text", ['"' * 1_000_000, "[{" * 500_000, '["\\', '[""' * 300_000, "[]" * 500_000])
def test_the_depth_of_json_takes_linear_time(text):
    began = time.process_time()
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(text)
    assert time.process_time() - began < 2


def test_a_table_that_takes_too_long_is_given_up(make_table, monkeypatch):
    path = make_table()
    monkeypatch.setattr(schema, "_SECONDS", -1e9)
    monkeypatch.setattr(schema, "_STEPS", 100)
    with pytest.raises(TableUnreadable, match="reading it takes too long"):
        LatencyTable.read(path)


def test_a_refused_table_does_not_change(make_table):
    path = make_table()
    content = path.read_bytes().replace(b"CREATE INDEX measurements_by_key", b"CREATE INDEX measurements_by_kez")
    path.write_bytes(content)
    for way in (LatencyTable.read, LatencyTable.open):
        with pytest.raises(TableUnreadable, match="damaged"):
            way(path)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("value", [{"chip": "\ud800"}, {"chip": []}, {"chip": 10**30}])
def test_a_value_that_could_not_be_read_again_is_not_stored(make_table, value):
    path = make_table()
    with LatencyTable.open(path) as table, pytest.raises(TableError, match="cannot store this"):
        table.store.put("device", value)
    with LatencyTable.read(path) as table:
        assert table.device == {"chip": "synthetic"}
