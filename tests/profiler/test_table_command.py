"""``ofa-table`` prints results on standard output and errors on standard error, without a traceback."""

import json
import os
import re
import sys

import numpy as np
import pytest
import yaml

from ofa_nas.spaces import Architecture, find_space, parse_architecture
from ofa_profiler.commands import table as command
from ofa_tables.identity import Identity, Settings
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import write_calibration
from ofa_tables.store.measurement import Measurement
from ofa_tables.table import LatencyTable

SPACE = find_space("ofa-mbv3-w1.0")
SMALLEST = Architecture({"ks": (3,) * 20, "e": (3,) * 20, "d": (2,) * 5}, 160).to_json()
LARGEST = Architecture({"ks": (7,) * 20, "e": (6,) * 20, "d": (4,) * 5}, 160).to_json()

IDENTITY = Identity("bench", "f00d", "onnxruntime", "1.18.0", Settings(threads=4))


@pytest.fixture
def run(monkeypatch, capfd):
    """Run the command and return its exit code, standard output, and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ofa-table", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return call


@pytest.fixture
def run_json(run):
    """Run the command with --json and return the object that it prints."""

    def call(*arguments):
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        assert out.count("\n") == 1
        return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return call


@pytest.fixture
def refused(run):
    """Run a command that fails and return its error line."""

    def call(*arguments, code):
        ended, out, err = run(*arguments)
        assert (ended, out) == (code, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    return call


@pytest.fixture
def measured(tmp_path):
    """Make a table of every entry at 160 px with two trials each, a failed key, and an unstable key."""

    def make(name="t.lut", seed=0, identity=IDENTITY, without=()):
        rng = np.random.default_rng(seed)
        trials = [(key, rng.uniform(0.5, 1.0)) for key in SPACE.keys(160) if key not in without]
        trials = [*trials, ("shaky", 1.0), *trials, ("shaky", 2.0)]
        with LatencyTable.create(tmp_path / name, identity, {"chip": "a chip"}) as table:
            table.add(
                [
                    Measurement(f"{name}-{number}", key, count=10, median_ms=ms, mean_ms=ms, std_ms=0.0)
                    for number, (key, ms) in enumerate(trials)
                ]
            )
            table.add([Measurement(f"{name}-failed", "broken", "crashed", "signal [11]")])
        return tmp_path / name

    return make


@pytest.fixture
def csv(tmp_path):
    """Return a CSV file with every entry at 160 px."""
    path = tmp_path / "given.csv"
    path.write_text("key,mean\n" + "".join(f"{key},0.5\n" for key in SPACE.keys(160)))
    return path


def import_arguments(*files, format="csv", space=SPACE.name, out):
    return ["import", *files, "--format", format, "--space", space, "--target", "note10", "--out", out]


def predict_arguments(path, architecture, space=SPACE.name):
    return ["predict", path, "--space", space, "--architecture", json.dumps(architecture)]


@pytest.mark.parametrize("name", [[], ["show"], ["import"], ["export"], ["merge"], ["predict"]])
def test_the_help_of_every_command_has_an_example(run, name):
    code, out, _ = run(*name, "--help")
    assert code == 0
    assert f"Example:\n    ofa-table {' '.join(name)}" in out


# Show.


def test_show_prints_identity_and_contents(run_json, measured):
    path = measured()
    shown = run_json("show", path)
    assert shown["table"] == str(path)
    assert (shown["target"], shown["runtime"], shown["runtime_version"]) == ("bench", "onnxruntime", "1.18.0")
    assert shown["settings"] == {"precision": "fp32", "threads": 4, "batch": 1}
    assert (shown["entries"], shown["failed"], shown["flagged"], shown["networks"]) == (98, 1, 97, 0)
    assert shown["flags"] == {"few-samples": 97, "unstable": 1}
    assert {space["space"] for space in shown["spaces"]} == {SPACE.name, "compofa-fixed-w1.0", "compofa-elastic-w1.0"}
    fields = ["space", "resolution", "entries", "predicted", "smallest_ms", "largest_ms", "calibrated"]
    assert list(shown["spaces"][0]) == fields


def test_text_of_a_table_cannot_change_the_terminal(run, tmp_path):
    path = tmp_path / "t.lut"
    hostile = "\x1b]0;owned\x07\x1b[2J\rerror: forged"
    with LatencyTable.create(path, Identity(hostile, "f", hostile, hostile), {"chip": hostile}) as table:
        table.add([Measurement(f"{hostile} 1", hostile, status="crashed", error=hostile)])
    for words in (("show", path, "--keys"), ("check", path)):
        code, out, err = run(*words)
        assert code in (0, 1)
        assert "owned" in out
        assert not set("\x1b\x07\r") & set(out + err)


def test_a_merged_table_predicts_what_both_predicted(run_json, tmp_path):
    space = find_space("compofa-fixed-w1.0")
    blocks = space.blocks(160)
    for name, measured in (("a", blocks[:12]), ("b", blocks[12:24])):
        with LatencyTable.create(tmp_path / f"{name}.lut", IDENTITY, {}) as table:
            for block in measured:
                ms = {"count": 9, "median_ms": block.macs / 1e6, "mean_ms": block.macs / 1e6, "std_ms": 0.0}
                table.add([Measurement(f"{block.key} {trial}", block.key, **ms) for trial in range(3)])
            table.estimate(blocks)
    run_json("merge", tmp_path / "a.lut", tmp_path / "b.lut", "--out", tmp_path / "both.lut")
    shown = run_json("show", tmp_path / "both.lut")
    (reach,) = [reach for reach in shown["spaces"] if reach["space"] == space.name]
    assert (reach["resolution"], reach["entries"]) == (160, len(set(space.keys(160))))
    assert reach["predicted"] == len(set(space.keys(160)) - {block.key for block in blocks[:24]})


def test_show_names_the_rails_of_the_energies_and_the_settings_without_effect(run, run_json, tmp_path):
    path = tmp_path / "t.lut"
    reason = "nvpmodel -m 0 reported success, but the power mode is MODE_15W (2)"
    with LatencyTable.create(path, IDENTITY, {}) as table:
        for name, rails in (("a", "VDD_IN"), ("b", "VDD_IN"), ("c", "GPU + CPU")):
            condition = json.dumps({"power_w": 2.0, "power_of": rails})
            table.add([Measurement(name, name, count=9, median_ms=3.0, mean_ms=3.0, std_ms=0.0, condition=condition)])
        table.store.put("conditions", {"set": {"power-mode": "0"}, "not_set": {"power-mode": reason}})
    shown = run_json("show", path, "--keys")
    assert shown["energy_of"] == ["GPU + CPU", "VDD_IN"]
    assert {entry["key"]: entry["energy_of"] for entry in shown["keys"]} == {
        "a": "VDD_IN",
        "b": "VDD_IN",
        "c": "GPU + CPU",
    }
    _, out, _ = run("show", path)
    assert "GPU + CPU; VDD_IN; do not compare" in out
    assert f"power-mode=0 (not set: {reason})" in re.sub(r"\s+", " ", out)


def test_the_range_in_show_agrees_with_predict(run_json, measured):
    path = measured()
    reach = next(space for space in run_json("show", path)["spaces"] if space["space"] == SPACE.name)
    assert (reach["resolution"], reach["entries"], reach["calibrated"]) == (160, 96, False)
    for network in (SMALLEST, LARGEST):
        latency_ms = run_json(*predict_arguments(path, network))["latency_ms"]
        assert reach["smallest_ms"] <= latency_ms <= reach["largest_ms"]


def test_show_counts_networks_and_shows_calibrations(run_json, measured):
    path = measured()
    before = run_json("show", path)["spaces"][0]
    with LatencyTable.open(path) as table:
        table.store.add_network("network:a", SPACE.name, SMALLEST, "test")
        table.store.add_network("network:b", SPACE.name, LARGEST, "test")
        table.add([Measurement("network", "network:a", count=1, median_ms=9.0, mean_ms=9.0, std_ms=0.0)])
        write_calibration(table, SPACE, Calibration(1.5, 8))
    shown = run_json("show", path)
    assert (shown["networks"], shown["entries"]) == (1, 98)
    assert shown["calibrations"] == {
        SPACE.name: {"scale": 1.5, "networks": 8, "base_ms": 0.0, "error": None, "shifts": 0, "kind": "sum"}
    }
    assert shown["spaces"][0]["calibrated"]
    assert shown["spaces"][0]["largest_ms"] == pytest.approx(1.5 * before["largest_ms"])


def test_show_prints_text(run, measured):
    _, out, err = run("show", measured())
    assert re.search(r"target +bench \(a chip\)", out)
    assert re.search(r"settings +fp32, 4 threads, batch 1", out)
    assert re.search(r"flagged +97 \(97 few-samples, 1 unstable\)", out)
    assert re.search(rf"{SPACE.name} +160 +96 +\d+\.\d+ +\d+\.\d+", out)
    assert err == ""


def test_show_keys_lists_every_entry_untruncated(run, run_json, measured):
    path = measured()
    _, out, _ = run("show", path, "--keys")
    assert all(key in out for key in SPACE.keys(160))
    assert re.search(r"shaky +1\.5000 +\d+\.\d% +33\.3% +2 +20 +few-samples unstable", out)
    assert re.search(r"broken +0 +0 +crashed: signal \[11\]", out)
    listed = run_json("show", path, "--keys")["keys"]
    assert len(listed) == 98
    assert listed[-1]["latency_ms"] is None


# Import, export, merge.


def test_an_imported_table_can_predict(run_json, csv, tmp_path):
    made = run_json(*import_arguments(csv, out=tmp_path / "t.lut"))
    assert (made["entries"], made["resolutions"], made["target"]) == (96, [160], "note10")
    assert run_json(*predict_arguments(tmp_path / "t.lut", SMALLEST))["latency_ms"] == pytest.approx(16 * 0.5)


def test_an_exported_table_can_be_imported(run, run_json, measured, tmp_path):
    path = measured()
    exported = run_json("export", path, "--format", "ofa-yaml", "--out", tmp_path / "yaml")
    assert exported["files"] == [str(tmp_path / "yaml" / "160_lookup_table.yaml")]
    assert exported["space"] == SPACE.name
    run_json(*import_arguments(*exported["files"], format="ofa-yaml", out=tmp_path / "again.lut"))
    networks = [SMALLEST, LARGEST]
    before, after = (
        [(one["latency_ms"], one["blocks"]) for one in run_json(*predict_arguments(table, networks))["predictions"]]
        for table in (path, tmp_path / "again.lut")
    )
    assert before == after


def test_export_prints_its_files_on_standard_output(run, measured, tmp_path):
    code, out, err = run("export", measured(), "--format", "ofa-yaml", "--out", tmp_path / "yaml")
    assert (code, out) == (0, f"{tmp_path}/yaml/160_lookup_table.yaml\n")
    assert f"the entries of {SPACE.name}" in err


def test_merge_combines_two_tables(run_json, measured, tmp_path):
    one, two = measured("a.lut"), measured("b.lut", seed=1)
    merged = run_json("merge", one, two, "--out", tmp_path / "both.lut")
    assert (merged["entries"], merged["trials"], merged["repeats"]) == (98, 2 * 195, 0)


def test_merge_reports_a_dropped_calibration(run, measured, tmp_path):
    one, two = measured("a.lut"), measured("b.lut", seed=1)
    with LatencyTable.open(one) as table:
        write_calibration(table, SPACE, Calibration(1.5, 8))
    code, out, err = run("merge", one, two, "--out", tmp_path / "both.lut")
    assert code == 0
    assert f"the calibration for {SPACE.name} is dropped" in err
    assert out == f"{tmp_path}/both.lut: 98 entries from 390 trials\n"


# Predict.


def test_a_prediction_is_the_sum_of_its_blocks(run_json, measured):
    predicted = run_json(*predict_arguments(measured(), LARGEST))
    assert list(predicted) == ["latency_ms", "low_ms", "high_ms", "calibrated", "model", "simulated", "blocks"]
    assert predicted["low_ms"] <= predicted["latency_ms"] <= predicted["high_ms"]
    assert not predicted["calibrated"]
    assert len(predicted["blocks"]) == 2 + 20 + 4
    assert predicted["latency_ms"] == pytest.approx(sum(block["latency_ms"] for block in predicted["blocks"]))


def test_a_prediction_is_calibrated_unless_raw_is_given(run_json, measured):
    path = measured()
    with LatencyTable.open(path) as table:
        write_calibration(table, SPACE, Calibration(1.5, 8))
    raw = run_json(*predict_arguments(path, LARGEST), "--raw")
    calibrated = run_json(*predict_arguments(path, LARGEST))
    assert (raw["calibrated"], calibrated["calibrated"]) == (False, True)
    assert calibrated["latency_ms"] == pytest.approx(1.5 * raw["latency_ms"])
    assert calibrated["blocks"] == raw["blocks"]


def test_a_list_of_architectures_gives_predictions(run_json, measured, tmp_path):
    path = measured()
    (tmp_path / "nets.json").write_text(json.dumps({"networks": [SMALLEST, {**LARGEST, "r": [160]}]}))
    found = run_json("predict", path, "--space", SPACE.name, "--architecture", tmp_path / "nets.json")
    alone = [run_json(*predict_arguments(path, network)) for network in (SMALLEST, LARGEST)]
    assert found == {"predictions": alone}
    assert len(run_json(*predict_arguments(path, [SMALLEST]))["predictions"]) == 1


def test_a_network_without_an_interval_does_not_affect_the_others(run, run_json, measured, tmp_path):
    smallest, largest = (
        {block.key for block in SPACE.network_blocks(parse_architecture(a))} for a in (SMALLEST, LARGEST)
    )
    key = min(largest - smallest)
    path = measured(without=(key,))
    with LatencyTable.open(path) as table:
        table.add([Measurement("once", key, count=10, median_ms=0.7, mean_ms=0.7, std_ms=0.0)])
    (tmp_path / "nets.json").write_text(json.dumps([SMALLEST, LARGEST]))
    with_interval, without = run_json("predict", path, "--space", SPACE.name, "--architecture", tmp_path / "nets.json")[
        "predictions"
    ]
    assert with_interval["low_ms"] <= with_interval["latency_ms"] <= with_interval["high_ms"]
    assert (without["low_ms"], without["high_ms"]) == (None, None)
    assert f"no interval: {path} has no interval for 1 of" in run(*predict_arguments(path, LARGEST))[1]
    assert "no interval" not in run(*predict_arguments(path, SMALLEST))[1]


def test_a_prediction_is_shown_block_by_block(run, measured):
    path = measured()
    _, out, err = run(*predict_arguments(path, SMALLEST))
    assert all(block.key in out for block in SPACE.network_blocks(SPACE.decode(SPACE.encode([_network(SMALLEST)]))[0]))
    assert re.search(r"sum +\d+\.\d{4}", out)
    assert err == ""
    assert re.search(r"2 +160 +26 +\d+\.\d{4}", run(*predict_arguments(path, [SMALLEST, LARGEST]))[1])


def _network(value):
    return Architecture({name: tuple(value[name]) for name in ("ks", "e", "d")}, value["r"])


# Errors.


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ks": [3] * 19}, "needs 20 entries in 'ks', this one has 19"),
        ({"ks": [4] * 20}, "'ks'[0] is 4"),
        ({"d": [5] * 5}, "'d'[0] is 5"),
        ({"d": [10**30] * 5}, "'d'[0] is 1000"),
        ({"e": "3"}, "'e' is the text '3'; use numbers without quotes"),
        ({"r": 150}, "has no resolution 150; the nearest are 148 and 152"),
        ({"r": None}, "needs a resolution"),
        ({"ks": ["3"] * 20}, "not a number"),
    ],
)
def test_a_wrong_architecture_is_refused(refused, measured, change, complaint):
    assert complaint in refused(*predict_arguments(measured(), {**SMALLEST, **change}), code=2)


@pytest.mark.parametrize("text", ["{", "[]", "[[1]]", "[" * 5000 + "]" * 5000])
def test_invalid_architecture_text_is_refused(refused, measured, text):
    assert refused("predict", measured(), "--space", SPACE.name, "--architecture", text, code=2)


def test_an_architecture_file_that_is_not_text_is_refused(refused, measured, tmp_path):
    (tmp_path / "net.json").write_bytes(b"\xff\xfe\x00")
    arguments = ["predict", measured(), "--space", SPACE.name, "--architecture"]
    assert "not a text file" in refused(*arguments, tmp_path / "net.json", code=1)
    assert "cannot read" in refused(*arguments, tmp_path / "absent.json", code=1)


def test_the_number_of_missing_entries_is_reported(refused, measured):
    path = measured(without=SPACE.keys(160)[:12])
    assert "lacks 12 of 96 entries of ofa-mbv3-w1.0 at 160 px" in refused(*predict_arguments(path, SMALLEST), code=1)


def test_a_resolution_that_was_not_measured_is_refused(refused, measured):
    message = refused(*predict_arguments(measured(), {**SMALLEST, "r": 224}), code=1)
    assert re.search(r"lacks \d+ of 96 entries of ofa-mbv3-w1.0 at 224 px", message)


def test_an_unknown_space_suggests_the_nearest(refused, measured, csv, tmp_path):
    for arguments in (
        predict_arguments(measured(), SMALLEST, space="ofa-mbv3-w1"),
        import_arguments(csv, space="ofa-mbv3-w1", out=tmp_path / "new.lut"),
        ["export", tmp_path / "t.lut", "--format", "csv", "--out", tmp_path / "x", "--space", "ofa-mbv3-w1"],
    ):
        assert "no space named 'ofa-mbv3-w1'; did you mean" in refused(*arguments, code=2)


def test_an_unknown_format_suggests_the_nearest(refused, measured, csv, tmp_path):
    for arguments in (
        import_arguments(csv, format="cvs", out=tmp_path / "new.lut"),
        ["export", measured(), "--format", "cvs", "--out", tmp_path / "x"],
    ):
        assert "no format named 'cvs'; did you mean csv?" in refused(*arguments, code=2)


def test_an_existing_output_is_refused(refused, measured, csv, tmp_path):
    one, two = measured("a.lut"), measured("b.lut")
    before = one.read_bytes()
    for arguments in (
        import_arguments(csv, out=one),
        ["merge", one, two, "--out", one],
        ["export", two, "--format", "csv", "--out", one],
    ):
        assert f"{one} already exists" in refused(*arguments, code=1)
    assert one.read_bytes() == before


def test_an_unwritable_directory_is_reported(refused, csv, measured):
    assert "cannot create /proc/t.lut" in refused(*import_arguments(csv, out="/proc/t.lut"), code=1)
    arguments = ["export", measured(), "--format", "csv", "--out", "/proc/t.csv"]
    assert "cannot write /proc/t.csv" in refused(*arguments, code=1)


def test_tables_of_different_devices_are_not_merged(refused, measured, tmp_path):
    one = measured("a.lut")
    two = measured("b.lut", identity=Identity("pixel-1", "f00d", "onnxruntime", "1.18.0", Settings(threads=1)))
    message = refused("merge", one, two, "--out", tmp_path / "both.lut", code=1)
    assert "target bench in a.lut, pixel-1 in b.lut; threads 4 in a.lut, 1 in b.lut" in message
    assert not (tmp_path / "both.lut").exists()


def test_commands_do_not_change_the_tables_that_they_read(run, measured, tmp_path):
    one, two = measured("a.lut"), measured("b.lut", seed=1)
    before = one.read_bytes(), two.read_bytes()
    run("show", one)
    run(*predict_arguments(one, SMALLEST))
    run("export", one, "--format", "ofa-yaml", "--out", tmp_path / "yaml")
    run("merge", one, two, "--out", tmp_path / "both.lut")
    assert (one.read_bytes(), two.read_bytes()) == before
    assert sorted(os.listdir(tmp_path)) == ["a.lut", "b.lut", "both.lut", "yaml"]


@pytest.mark.parametrize("content", [b"", b"key,mean\n", b"SQLite format 3\0"])
def test_a_file_that_is_not_a_table_is_refused(refused, tmp_path, content):
    (tmp_path / "t.lut").write_bytes(content)
    assert str(tmp_path / "t.lut") in refused("show", tmp_path / "t.lut", code=1)


def test_a_table_in_use_is_refused(refused, measured):
    path = measured()
    with LatencyTable.open(path):
        assert "in use by another command" in refused("show", path, code=1)


@pytest.mark.parametrize("arguments", [[], ["shwo"], ["show"], ["import", "--format", "csv"], ["show", "--no", "t"]])
def test_a_usage_error_exits_with_2(run, arguments):
    code, _, err = run(*arguments)
    assert code == 2
    assert err


# Check and diff.


def test_check_prints_a_line_per_error_and_exits_with_1(run, run_json, measured):
    path = measured()
    code, out, err = run("check", path)
    assert code == 1
    assert re.search(r"error: failed: broken: crashed: signal \[11\]; .*ofa-profile", out)
    assert "98 entries" in err
    _, text, _ = run("check", path, "--json")
    found = json.loads(text.splitlines()[-1])
    assert found["errors"] == sum(finding["severity"] == "error" for finding in found["findings"])


def test_check_refuses_a_missing_table(run, measured, tmp_path):
    code, _, err = run("check", measured(), "--against", tmp_path / "none.lut")
    assert code == 1
    assert "none.lut does not exist" in err


def test_diff_compares_two_tables(run, run_json, measured):
    one, two = measured("a.lut"), measured("b.lut", seed=1)
    found = run_json("diff", one, two)
    assert found["entries"] == len(found["keys"]) == 97
    assert found["differences"] == []
    code, out, _ = run("diff", one, two)
    assert code == 0
    assert "97 entries in both" in out


def test_check_prints_each_kind_once_with_the_worst_three(run, tmp_path):
    file = tmp_path / "160_lookup_table.yaml"
    keys = find_space("ofa-mbv3-w1.0").keys(160)
    rows = {
        key: {"count": 100, "mean": 0.1 + at / 100, "std": 0.1 + at / 100 + at / 1000} for at, key in enumerate(keys)
    }
    file.write_text(yaml.safe_dump(rows))
    table = tmp_path / "t.lut"
    words = ("--format", "ofa-yaml", "--space", "ofa-mbv3-w1.0", "--target", "public", "--out", table)
    assert run("import", file, *words)[0] == 0
    code, out, _ = run("check", table)
    assert code == 1
    lines = [line for line in out.splitlines() if line.strip()]
    at = next(
        index for index, line in enumerate(lines) if line.startswith("error: noisy: 96 entries; ask its publisher")
    )
    worst = max(range(1, 96), key=lambda at: (at / 1000) / (0.1 + at / 100))
    assert lines[at + 1].startswith(f"    {keys[worst]} at 160 px: its samples deviate by")
    assert lines[at + 4] == "    … and 93 more; --all lists them"
    listed = run("check", table, "--all")[1]
    assert listed.count("its samples deviate by") == 96


def test_an_imported_table_has_unknown_settings(run, tmp_path):
    file = tmp_path / "160_lookup_table.yaml"
    file.write_text(yaml.safe_dump({key: {"mean": 1.0} for key in find_space("ofa-mbv3-w1.0").keys(160)}))
    table = tmp_path / "public.lut"
    words = ("--format", "ofa-yaml", "--space", "ofa-mbv3-w1.0", "--target", "public", "--out", table)
    _, _, err = run("import", file, *words)
    assert "96 entries without a standard deviation" in err
    assert "unknown: published files do not contain them" in run("show", table)[1]
