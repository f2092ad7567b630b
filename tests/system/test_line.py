"""Profile, search, compare and predict, each with the file that the previous command wrote."""

import json
import shutil

import pytest


@pytest.fixture
def sleeping_table(profiled_by_macs, by_macs):
    shutil.copy(profiled_by_macs.folder / "t.lut", by_macs.folder / "t.lut")
    return "t.lut"


def predict(commands, table, *more):
    words = ("ofa-table", "predict", table, "--space", "compofa-fixed-w1.0", "--architecture", "found.json", "--json")
    return commands(*words, *more).json


def test_from_table_to_a_network_that_was_measured(by_macs, sleeping_table):
    shown = by_macs("ofa-table", "show", sleeping_table, "--json").json
    space = next(space for space in shown["spaces"] if space["space"] == "compofa-fixed-w1.0")
    limit = (space["smallest_ms"] + space["largest_ms"]) / 2
    found = by_macs(
        *("ofa-search", "--table", sleeping_table, "--space", "compofa-fixed-w1.0", "--max-latency-ms", limit),
        *("--method", "exhaustive", "--out", "found.json", "--json"),
    ).json
    assert space["smallest_ms"] <= found["predicted_latency_ms"] <= limit

    predicted = predict(by_macs, sleeping_table)
    assert predicted["latency_ms"] == pytest.approx(found["predicted_latency_ms"])
    assert sum(block["latency_ms"] for block in predicted["blocks"]) == pytest.approx(predicted["latency_ms"])

    words = ("--networks", "found.json", "--calibrate", "2", "--out", "report", "--json")
    compared = by_macs("ofa-compare", "--table", sleeping_table, *words)
    assert compared.code == 0, compared.err
    assert compared.json["networks"] == 1
    assert (by_macs.folder / "report" / "report.html").exists()
    assert (by_macs.folder / "report" / "comparison.csv").exists()

    calibrated, raw = predict(by_macs, sleeping_table), predict(by_macs, sleeping_table, "--raw")
    assert (calibrated["calibrated"], raw["calibrated"]) == (True, False)
    assert raw["latency_ms"] == pytest.approx(predicted["latency_ms"])


def test_a_repeated_comparison_measures_nothing_twice(by_macs, sleeping_table):
    words = ("ofa-compare", "--table", sleeping_table, "--networks", "2", "--calibrate", "2", "--seed", "1", "--json")
    first, second = by_macs(*words), by_macs(*words)
    assert first.code == second.code == 0, first.err + second.err
    assert first.json["raw"] == second.json["raw"]
    assert "trials to run" in first.err
    assert "trials to run" not in second.err


def test_published_networks_are_measured_like_any_other(by_macs, sleeping_table):
    done = by_macs("ofa-compare", "--table", sleeping_table, "--networks", "references", "--json")
    assert done.code == 0, done.err
    assert done.json["networks"] == 0
    assert done.json["raw"]["mape"] is None
    references = {reference.pop("name"): reference for reference in done.json["references"]}
    assert len(references) == 7
    assert references["resnet-50"]["latency_ms"] > references["mobilenet-v3-small"]["latency_ms"] > 0
    assert (references["resnet-50"]["top1"], references["resnet-50"]["macs"]) == (0.7613, 4089e6)
    assert set(by_macs.rows(sleeping_table, "SELECT DISTINCT role FROM networks WHERE space = 'references'")) == {
        ("reference",)
    }

    later = by_macs(
        "ofa-compare", "--table", sleeping_table, "--networks", "1", "--calibrate", "0", "--out", "later", "--json"
    )
    assert {reference["name"] for reference in later.json["references"]} == set(references)
    assert "Reference networks" in (by_macs.folder / "later" / "report.html").read_text()
    listed = by_macs("ofa-compare", "--table", sleeping_table, "--networks", "references")
    assert "trials to run" not in listed.err
    assert "top-1" in listed.out
    assert "proxylessnas-mobile" in listed.out


def test_a_network_that_was_tested_never_calibrates(by_macs, sleeping_table):
    for seed in (1, 2):
        assert (
            by_macs(
                "ofa-compare", "--table", sleeping_table, "--networks", "2", "--calibrate", "2", "--seed", seed
            ).code
            == 0
        )
    roles = dict(by_macs.rows(sleeping_table, "SELECT key, role FROM networks"))
    calibration_network = next(key for key, role in roles.items() if role == "calibration")
    ((architecture,),) = by_macs.rows(
        sleeping_table, "SELECT architecture FROM networks WHERE key = ?", calibration_network
    )
    assert by_macs("ofa-compare", "--table", sleeping_table, "--networks", architecture, "--calibrate", "0").code == 0
    ((role,),) = by_macs.rows(sleeping_table, "SELECT role FROM networks WHERE key = ?", calibration_network)
    ((calibration,),) = by_macs.rows(sleeping_table, "SELECT value FROM meta WHERE name LIKE 'calibration/%'")
    assert role == "test"
    assert json.loads(calibration)["networks"] == list(roles.values()).count("calibration") - 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--networks", "0"], 2, ["--networks"]),
        (["--networks", "missing.json"], 1, ["missing.json"]),
        (["--networks", "9999"], 2, ["too few networks"]),
        (["--space", "ofa-mbv3-w1.0"], 1, ["lacks", "of 96", "ofa-profile"]),
        (["--target", "tcp:127.0.0.1:1"], 1, ["does not answer"]),
        (["--networks", '{"ks":[3],"e":[3],"d":[2],"r":128}'], 2, ["'d'"]),
    ],
)
def test_a_wrong_comparison_gets_one_clear_line(by_macs, sleeping_table, words, code, said):
    assert by_macs("ofa-compare", "--table", sleeping_table, *words).fails(code, *said)
