"""CSV and Parquet: one row per entry."""

import io
import math

import numpy as np
import pandas as pd
import pytest

from ofa_nas.spaces import find_space
from ofa_tables.errors import FileError, OfaError, UnknownName, UsageError
from ofa_tables.formats import find_format
from ofa_tables.formats.exchange import export_table, import_files
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.table import LatencyTable

FORMAT = find_format("csv")
SPACE = find_space("ofa-mbv3-w1.0")
KEYS = SPACE.keys(160)
COLUMNS = ["key", "resolution", "latency_ms", "mean_ms", "std_ms", "spread", "trials", "samples", "flags", "failure"]


def lines(keys=KEYS, resolution=None):
    end = "" if resolution is None else f",{resolution}"
    return [f"{key},{0.1 + number / 100}{end}" for number, key in enumerate(keys)]


@pytest.fixture
def table_of(tmp_path):
    """Import a CSV file and return its table."""

    def make(header, rows, space=SPACE):
        path = tmp_path / "given.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        import_files([path], FORMAT, space, "note10", tmp_path / "imported.lut")
        return LatencyTable.read(tmp_path / "imported.lut")

    return make


@pytest.mark.parametrize("column", ["latency_ms", "mean_ms", "mean"])
def test_only_a_key_and_a_latency_are_required(table_of, column):
    with table_of(f"key,{column}", lines()) as table:
        assert table.entry(KEYS[3]).latency_ms == 0.13
        assert LatencyModel(table, SPACE).resolutions_px == [160]


def test_std_samples_and_resolution_are_read_if_present(table_of):
    rows = [f"{key},160,0.5,0.6,0.1,77,whatever" for key in KEYS]
    with table_of("key,resolution,latency_ms,mean,std,count,more", rows) as table:
        entry = table.entry(KEYS[3], 160)
        assert (entry.resolution_px, entry.latency_ms, entry.mean_ms) == (160, 0.5, 0.6)
        assert (entry.std_ms, entry.samples) == (0.1, 77)


def test_blank_lines_and_spaces_around_values_are_ignored(table_of):
    with table_of("key , mean", ["", *(line.replace(",", " , ") for line in lines()), ""]) as table:
        assert len(table.entries) == 96


def test_an_exported_and_imported_table_gives_the_same_predictions(make_table, failed_trial, tmp_path):
    path = make_table(resolutions=(160, 192))
    with LatencyTable.open(path) as table:
        table.add([failed_trial(SPACE.keys(224)[7], "crashed", "signal 11,\nafter 3 runs")])
        export_table(table, FORMAT, tmp_path / "out.csv", [])
        before = table.entries
        population = SPACE.sample(300, np.random.default_rng(0), (160, 192))
        priced = LatencyModel(table, SPACE).predict(population)
    import_files([tmp_path / "out.csv"], FORMAT, SPACE, "bench", tmp_path / "again.lut")
    with LatencyTable.read(tmp_path / "again.lut") as again:
        assert (LatencyModel(again, SPACE).predict(population) == priced).all()
        for one, two in zip(before[:-1], again.entries, strict=False):
            assert (one.key, one.mean_ms, one.std_ms, one.samples) == (two.key, two.mean_ms, two.std_ms, two.samples)
        assert math.isnan(again.entries[-1].latency_ms)
        assert again.entries[-1].failure == "crashed: signal 11, after 3 runs"


def test_the_rows_of_an_export(make_table, tmp_path):
    with LatencyTable.read(make_table()) as table:
        export_table(table, FORMAT, tmp_path / "out.csv", [])
        frame = pd.read_csv(tmp_path / "out.csv")
        assert list(frame) == COLUMNS
        assert frame["key"].tolist() == [entry.key for entry in table.entries]
        assert frame["resolution"].isna().all()
        assert frame["latency_ms"].tolist() == [entry.latency_ms for entry in table.entries]
        assert (frame["trials"] == 3).all()
        assert (frame["samples"] == 15).all()


def test_an_export_can_be_limited_to_a_space(make_table, tmp_path):
    space = find_space("compofa-fixed-w1.0")
    with LatencyTable.read(make_table()) as table:
        export_table(table, FORMAT, tmp_path / "out.csv", [], space)
    assert sorted(pd.read_csv(tmp_path / "out.csv")["key"]) == sorted(space.keys(160))


@pytest.mark.parametrize(
    ("header", "rows", "complaint"),
    [
        ("name,mean", lines(), "needs the columns key and latency_ms"),
        ("key,latency", lines(), "it has: key, latency"),
        ("key,mean,mean", [line + ",1" for line in lines()], "has the column mean twice"),
        ("key,mean", lines()[3:], "lacks 3 of 96 keys"),
        ("key,mean,resolution", lines(resolution=160)[:-1], "lacks 1 of 96 keys"),
        ("key,mean,resolution", lines(resolution=150), "is for 150 px, which ofa-mbv3-w1.0 does not have"),
        ("key,mean", [*lines(), "Conv_9-input:1,1.0"], "line 98: Conv_9-input:1"),
        ("key,mean", [*lines(), lines()[4]], f"line 98: {KEYS[4]} is already in line 6"),
        ("key,mean", [*lines()[1:], f"{KEYS[0]},-1"], "line 97: mean of Conv-input:160x160x3-output:80x80x16 is -1"),
        ("key,mean", [*lines()[1:], f"{KEYS[0]},"], "has neither a latency nor a failure"),
        ("key,mean", [*lines()[1:], KEYS[0]], "has neither a latency nor a failure"),
        ("key,mean", [*lines()[1:], f"{KEYS[0]},nan"], "is nan; correct the entry"),
        ("key,mean", [*lines(), ",1.0"], "line 98: a row without a key"),
        ("key,mean", [*lines(), "a,1,2,3"], "is not CSV"),
        ("key,mean", ['"open'], "is not CSV"),
        ("key,mean" + "," * 5000, [], "more than 100 columns"),
        ("key,mean", [], "lacks 96 of 96 keys"),
        ("", [], "is empty"),
    ],
)
def test_a_bad_file_is_refused_with_one_line(table_of, tmp_path, header, rows, complaint):
    with pytest.raises(FileError) as caught:
        table_of(header, rows)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "imported.lut").exists()


def test_parquet_has_the_same_rows_and_the_identity(make_table, tmp_path):
    pytest.importorskip("pyarrow")
    with LatencyTable.read(make_table()) as table:
        for name in ("csv", "parquet"):
            export_table(table, find_format(name), tmp_path / name, [])
    frame = pd.read_parquet(tmp_path / "parquet")
    assert frame.attrs["target"] == "bench"
    text = frame.to_csv(index=False, lineterminator="\n")
    assert pd.read_csv(io.StringIO(text)).equals(pd.read_csv(tmp_path / "csv"))


def test_without_pyarrow_the_message_names_the_package(make_table, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with (
        LatencyTable.read(make_table()) as table,
        pytest.raises(OfaError, match=r"pip install 'ofa-profile\[parquet\]'"),
    ):
        export_table(table, find_format("parquet"), tmp_path / "t.parquet", [])


def test_parquet_cannot_be_imported(tmp_path):
    with pytest.raises(UsageError, match="parquet can only be exported"):
        import_files([], find_format("parquet"), SPACE, "note10", tmp_path / "t.lut")


def test_an_unknown_format_suggests_similar_names():
    with pytest.raises(UnknownName, match="did you mean ofa-yaml"):
        find_format("ofa-yml")


def test_a_variance_is_read_as_its_square_root(table_of):
    with table_of("key,mean,var", [f"{line},0.0004" for line in lines()]) as table:
        assert table.entry(KEYS[3], 160).std_ms == pytest.approx(0.02)


def test_a_path_and_a_key_may_contain_a_percent_sign(tmp_path):
    path = tmp_path / "100%s.csv"
    path.write_text("key,mean\n" + "\n".join([*lines(), "%d,-1"]))
    with pytest.raises(FileError, match=r"100%s\.csv, line 98: mean of %d is -1"):
        FORMAT.read(path, SPACE)


def test_rows_of_another_space_say_which_space_they_look_like(table_of):
    with pytest.raises(FileError, match=r"it looks like a table of ofa-mbv3-w1\.2; use --space ofa-mbv3-w1\.2"):
        table_of("key,mean", lines(find_space("ofa-mbv3-w1.2").keys(160)))


def test_json_is_recognised(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('{"a": {"mean": 1}}')
    with pytest.raises(FileError, match="is JSON, not CSV; use --format ofa-yaml"):
        FORMAT.read(path, SPACE)
