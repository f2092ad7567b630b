"""Model files of a user, from the command to the report."""

import csv
import json
import re

import pytest
from model_files import CONV_MACS, conv_onnx, custom_onnx, small_pt2, small_tflite, tokens_onnx

pytestmark = pytest.mark.real

HERE = ("ofa-profile", "--target", "local", "--effort", "quick")


@pytest.fixture(scope="module")
def measured(tmp_path_factory, packages, make_commands):
    """A folder in which two ONNX files were profiled; ``done``: the output."""
    commands = make_commands(tmp_path_factory.mktemp("models"), "onnxruntime", packages)
    conv_onnx(commands.folder / "mine.onnx")
    tokens_onnx(commands.folder / "tokens.onnx")
    commands.done = commands(*HERE, "--model", "mine.onnx", "tokens.onnx", "--json")
    return commands


def test_a_model_has_latency_memory_and_layers(measured):
    assert measured.done.code == 0, measured.done.err
    mine, tokens = measured.done.json["models"]
    assert (mine["model"], tokens["model"]) == ("mine.onnx", "tokens.onnx")
    assert mine["inputs"] == ["x float32 1×3×16×16"]
    assert mine["macs"] == sum(CONV_MACS)
    assert mine["trials"] >= 1  # others may disturb some of the four
    assert 0 < mine["latency_ms"] < 100
    assert mine["first_ms"] > 0
    assert mine["load_ms"] > 0
    convolution = next(layer for layer in mine["layers"] if layer["name"] == "first")
    assert (convolution["operator"], convolution["macs"]) == ("Conv", CONV_MACS[0])
    assert convolution["gflops"] == pytest.approx(2 * CONV_MACS[0] / convolution["latency_ms"] / 1e6)
    assert convolution["bytes"] > 0
    for model in (mine, tokens):
        assert model["layers_ms"] + model["between_ms"] == pytest.approx(model["latency_ms"], rel=0.3)
        shares = [layer["share"] for layer in model["layers"]]
        assert all(0 < share <= 1 for share in shares)


def test_the_report_is_one_page_without_other_files(measured):
    page = (measured.folder / "models-profile" / "profile.html").read_text()
    assert not re.search(r"(src|href)=|@import|url\(", page)
    assert page.count('<section class="model">') == 2
    with (measured.folder / "models-profile" / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows if row["part"] == "whole"] == ["mine.onnx", "tokens.onnx"]
    assert {row["operator"] for row in rows if row["part"] == "layer"} >= {"Conv", "Gather"}


def test_a_second_run_reuses_and_a_fresh_one_measures_again(measured):
    count = "SELECT COUNT(*) FROM measurements WHERE key LIKE 'network:file/mine.onnx@%'"
    table = "local-onnxruntime-fp32-t1-models.lut"
    ((before,),) = measured.rows(table, count)
    again = measured(*HERE, "--model", "mine.onnx", "--json")
    assert again.code == 0, again.err
    assert measured.rows(table, count) == [(before,)]
    longer = measured(*HERE[:-1], "standard", "--model", "mine.onnx", "--json")
    assert longer.code == 0, longer.err
    assert measured.rows(table, count)[0][0] >= before + 4
    assert measured(*HERE, "--model", "mine.onnx", "--fresh", "--json").code == 0
    assert measured.rows(table, "SELECT COUNT(*) FROM measurements WHERE key LIKE 'network:file/tokens%'") == [(0,)]
    assert (measured.folder / "local-onnxruntime-fp32-t1-models.lut.old").exists()


def test_the_terminal_lists_the_layers(measured):
    done = measured(*HERE, "--model", "mine.onnx")
    assert done.code == 0, done.err
    assert re.search(r"first +Conv ", done.out)
    for row in ("between layers", "whole model", "report  mine-profile/profile.html"):
        assert row in done.out


def test_two_formats_in_one_call_use_two_runtimes(ofa):
    pytest.importorskip("ai_edge_litert")
    conv_onnx(ofa.folder / "a.onnx")
    small_tflite(ofa.folder / "b.tflite")
    done = ofa(*HERE, "--model", "a.onnx", "b.tflite", "--json")
    assert done.code == 0, done.err
    assert [model["runtime"] for model in done.json["models"]] == ["onnxruntime", "tflite"]
    assert all(model["layers"] for model in done.json["models"])


@pytest.mark.slow
def test_a_torch_export_file_is_executed_by_pytorch(ofa):
    pytest.importorskip("torch")
    small_pt2(ofa.folder / "c.pt2")
    done = ofa(*HERE, "--model", "c.pt2", "--json")
    assert done.code == 0, done.err
    (model,) = done.json["models"]
    assert model["runtime"] == "torch"
    assert model["layers"][0]["name"] == "conv conv2d"


def test_bad_models_cost_one_line_each_and_the_good_one_is_measured(ofa):
    good = conv_onnx(ofa.folder / "good.onnx")
    (ofa.folder / "cut.onnx").write_bytes(good.read_bytes()[:3000])
    custom_onnx(ofa.folder / "custom.onnx")
    conv_onnx(ofa.folder / "open.onnx", batch="batch")
    with (ofa.folder / "huge.onnx").open("wb") as file:
        file.truncate(3 << 30)
    names = ["cut.onnx", "custom.onnx", "open.onnx", "huge.onnx", "missing.onnx"]
    done = ofa(*HERE, "--model", "good.onnx", *names, "--json")
    assert done.fails(1, "--shape x=1x3x16x16", "acme::Sparkle", "1024 MiB", "truncated", "No such file")
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert [line.split()[1].rstrip(":") if "read" not in line else "missing.onnx" for line in errors] == names
    assert [model["model"] for model in done.json["models"]] == ["good.onnx"]


def test_a_runtime_that_cannot_read_the_file(ofa):
    conv_onnx(ofa.folder / "mine.onnx")
    done = ofa(*HERE, "--model", "mine.onnx", "--runtime", "torch")
    assert done.fails(2, "runtime torch does not read ONNX files; onnxruntime, openvino")


def test_flags_about_spaces_do_not_fit_model_files(ofa):
    conv_onnx(ofa.folder / "mine.onnx")
    assert ofa(*HERE, "--model", "mine.onnx", "--space", "tiny").fails(2, "--space is about blocks of a search space")
    assert ofa(*HERE, "--shape", "x=1x3").fails(2, "add --model FILE")
    assert ofa(*HERE, "--target", "jetson-tx2").fails(2, "--target can be repeated only with --model")
    simulated = ofa("ofa-profile", "--target", "xilinx-zu9eg", "--model", "mine.onnx")
    assert simulated.fails(2, "xilinx-zu9eg is simulated and executes no files")


def test_a_target_that_is_off_does_not_stop_the_others(ofa):
    conv_onnx(ofa.folder / "mine.onnx")
    done = ofa(*HERE, "--target", "tcp:127.0.0.1:9", "--model", "mine.onnx", "--json")
    assert done.fails(1, "continuing with the other targets")
    here, there = done.json["models"]
    assert here["latency_ms"] > 0
    assert there["target"] == "tcp:127.0.0.1:9"
    assert there["failure"]


def test_a_model_stands_beside_the_search(ofa, profiled):
    """Its table, its comparison, and the answer of the search show it, with the accuracy that the user states."""
    table = ofa.folder / "t.lut"
    table.write_bytes((profiled.folder / "t.lut").read_bytes())
    conv_onnx(ofa.folder / "mine.onnx", size=96)
    compare = ("ofa-compare", "--table", "t.lut", "--networks", "mine.onnx")
    done = ofa(*compare, "--accuracy-of", "mine.onnx=0.752", "--json")
    assert done.code == 0, done.err
    (reference,) = done.json["references"]
    assert (reference["name"], reference["top1"]) == ("mine.onnx", 0.752)
    assert reference["latency_ms"] > 0
    listed = ofa(*compare)  # nothing is measured again, and the accuracy is kept
    assert re.search(r"mine\.onnx +96 .* 75\.2%", listed.out), listed.out
    search = ("ofa-search", "--table", "t.lut", "--space", "compofa-fixed-w1.0", "--generations", "3")
    found = ofa(*search, "--max-latency-ms", "100")
    assert re.search(
        r"your model +mine\.onnx \(75\.2%, as you state, 96 px\): .* ms measured here, \d+% (more|less)", found.out
    )
    front = ofa(*search, "--pareto", "--out", "front.json")
    assert front.code == 0, front.err
    assert json.loads((ofa.folder / "front.json").read_text())["references"][0]["name"] == "mine.onnx"
    assert "mine.onnx" in (ofa.folder / "front.html").read_text()


def test_one_command_says_whether_the_network_that_was_found_is_faster(ofa, profiled):
    table = ofa.folder / "t.lut"
    table.write_bytes((profiled.folder / "t.lut").read_bytes())
    conv_onnx(ofa.folder / "mine.onnx", size=96)
    search = ("ofa-search", "--table", "t.lut", "--space", "compofa-fixed-w1.0", "--generations", "3")
    done = ofa(*search, "--max-latency-ms", "100", "--against", "mine.onnx", "--accuracy-of", "mine.onnx=0.5")
    assert done.code == 0, done.err
    assert re.search(r"your model +mine\.onnx \(50\.0%, as you state, 96 px\): .* (more|less) than this one", done.out)
    two = ofa(*search, "--table", "t.lut", "--max-latency-ms", "9", "9", "--against", "mine.onnx")
    assert two.fails(2, "--against takes one table")
    other = ofa(*search, "--max-latency-ms", "9", "--against", "mine.onnx", "--shape", "y=1x3x96x96")
    assert other.fails(2, "no model has an input y")


def test_an_accuracy_must_be_a_fraction_of_a_named_model(ofa, profiled):
    conv_onnx(ofa.folder / "mine.onnx")
    compare = ("ofa-compare", "--table", str(profiled.folder / "t.lut"), "--networks", "mine.onnx")
    assert ofa(*compare, "--accuracy-of", "other.onnx=0.7").fails(2, "other.onnx is not one of the model files")
    assert ofa(*compare, "--accuracy-of", "mine.onnx=75").fails(2, "a fraction from 0 to 1")
