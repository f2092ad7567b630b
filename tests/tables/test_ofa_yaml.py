"""OFA YAML: import of published files, export with the same predictions, refusal of bad files."""

import json
import os

import numpy as np
import pytest
import yaml

from ofa_nas.spaces import all_spaces, find_space
from ofa_nas.spaces.files import with_width
from ofa_tables.errors import EntriesMissing, FileError
from ofa_tables.formats import find_format
from ofa_tables.formats.exchange import export_table, import_files
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import LatencyModel, write_calibration
from ofa_tables.table import LatencyTable

FORMAT = find_format("ofa-yaml")
SPACE = find_space("ofa-mbv3-w1.0")
KEYS = SPACE.keys(160)


def row(mean, std=0.01, count=100):
    return {"count": count, "mean": mean, "std": std}


def rows(resolution_px=160):
    return {key: row(0.1 + number / 100) for number, key in enumerate(SPACE.keys(resolution_px))}


@pytest.fixture
def file(tmp_path):
    """Write a file: bytes, text, or a mapping as YAML."""

    def make(content, name="160_lookup_table.yaml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else _text(content).encode())
        return path

    return make


def _text(content):
    return content if isinstance(content, str) else yaml.safe_dump(content)


@pytest.fixture
def table_of(tmp_path):
    """Import files and return their table."""

    def make(*files, name="imported.lut", space=SPACE):
        import_files(files, FORMAT, space, "note10", tmp_path / name)
        return LatencyTable.read(tmp_path / name)

    return make


@pytest.fixture
def refused(tmp_path, file):
    """Import a bad file, check that no table is created, and return the message."""

    def refuse(content, name="160_lookup_table.yaml"):
        path = file(content, name)
        with pytest.raises(FileError) as caught:
            import_files([path], FORMAT, SPACE, "note10", tmp_path / "t.lut")
        assert sorted(os.listdir(tmp_path)) == [name]
        text = str(caught.value)
        assert "\n" not in text
        assert str(path) in text
        return text

    return refuse


def test_a_file_gives_its_latencies(file, table_of):
    with table_of(file(rows())) as table:
        entry = table.entry(KEYS[3], 160)
        assert (entry.latency_ms, entry.mean_ms, entry.std_ms, entry.samples) == (0.13, 0.13, 0.01, 100)
        assert (table.identity.fingerprint, table.identity.runtime) == ("imported", "imported")
        assert table.identity.runtime_version == "ofa-yaml"


def test_a_key_has_one_latency_per_resolution(file, table_of):
    shared = next(key for key in KEYS if key in SPACE.keys(224))
    one, two = rows(160), rows(224)
    one[shared], two[shared] = row(1.0), row(2.0)
    with table_of(file(one), file(two, "224_lookup_table.yaml")) as table:
        assert table.entry(shared, 160).latency_ms == 1.0
        assert table.entry(shared, 224).latency_ms == 2.0


def test_the_resolution_is_read_from_the_first_key_if_the_name_has_none(file, table_of):
    with table_of(file(rows(), "pixel.yml")) as table:
        assert table.published_resolutions_px() == [160]


def test_count_and_std_may_be_absent(file, table_of):
    with table_of(file({key: {"mean": 0.5} for key in KEYS})) as table:
        assert (table.entry(KEYS[0]).std_ms, table.entry(KEYS[0]).samples) == (0.0, 0)


def test_the_same_file_twice_counts_once(file, table_of):
    content = rows()
    with table_of(file(content), file(content, "copy.yaml")) as table:
        assert {entry.trials for entry in table.entries} == {1}


def test_files_that_disagree_are_refused(file, table_of, tmp_path):
    one, two = rows(), rows()
    two[KEYS[0]] = row(9.0)
    with pytest.raises(FileError, match=r"160_lookup_table.yaml and .*other.yaml disagree on Conv-input"):
        table_of(file(one), file(two, "other.yaml"))
    assert not (tmp_path / "imported.lut").exists()


def test_one_bad_file_prevents_the_import(file, table_of, tmp_path):
    with pytest.raises(FileError):
        table_of(file(rows()), file("{", "224_lookup_table.yaml"))
    assert not (tmp_path / "imported.lut").exists()


# Bad files.


def test_missing_keys_are_counted_and_the_first_is_named(refused):
    content = rows()
    for key in KEYS[10:22]:
        del content[key]
    assert f"lacks 12 of 96 keys (the first: {KEYS[10]})" in refused(content)


def test_the_file_of_another_space_is_recognised(refused):
    content = {key: row(1.0) for key in find_space("ofa-mbv3-w1.2").keys(160)}
    assert "it looks like a table of ofa-mbv3-w1.2; use --space ofa-mbv3-w1.2" in refused(content)


def test_an_unknown_key_is_reported_with_its_line_and_the_nearest_key(refused):
    text = _text(rows()) + "Conv_3-input:1x1x960-output:1x1x1280:\n  mean: 1.0\n"
    line = text.count("\n") - 1
    message = refused(text)
    assert f"has 1 unknown key (line {line}: Conv_3-input:1x1x960-output:1x1x1280; the nearest is " in message
    assert "the nearest is Conv_2-input:1x1x960-output:1x1x1280" in message


@pytest.mark.parametrize("again", ["%s:\n  mean: 1.0\n", "'%s': {mean: 1.0}\n"])
def test_a_key_given_twice_is_named_with_both_lines(refused, again):
    text = _text(rows()) + again % KEYS[0]
    assert f"{KEYS[0]} is already in line " in refused(text)


def test_a_key_given_twice_in_one_line_is_found(refused):
    pairs = [f"'{key}': {{mean: 1.0}}" for key in [*KEYS, KEYS[5]]]
    assert f"{KEYS[5]} is already in line" in refused("{" + ", ".join(pairs) + "}")


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("-0.5", "is -0.5; a latency must be above zero"),
        ("0", "is 0; a latency must be above zero"),
        ("0.0", "is 0.0; a latency must be above zero"),
        (".nan", "is .nan; correct the entry"),
        ("-.inf", "is -.inf; correct the entry"),
        ("NaN", "is NaN; correct the entry"),
        ("1e999", "out of range"),
        ("1e300", "below one day"),
        ("fast", "is 'fast', which is not a number"),
        ("'0.5'", "which is not a number"),
        ("0x10", "which is not a number"),
        ("1_0", "which is not a number"),
        ("", "is '', which is not a number"),
        ("null", "which is not a number"),
        ("true", "which is not a number"),
        ("!!python/name:os.system 1.0", "which is not a number"),
        ("[1.0]", "a nested value instead of a key or a number"),
        ("{a: 1.0}", "a nested value instead of a key or a number"),
    ],
)
def test_an_invalid_mean_is_refused(refused, written, complaint):
    content = _text(rows()).replace("mean: 0.13\n", f"mean: {written}\n")
    message = refused(content)
    assert complaint in message
    assert "line " in message


@pytest.mark.parametrize(
    "fields", [{"std": -0.1}, {"std": float("nan")}, {"count": -1}, {"count": 1.5}, {"count": 1e30}]
)
def test_invalid_std_and_count_are_refused(refused, fields):
    content = rows()
    content[KEYS[3]].update(fields)
    assert f"{next(iter(fields))} of {KEYS[3]} is" in refused(content)


def test_an_entry_without_a_mean_is_refused(refused):
    content = rows()
    content[KEYS[3]] = {"count": 1, "std": 1.0}
    assert f"{KEYS[3]} has no mean" in refused(content)


@pytest.mark.parametrize("value", [0.5, [0.5], None])
def test_an_entry_that_is_not_a_mapping_is_refused(refused, value):
    content = rows()
    content[KEYS[3]] = value
    assert f"{KEYS[3]} has no {{count, mean, std}}" in refused(content)


def test_a_field_given_twice_is_refused(refused):
    content = _text(rows()).replace("mean: 0.13\n", "mean: 0.13\n  mean: 0.14\n")
    assert "has mean twice" in refused(content)


@pytest.mark.parametrize("text", ["", "# nothing", "- 1\n- 2\n", "a table", "1.5", "--- []"])
def test_a_file_that_is_not_a_mapping_is_refused(refused, text):
    assert "is not a latency table" in refused(text)


@pytest.mark.parametrize("text", ["{", "a: b: c", "\t- x", "a: &x", "a: *nowhere", "\x00", "%FOO\n"])
def test_a_file_that_is_not_yaml_is_refused(refused, text):
    assert refused(text)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\xd8", bytes(range(256)), b"SQLite format 3\0\xfe"])
def test_a_file_that_is_not_text_is_refused(refused, content):
    assert "not a text file" in refused(content)


def test_a_second_document_is_refused(refused):
    assert "more than one YAML document" in refused(_text(rows()) + "---\n{}\n")


def test_a_file_without_a_resolution_is_refused(refused):
    content = rows()
    del content[KEYS[0]]
    assert "has no resolution" in refused(content, "pixel.yaml")


def test_a_name_that_contradicts_the_content_is_refused(refused):
    assert "named for 224 px, but its Conv-input key is for 160 px" in refused(rows(), "224_lookup_table.yaml")


def test_a_resolution_that_the_space_does_not_have_is_refused(refused):
    assert "is for 150 px, which ofa-mbv3-w1.0 does not have" in refused("a: {mean: 1.0}", "150_lookup_table.yaml")


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a {mean: 1.0}\n" + "".join(f"k{n}: &k{n} [*a, *a]\n" for n in range(99)),
        "a: &a {mean: 1.0}\nb: *a\n",
        "a: {mean: &m 1.0, <<: *m}\n",
        "a: " + "[" * 100_000,
        "[" * 100_000,
        "a: {mean: " + "{a: " * 100_000,
        "a: {" + ", ".join(f"f{n}: 1" for n in range(1000)) + "}\n",
        "a: {mean: " + "9" * 10_000 + "}\n",
    ],
)
def test_aliases_deep_nesting_and_excessive_fields_are_refused(refused, bomb):
    assert len(refused(bomb)) < 1000


def test_a_file_of_several_megabytes_is_not_read(refused):
    assert "larger than 4 MiB" in refused(b"a: {mean: 1.0}\n" * 400_000)


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(FileError, match="cannot read"):
        import_files([tmp_path / name], FORMAT, SPACE, "note10", tmp_path / "t.lut")


# Export.


@pytest.mark.parametrize("seed", range(3))
def test_an_exported_table_gives_the_same_predictions(make_table, table_of, tmp_path, seed):
    population = SPACE.sample_spread(500, np.random.default_rng(seed), (160, 224))
    with LatencyTable.read(make_table(resolutions=(160, 224), seed=seed)) as table:
        exported = export_table(table, FORMAT, tmp_path / "out", all_spaces())
        before = LatencyModel(table, SPACE).predict(population)
    with table_of(*exported.files) as again:
        assert (LatencyModel(again, SPACE).predict(population) == before).all()


def test_an_imported_table_is_exported_unchanged(file, table_of, tmp_path):
    content = rows()
    with table_of(file(content)) as table:
        export_table(table, FORMAT, tmp_path / "out", all_spaces())
    assert yaml.safe_load((tmp_path / "out" / "160_lookup_table.yaml").read_text()) == content


def test_an_export_contains_latencies_without_calibration(make_table, tmp_path):
    path = make_table()
    with LatencyTable.open(path) as table:
        write_calibration(table, SPACE, Calibration(2.0, 8))
        export_table(table, FORMAT, tmp_path / "out", all_spaces())
        written = yaml.safe_load((tmp_path / "out" / "160_lookup_table.yaml").read_text())
        assert written[KEYS[0]]["mean"] == table.entry(KEYS[0]).latency_ms
        assert written[KEYS[0]]["count"] == 15


def test_only_complete_resolutions_are_exported(make_table, tmp_path):
    only_at_224 = next(key for key in SPACE.keys(224) if key not in KEYS)
    with LatencyTable.read(make_table(resolutions=(160, 224), without=[only_at_224])) as table:
        exported = export_table(table, FORMAT, tmp_path / "out", all_spaces())
    assert [file.name for file in exported.files] == ["160_lookup_table.yaml"]


def test_nothing_is_written_if_no_resolution_is_complete(make_table, tmp_path):
    with (
        LatencyTable.read(make_table(without=KEYS[:12])) as table,
        pytest.raises(EntriesMissing, match=r"lacks 12 of 96 entries of ofa-mbv3-w1\.0 at 160 px"),
    ):
        export_table(table, FORMAT, tmp_path / "out", all_spaces())
    assert not (tmp_path / "out").exists()


def test_only_a_named_space_is_exported(make_table, tmp_path):
    space = find_space("compofa-fixed-w1.0")
    with LatencyTable.read(make_table()) as table:
        exported = export_table(table, FORMAT, tmp_path / "out", all_spaces(), space)
    assert sorted(yaml.safe_load(exported.files[0].read_text())) == sorted(space.keys(160))


def test_an_export_overwrites_no_file_and_writes_all_or_none(make_table, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "224_lookup_table.yaml").write_text("mine")
    with (
        LatencyTable.read(make_table(resolutions=(160, 224))) as table,
        pytest.raises(FileError, match=r"224_lookup_table\.yaml already exists"),
    ):
        export_table(table, FORMAT, out, all_spaces())
    assert os.listdir(out) == ["224_lookup_table.yaml"]


def test_a_failed_export_names_the_path(make_table, tmp_path):
    (tmp_path / "file").touch()
    with LatencyTable.read(make_table()) as table, pytest.raises(FileError, match=r"cannot write .*file/out"):
        export_table(table, FORMAT, tmp_path / "file" / "out", all_spaces())


def test_a_variance_is_read_as_its_square_root(file, table_of):
    given = {key: {"count": 9, "mean": value["mean"], "var": 0.0004} for key, value in rows().items()}
    with table_of(file(given)) as table:
        assert table.entry(KEYS[3], 160).std_ms == pytest.approx(0.02)
    given[KEYS[3]]["var"] = -1
    with pytest.raises(FileError, match=r"var of .* is -1; a variance must not be negative"):
        FORMAT.read(file(given), SPACE)


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_with_the_same_content_is_read(file, table_of, indent):
    given = rows()
    given[KEYS[0]]["mean"] = 1e-05
    with table_of(file(json.dumps(given, indent=indent), "160_lookup_table.json")) as table:
        assert [table.entry(key, 160).latency_ms for key in KEYS] == [given[key]["mean"] for key in KEYS]


@pytest.mark.parametrize(
    ("space", "width", "said"),
    [
        ("ofa-proxyless-w1.3", 1.0, "it looks like a table of ofa-proxyless of width 1, which is not a space"),
        ("ofa-proxyless-w1.3", 1.4, "it looks like a table of ofa-proxyless of width 1.4"),
        ("ofa-mbv3-w1.0", 0.75, "it looks like a table of ofa-mbv3 of width 0.75"),
    ],
)
def test_a_table_of_another_width_says_which_width_it_looks_like(file, space, width, said):
    given = {key: row(1.0) for key in with_width(space, width).keys(160)}
    with pytest.raises(FileError, match=said):
        FORMAT.read(file(given), find_space(space))


def test_a_table_of_another_space_says_which_space_it_looks_like(file):
    given = {key: row(1.0) for key in find_space("ofa-mbv3-w1.2").keys(160)}
    with pytest.raises(FileError, match=r"it looks like a table of ofa-mbv3-w1\.2; use --space ofa-mbv3-w1\.2"):
        FORMAT.read(file(given), SPACE)


@pytest.mark.parametrize(
    "name", ["100%/160_lookup_table.yaml", "%s %d/160_lookup_table.yaml", "{0}[red]/160_lookup_table.yaml"]
)
def test_a_path_may_contain_any_character(file, table_of, tmp_path, name):
    (tmp_path / name).parent.mkdir()
    with table_of(file(rows(), name)) as table:
        assert len(table.entries) == len(KEYS)
    given = rows()
    given[KEYS[0]]["mean"] = -1
    with pytest.raises(FileError, match=r"mean of .* is -1"):
        FORMAT.read(file(given, name), SPACE)


def test_a_key_may_contain_a_percent_sign(file):
    with pytest.raises(FileError, match="100%s is 'x', which is not a number"):
        FORMAT.read(file({**rows(), "100%s": row("x")}), SPACE)
