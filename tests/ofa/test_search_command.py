"""``ofa-search`` and ``ofa-accuracy``, called from the command line."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest

from ofa_nas.accuracy import MacsStandIn, write_members
from ofa_nas.search import Evaluated, Found
from ofa_nas.selection import read_network, read_networks
from ofa_nas.spaces import find_space, read_architectures
from ofa_profiler.commands import accuracy, search
from ofa_profiler.commands.results import names
from ofa_profiler.report import format as as_text
from ofa_tables.errors import FileError, UnknownName, UsageError
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import LatencyModel, write_calibration
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.table import LatencyTable

FIXED, OFA = "compofa-fixed-w1.0", "ofa-mbv3-w1.0"
HOW = {"evaluated", "seconds", "method", "seed", "proven", "calibrated", "ranked_by", "simulated"}
FIELDS = {"architecture", "predicted_latency_ms", "predicted_accuracy", "macs_m", "parameters_m"} | HOW


@pytest.fixture
def table(make_table):
    return make_table(OFA, (160, 192))


@pytest.fixture
def ofa_search(call, table):
    def run(*words, space=FIXED, limit="8"):
        return call(search, "--table", table, "--space", space, "--max-latency-ms", limit, *words)

    return run


@pytest.fixture
def model(tmp_path, make_layers):
    path = tmp_path / "model.npz"
    write_members(path, [make_layers(16, 16)])
    return path


def answer_of(run):
    code, out, err = run
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


@pytest.mark.parametrize("method", ["annealing", "ofa", "exhaustive", "random"])
def test_json_has_the_promised_fields(ofa_search, model, method):
    found = answer_of(ofa_search("--accuracy", model, "--method", method, "--seed", 3, "--generations", 5, "--json"))
    assert set(found) == FIELDS
    assert found["predicted_latency_ms"] <= 8
    assert isinstance(found["predicted_accuracy"], float)
    assert (found["method"], found["seed"]) == (method, 3)
    assert (found["calibrated"], found["ranked_by"]) == (False, str(model))
    network = find_space(FIXED).encode(read_architectures(json.dumps(found))[0])
    assert found["macs_m"] == pytest.approx(find_space(FIXED).macs(network)[0] / 1e6)
    assert found["parameters_m"] == pytest.approx(find_space(FIXED).parameters(network)[0] / 1e6)


def test_a_stand_in_does_not_predict_accuracy(ofa_search):
    found = answer_of(ofa_search("--json"))
    assert (found["predicted_accuracy"], found["ranked_by"]) == (None, "macs")
    assert "ranked by MACs" in ofa_search()[1]


def test_the_output_file_is_read_as_an_architecture(ofa_search, tmp_path):
    out = tmp_path / "found.json"
    found = answer_of(ofa_search("--out", out, "--json"))
    ((architecture,), many) = read_architectures(str(out))
    assert not many
    assert architecture.to_json() == found["architecture"]


def test_the_prediction_matches_the_table(ofa_search, table):
    found = answer_of(ofa_search("--json"))
    space = find_space(FIXED)
    network = space.encode(read_architectures(json.dumps(found))[0])
    with LatencyTable.read(table) as opened:
        latency = LatencyModel(opened, space).predict(network)[0]
    assert latency == pytest.approx(found["predicted_latency_ms"])


def test_a_calibration_is_used_and_reported(ofa_search, table):
    plain = ofa_search("--method", "exhaustive", limit="100")[1]
    assert f"--table {table} --space {FIXED} --calibrate 10, then search again" in plain
    before = answer_of(ofa_search("--method", "exhaustive", "--json", limit="100"))
    with LatencyTable.open(table) as opened:
        write_calibration(opened, find_space(FIXED), Calibration(1.5, 12))
    after = answer_of(ofa_search("--method", "exhaustive", "--json", limit="100"))
    assert after["architecture"] == before["architecture"]
    assert (before["calibrated"], after["calibrated"]) == (False, True)
    assert after["predicted_latency_ms"] == pytest.approx(1.5 * before["predicted_latency_ms"])
    assert "calibrated with 12 networks" in ofa_search(limit="100")[1]


def test_several_limits_give_several_results(ofa_search, tmp_path):
    out = tmp_path / "found.json"
    found = answer_of(ofa_search("6", "12", "--max-latency-ms", "10", "--json", "--out", out))
    assert [result["max_latency_ms"] for result in found["results"]] == [8, 6, 12, 10]
    for result in found["results"]:
        assert result["predicted_latency_ms"] <= result["max_latency_ms"]
        assert set(result) == FIELDS | {"max_latency_ms", "name"}
    assert len(read_architectures(str(out))[0]) == 4
    assert ofa_search("6")[1].count("\n") > 4


@pytest.mark.parametrize("others", [["12", "0.01"], ["0.02"]])
def test_an_unreachable_limit_does_not_affect_the_others(ofa_search, tmp_path, others):
    out = tmp_path / "found.json"
    code, printed, err = ofa_search("0.01", *others, "--json", "--out", out)
    assert code == 1
    found = json.loads(printed)
    assert [result["max_latency_ms"] for result in found["results"]] == [8, *(12 for word in others if word == "12")]
    unmet = dict.fromkeys(["0.01", *others[-1:]])
    assert [one["max_latency_ms"] for one in found["unmet"]] == [float(word) for word in unmet]
    assert err.count("\n") == err.count("error: ") == err.count("the smallest latency is") == len(unmet)
    assert len(read_architectures(str(out))[0]) == len(found["results"])
    assert "kernel" not in ofa_search("0.01")[1]  # one line per network, even for a single one
    code, printed, err = ofa_search("0.02", limit="0.01")
    assert (code, printed, err.count("\n")) == (1, "", 1)


def test_each_result_reports_its_own_limit(ofa_search):
    found = answer_of(ofa_search("6", "--max-macs-m", 900, "--json"))
    assert [result["limited"][0]["limit"] for result in found["results"]] == [8, 6]


def test_two_tables_have_one_limit_each(call, make_table):
    tables = [make_table(OFA, (160, 192), seed=seed, name=f"{seed}.lut") for seed in (0, 1)]
    words = ("--table", tables[0], "--table", tables[1], "--space", OFA, "--generations", 20)
    found = answer_of(call(search, *words, "--max-latency-ms", 8, 9, "--json"))
    assert [one["on"] for one in found["limited"]] == ["latency on 0.lut", "latency on 1.lut"]
    assert all(one["figure"] <= one["limit"] for one in found["limited"])
    assert found["limited"][0]["figure"] == found["predicted_latency_ms"]
    code, _, err = call(search, *words, "--max-latency-ms", 8)
    assert code == 2
    assert "2 tables need 2 latency limits" in err


@pytest.mark.parametrize("words", [["--max-latency-ms", 6, 8], ["--pareto"]])
def test_notes_on_several_networks_are_printed_once(call, table, tmp_path, words):
    out = call(search, "--table", table, "--space", FIXED, "--generations", 5, "--out", tmp_path / "f.json", *words)[1]
    assert out.count("raw sum of the blocks, which can be far off") == 1
    assert out.count("networks are ranked by MACs") == 1


def test_a_limit_on_another_metric_is_enough(call, make_table):
    tables = [make_table(OFA, (160,), seed=seed, name=f"{seed}.lut") for seed in (0, 1)]
    words = ("--space", FIXED, "--method", "exhaustive", "--max-macs-m", 200)
    for of_them in (tables[:1], tables):
        named = [word for path in of_them for word in ("--table", path)]
        found = answer_of(call(search, *named, *words, "--json"))
        *latencies, macs = found["limited"]
        assert [one["limit"] for one in latencies] == [None] * len(of_them)
        assert 190 < macs["figure"] <= macs["limit"] == 200
    code, out, _ = call(search, "--table", tables[0], *words)
    assert code == 0
    assert "of 200 M" in out
    assert "ms of " not in out
    refused = call(search, "--table", tables[0], "--space", FIXED, "--max-macs-m", 0.1, "--max-parameters-m", 9)
    assert "is within 0.1 M; the smallest MACs" in refused[2]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "--max-latency-ms is missing"),
        (["--max-macs-m", 200, "--confidence", 0.9], "add --max-latency-ms"),
        (["--max-macs-m", 200, "--verify"], "--verify takes one table and one --max-latency-ms"),
        (["--max-macs-m", 200, "--shape", "x=1x3"], "--shape is about a model file; add --against FILE, or remove it"),
        (["--max-macs-m", 200, "--accuracy-of", "x=0.7"], "--accuracy-of is about a model file; add --against FILE"),
    ],
)
def test_a_missing_limit_or_file_is_reported(call, table, words, expected):
    code, out, err = call(search, "--table", table, "--space", FIXED, *words)
    assert (code, out) == (2, "")
    assert expected in err


@pytest.mark.parametrize(("spread", "warns"), [(0.02, False), (1.2, True)])
def test_uncertain_predictions_are_reported(call, make_table, spread, warns):
    path = make_table()
    with LatencyTable.open(path) as table:
        measured = [(entry.key, entry.latency_ms * 1e6) for entry in table.entries]
        for number, factor in enumerate(np.exp([-spread, 0.0, spread]), start=1):
            trials = [(key, statistics([round(ns * factor)] * 5)) for key, ns in measured]
            table.add([Measurement(f"{key}+{number}", key, round=number, **found) for key, found in trials])
    code, _, err = call(search, "--table", path, "--space", FIXED, "--max-latency-ms", "8")
    assert code == 0, err
    assert ("predictions are uncertain by ±" in err) == warns
    command = f"ofa-profile --target bench --space {FIXED} --resolutions 160,192 --runtime onnxruntime --blocks alone"
    assert (f"{command} --out {path} --effort thorough" in " ".join(err.split())) == warns


def test_the_front_is_written_and_drawn(ofa_search, call, table, tmp_path):
    out = tmp_path / "front.json"
    words = ("--table", table, "--space", FIXED, "--pareto", "--out", out, "--generations", "50")
    found = answer_of(call(search, *words, "--json"))
    assert found["page"] == str(out.with_suffix(".html"))
    front = found["front"]
    latencies = [network["predicted_latency_ms"] for network in front]
    assert latencies == sorted(latencies)
    assert len(read_architectures(str(out))[0]) == len(front) > 5
    page = out.with_suffix(".html").read_text()
    assert "<svg" in page
    assert f"{len(front)} networks on the Pareto front" in page
    code, text, _ = call(search, *words)
    assert code == 0
    assert "front.html" in text


@pytest.mark.parametrize("words", [["--pareto", "--generations", "50"], ["--max-latency-ms", 8, 6.5, 6.5]])
def test_one_of_several_networks_is_selected_by_name(call, table, tmp_path, words):
    out = tmp_path / "found.json"
    words = ("--table", table, "--space", FIXED, "--out", out, *words)
    found = answer_of(call(search, *words, "--json"))
    named = {one["name"]: one for one in found.get("front") or found["results"]}
    if "front" in found:
        assert len(named) == len(found["front"])
        assert all(
            float(name.partition("ms")[0]) == pytest.approx(one["predicted_latency_ms"], rel=1e-3)
            for name, one in named.items()
        )
    else:
        assert list(named) == ["8ms", "6.5ms"]
    for name, one in named.items():
        (chosen,), many = read_networks(f"{out}:{name}")
        assert (chosen.to_json(), many) == (one["architecture"], False)
    with pytest.raises(UnknownName, match=r"found\.json named '7 ms'"):
        read_networks(f"{out}:7 ms")
    lines = call(search, *words)[1].splitlines()
    assert set(named) <= {line.split()[0] for line in lines if line}


def test_equally_fast_networks_of_a_front_are_numbered():
    prices = (0.0703264, 0.0703265, 0.0703266, 0.0704)
    front = tuple(Evaluated(None, np.zeros(1), np.array([[price]])) for price in prices)
    assert names(Found(front, (), 4, 0.1)) == ["0.07033ms", "0.07033ms-2", "0.07033ms-3", "0.0704ms"]
    assert names(Found(front[:2], (6.5, 12.345), 4, 0.1)) == ["6.5ms", "12.345ms"]


def test_a_file_with_several_networks_is_refused_with_their_names(tmp_path):
    networks = [{"ks": [3], "e": [3], "d": [2], "r": 160}, {"ks": [5], "e": [3], "d": [2], "r": 160}]
    path = tmp_path / "several.json"
    path.write_text(json.dumps(networks))
    with pytest.raises(UsageError, match=r"^--architecture contains 2 networks, but ofa-export takes one$"):
        read_network(str(path), "ofa-export")
    with pytest.raises(UsageError, match="does not name its networks; omit :8ms"):
        read_network(f"{path}:8ms", "ofa-export")
    named = [{"name": f"{ms}ms", "architecture": one} for ms, one in zip((8, 9), networks, strict=True)]
    path.write_text(json.dumps({"front": named}))
    with pytest.raises(UsageError, match=r"takes one; add a name, such as .*several.json:8ms; names: 8ms, 9ms$"):
        read_network(str(path), "ofa-export")
    assert read_network(f"{path}:9ms", "ofa-export").to_json() == networks[1]
    assert read_network(json.dumps(networks[:1]), "ofa-export").to_json() == networks[0]
    path.rename(tmp_path / "odd:name.json")
    assert len(read_networks(str(tmp_path / "odd:name.json"))[0]) == 2


@pytest.fixture
def with_references(table):
    """The table with three published networks measured."""
    taken_ns = {"mobilenet-v3-large": 5_000_000, "mobilenet-v2": 7_000_000, "resnet-50": 30_000_000}
    with LatencyTable.open(table) as opened:
        for name, ns in taken_ns.items():
            key = f"network:{name}"
            opened.add([Measurement(f"{key}{r}", key, round=r, **statistics([ns])) for r in range(8)])
    return table


def test_the_nearest_published_networks_are_reported_with_one_result(call, with_references, tmp_path):
    words = ("--table", with_references, "--space", FIXED, "--method", "exhaustive", "--out", tmp_path / "found.json")
    found = answer_of(call(search, *words, "--max-latency-ms", 6, "--json"))
    lines = call(search, *words, "--max-latency-ms", 6)[1].splitlines()
    reported = [line for line in lines if line.startswith("reference")]
    less = 1 - 5 / found["predicted_latency_ms"]
    assert len(reported) == 2
    assert "mobilenet-v3-large (75.2% on ImageNet, 224 px): 5 ms measured here" in reported[0]
    assert reported[0].endswith(f"{less:.0%} less than this one's uncalibrated prediction")
    assert "mobilenet-v2" in reported[1]
    assert "more than" in reported[1]
    assert "reference" not in call(search, *words, "--max-latency-ms", 6, 8)[1]


def test_measured_published_networks_are_drawn_in_the_front(call, with_references, tmp_path):
    table = with_references
    out = tmp_path / "front.json"
    words = ("--table", table, "--space", FIXED, "--pareto", "--out", out, "--generations", "20")
    answer_of(call(search, *words, "--json"))
    page = out.with_suffix(".html").read_text()
    assert "Reference networks on this device" in page
    assert "mobilenet-v3-large" in page.split("<svg")[1].split("</svg>")[0]
    assert "75.2" in page


def test_the_range_of_the_ensemble_members_is_printed(ofa_search, model, make_layers):
    write_members(model, [make_layers(16, 16, seed=seed) for seed in range(3)])
    code, out, err = ofa_search("--accuracy", model, "--method", "exhaustive")
    assert code == 0, err
    (words,) = re.findall(r"accuracy .*", out)
    predicted, low, high = (float(figure) for figure in re.findall(r"([\d.]+)%", words))
    assert 0 <= low < high <= 100
    assert predicted <= 100


def test_a_reported_accuracy_is_at_most_1(ofa_search, model, make_layers):
    *hidden, last = make_layers(16, 16)
    write_members(model, [[*hidden, replace(last, bias=last.bias + 5)]])
    assert answer_of(ofa_search("--accuracy", model, "--json"))["predicted_accuracy"] == 1.0
    assert "100.00%, predicted by" in ofa_search("--accuracy", model)[1]


def test_a_search_stops_at_its_time_limit(ofa_search):
    found = answer_of(ofa_search("--seconds", "0.3", "--generations", "90000", "--json", space=OFA))
    assert found["seconds"] < 3


def test_the_network_is_printed_by_stages(ofa_search, model):
    code, out, err = ofa_search("--accuracy", model, "--method", "exhaustive")
    assert code == 0, err
    for words in ("stage 5", "kernel sizes", "latency", "of 8 ms", "predicted by", "MACs", "parameters"):
        assert words in out


def test_a_complete_table_is_described_without_warnings(call, make_table):
    path = make_table("tiny", find_space("tiny").resolutions_px)
    words = ("--table", path, "--space", "tiny", "--max-latency-ms", 100, "--generations", 2)
    code, out, err = call(search, *words)
    assert (code, err) == (0, "")
    assert "of 100 ms, raw sum of the blocks" in out


def test_a_bound_is_reported_if_it_is_asked_for(ofa_search, model):
    words = ("--bound", 0.2, "--population", 20, "--generations", 10)
    found = answer_of(ofa_search(*words, "--json"))
    assert set(found) == FIELDS | {"bound"}
    assert found["macs_m"] * 1e6 <= found["bound"] <= 1.05 * found["macs_m"] * 1e6
    assert "no network within the limits has more than 0." in ofa_search(*words)[1]
    assert (
        "no network within the limits has a predicted accuracy more than 0."
        in ofa_search("--bound", 0.2, "--accuracy", model)[1]
    )
    assert "no network within" not in ofa_search()[1]


def test_a_front_has_no_bound(ofa_search):
    code, _, err = ofa_search("--pareto", "--bound", 1)
    assert code == 2
    assert "--bound does not support --pareto" in err


def test_a_proven_optimum_is_reported(ofa_search):
    assert "proven optimum" in ofa_search("--method", "exhaustive")[1]
    assert "proven optimum" in ofa_search("9", "--method", "exhaustive")[1]
    assert "proven optimum" in ofa_search()[1]  # annealing also tries all of a small space, ...
    assert answer_of(ofa_search("--json"))["proven"] is True
    words = ("--population", 20, "--generations", 10)  # ... but not beyond its budget
    assert "proven optimum" not in ofa_search(*words)[1]
    assert answer_of(ofa_search(*words, "--json"))["proven"] is False


def test_left_out_resolutions_are_reported_before_the_search(call, make_table, tmp_path, monkeypatch):
    space = find_space(FIXED)
    lacking = [key for key in space.keys(192) if key not in space.keys(160)][:1]
    path = make_table(FIXED, (160, 192), name="holes.lut", lacking=lacking)
    words = ("--table", path, "--space", FIXED, "--max-latency-ms", 8)
    code, out, err = call(search, *words, "--json")
    assert code == 0
    assert "192 px is left out: " in err
    assert f"lacks 1 of its 36 entries ({lacking[0]}); measure them with" in err
    (left,) = json.loads(out)["left_out"]
    assert (left["resolution_px"], left["missing"]) == (192, lacking)
    assert "left_out" not in answer_of(call(search, *words, "--resolutions", 160, "--json"))
    monkeypatch.setattr(search, "search", interrupt)
    assert "192 px is left out: " in call(search, *words)[2]


def interrupt(*anything):
    raise KeyboardInterrupt


def test_an_interrupt_without_a_result_does_not_mention_measurements(ofa_search, monkeypatch):
    monkeypatch.setattr(search, "search", interrupt)
    code, out, err = ofa_search()
    assert (code, out) == (130, "")
    assert err.strip().startswith("interrupted; no network found yet")


@pytest.mark.parametrize(
    "words", [["--out", "/nowhere/found.json"], ["--out", "."], ["--pareto", "--out", "/nowhere/f"]]
)
def test_an_output_that_cannot_be_written_is_reported_before_the_search(ofa_search, monkeypatch, words):
    monkeypatch.setattr(search.Search, "__call__", interrupt)
    code, out, err = ofa_search(*words)
    assert (code, out) == (1, "")
    assert "cannot write" in err


def test_an_html_file_as_output_is_refused(ofa_search, tmp_path):
    code, out, err = ofa_search("--pareto", "--out", tmp_path / "front.html")
    assert (code, out) == (2, "")
    assert "front.json" in err
    assert not (tmp_path / "front.html").exists()


@pytest.mark.parametrize("words", [["--json"], []])
def test_a_result_that_cannot_be_written_is_still_printed(ofa_search, tmp_path, monkeypatch, words):
    def full(path):
        raise FileError(f"cannot write {path}: the disk is full")

    monkeypatch.setattr(search, "replacing", full)
    code, out, err = ofa_search("--out", tmp_path / "found.json", *words)
    assert code == 1
    assert "the disk is full" in err
    assert "architecture" in out if words else "kernel sizes" in out
    assert "written to" not in out


def test_the_front_under_a_confidence_reports_prediction_and_upper_end_separately(call, make_table, tmp_path):
    path = make_table(FIXED, (160,), name="timed.lut", trials=4)
    out = tmp_path / "front.json"
    words = ("--table", path, "--space", FIXED, "--pareto", "--confidence", 0.9, "--method", "exhaustive", "--out", out)
    front = answer_of(call(search, *words, "--json"))["front"]
    page = out.with_suffix(".html").read_text()
    assert "<th>predicted</th><th>latency, upper end at 90.0%</th>" in page
    row = page.split("<tbody>")[1].split("</tr>")[0]
    predicted, upper = front[0]["predicted_latency_ms"], front[0]["limited"][0]["figure"]
    assert upper > 1.001 * predicted
    assert f"<th>{as_text.latency(predicted)}</th><td>{as_text.latency(upper)}</td>" in row


def test_resolutions_can_be_chosen(ofa_search):
    assert answer_of(ofa_search("--resolutions", "160", "--json"))["architecture"]["r"] == 160


@pytest.mark.parametrize(
    ("words", "changes", "code", "expected"),
    [
        ([], {"space": "compofa-fxed"}, 2, "compofa-fixed-w1.0"),
        (["--max-macs-m", "1"], {}, 1, "raise --max-macs-m"),
        (["--max-memory-mb", "0.1"], {}, 1, "raise --max-memory-mb"),
        (["--max-energy-mj", "5"], {}, 1, "has no energy"),
        (["--confidence", "0.9"], {}, 1, "--confidence needs intervals"),
        (["--pareto", "--verify"], {}, 2, "--pareto takes one table"),
        (["--method", "evolve"], {}, 2, "evolution"),
        (["--target", "local"], {}, 2, "add --verify"),
        (["--set", "affinity=big"], {}, 2, "add --verify"),
        (["--generations", "1000000"], {}, 2, "smaller --generations"),
        (["--accuracy", "none.npz"], {}, 1, "none.npz: no such accuracy model"),
        (["--resolutions", "161"], {}, 2, "nearest"),
        (["--resolutions", "176"], {}, 1, "lacks"),
        (["--resolutions", "all"], {}, 1, "lacks"),
        (["--resolutions", "big"], {}, 2, "--resolutions"),
        ([], {"limit": "nan"}, 2, "positive"),
        ([], {"limit": "-3"}, 2, "positive"),
        ([], {"limit": "0"}, 2, "positive"),
        ([], {"limit": "inf"}, 2, "positive"),
        ([], {"limit": "0.01"}, 1, "the smallest latency is"),
        (["--method", "exhaustive"], {"space": OFA}, 2, "--method annealing"),
        (["--out", "/nowhere/found.json"], {}, 1, "cannot write"),
    ],
)
def test_invalid_arguments_get_one_error_line(ofa_search, words, changes, code, expected):
    ended, out, err = ofa_search(*words, **changes)
    assert (ended, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err


@pytest.mark.parametrize("words", [["--max-latency-ms", "x"], ["--population", "0"], ["--seed", "-1"]])
def test_an_invalid_number_is_refused(ofa_search, words):
    code, out, err = ofa_search(*words)
    assert (code, out) == (2, "")
    assert words[0] in err


def test_a_missing_table_is_reported(call, tmp_path):
    code, _, err = call(search, "--table", tmp_path / "t.lut", "--space", FIXED, "--max-latency-ms", 8)
    assert code == 1
    assert "t.lut does not exist" in err


def test_a_table_without_a_complete_resolution_is_reported(call, make_table):
    path = make_table(OFA, (160,), name="holes.lut", without=3)
    code, _, err = call(search, "--table", path, "--space", OFA, "--max-latency-ms", 8)
    assert code == 1
    assert "lacks 3 of 96 entries" in err


def test_a_resolution_that_the_accuracy_model_does_not_support_is_reported(call, make_table, model):
    path = make_table(OFA, (164,), name="odd.lut")
    words = ("--table", path, "--space", OFA, "--max-latency-ms", 8, "--accuracy", model, "--resolutions", 164)
    code, _, err = call(search, *words)
    assert code == 2
    assert "does not support resolution 164; it supports 128, 144" in err


@pytest.mark.parametrize(("module", "words"), [(search, []), (accuracy, []), (accuracy, ["import"])])
def test_help_has_an_example(call, module, words):
    code, out, _ = call(module, *words, "--help")
    assert code == 0
    assert "Example:" in out


def test_import_without_torch_is_reported(call, tmp_path, monkeypatch):
    path = tmp_path / "predictor.pth"
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = call(accuracy, "import", path, "--out", tmp_path / "p.npz")
    assert code == 1
    assert "torch is not installed" in err
    assert not (tmp_path / "p.npz").exists()


def test_a_search_reads_an_imported_model(call, ofa_search, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is an extra: pip install ofa-profile[torch]")
    state = {"0.weight": torch.randn(1, 128), "0.bias": torch.zeros(1)}
    torch.save(state, tmp_path / "p.pth", _use_new_zipfile_serialization=False)
    imported = answer_of(call(accuracy, "import", tmp_path / "p.pth", "--out", tmp_path / "p.npz", "--json"))
    assert imported["sizes"] == [128, 1]
    one, two = (answer_of(ofa_search("--accuracy", tmp_path / f"p.{kind}", "--json")) for kind in ("pth", "npz"))
    assert one["predicted_accuracy"] == two["predicted_accuracy"] is not None


class Interrupted(MacsStandIn):
    """An accuracy model that is interrupted after the first generation."""

    def __init__(self, space):
        super().__init__(space)
        self.calls = 0

    def __call__(self, population):
        self.calls += 1
        if self.calls == 2:
            raise KeyboardInterrupt
        return super().__call__(population)


def test_ctrl_c_returns_the_best_so_far(ofa_search, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "open_accuracy", lambda source, space, *others: Interrupted(space))
    code, out, err = ofa_search("--out", tmp_path / "found.json", "--json", space=OFA)
    assert code == 130
    assert "networks tried so far" in err
    assert json.loads((tmp_path / "found.json").read_text()) == json.loads(out)
    assert json.loads(out)["evaluated"] > 0
