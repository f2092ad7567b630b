"""From the trials of a table to the profile of a model, and from profiles to the page and the CSV file."""

import math
import re
from dataclasses import replace

import pandas as pd
import pytest
from model_files import conv_onnx

from ofa_nas.references import measured_references
from ofa_profiler.models.formats import read_model
from ofa_profiler.models.measuring import add_file
from ofa_profiler.models.results import LayerProfile, ModelProfile, profile_of
from ofa_profiler.report.models import rows, write_models
from ofa_tables.errors import FileError
from ofa_tables.identity import LAYERS, Identity, Settings
from ofa_tables.layers import layer_key
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.table import LatencyTable

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def file(tmp_path):
    return read_model(conv_onnx(tmp_path / "mine.onnx"))


@pytest.fixture
def table(tmp_path):
    identity = Identity("board", "print", "onnxruntime", "1.0", Settings(), LAYERS)
    with LatencyTable.create(tmp_path / "models.lut", identity, {"chip": "a chip"}) as made:
        yield made


def trial(file, number, whole_us, layers_us, reference_us=(1000, 1000, 1000), **fields):
    """One trial: references before the layers, between, and after the whole model."""
    first, between, last = (1000 * us for us in reference_us)
    timed = {"round": number, "first_ns": 5000, "load_ns": 7_000_000}
    around = {"reference_before_ns": between, "reference_after_ns": last}
    yield Measurement(f"t{number}", file.key, **statistics([1000 * whole_us]), **timed, **around, **fields)
    for place, (name, operator, us) in enumerate(layers_us):
        yield Measurement(
            f"t{number}/{place}",
            layer_key(file.key, 0, operator, name, 64),
            round=number,
            reference_before_ns=first,
            reference_after_ns=between,
            **statistics([1000 * us]),
        )


def test_layers_are_shares_of_the_whole_model_in_their_trial(table, file):
    """The device was twice as slow in one of the trials, and three times while it timed the layers of another."""
    layers = [("first", "Conv", 60), ("last", "Gemm", 30)]
    for number in range(4):
        table.add(list(trial(file, number, 100, layers)))
    slow = [(name, operator, 2 * us) for name, operator, us in layers]
    table.add(list(trial(file, 4, 200, slow, (2000, 2000, 2000))))
    slower = [(name, operator, 3 * us) for name, operator, us in layers]
    table.add(list(trial(file, 5, 100, slower, (5000, 1000, 1000))))
    profile = profile_of(table, file)
    assert profile.latency_ms == pytest.approx(0.1, rel=0.02)
    first, last = profile.layers
    assert (first.name, last.name) == ("first", "last")
    assert (first.share, last.share) == (pytest.approx(0.6), pytest.approx(0.3))
    assert first.latency_ms == pytest.approx(0.6 * profile.latency_ms)
    assert profile.between_ms == pytest.approx(0.1 * profile.latency_ms)
    assert first.macs == file.operators[0].macs
    assert (profile.first_ms, profile.load_ms) == (0.005, 7.0)
    assert profile.chip == "a chip"


def test_a_layer_that_is_missing_in_most_trials_takes_no_time(table, file):
    layers = [("first", "Conv", 60)]
    for number in range(5):
        table.add(list(trial(file, number, 100, [*layers, ("odd", "Copy", 30)] if number == 2 else layers)))
    assert [layer.name for layer in profile_of(table, file).layers] == ["first"]


def test_layers_of_another_model_are_not_mixed_in(table, file, tmp_path):
    other = read_model(conv_onnx(tmp_path / "other.onnx", batch="n"), {"x": (2, 3, 16, 16)})
    for number in range(3):
        table.add(list(trial(file, number, 100, [("first", "Conv", 60)])))
        table.add([replace(each, trial_id=f"o{each.trial_id}") for each in trial(other, number, 50, [("x", "Y", 9)])])
    assert [layer.name for layer in profile_of(table, file).layers] == ["first"]
    assert [layer.name for layer in profile_of(table, other).layers] == ["x"]


def test_a_model_without_a_measurement_has_the_reason(table, file):
    table.add([Measurement("t", file.key, status="unsupported", error="no such operator")])
    assert profile_of(table, file).failure == "unsupported: no such operator"
    assert profile_of(table, file).to_json()["failure"] == "unsupported: no such operator"


def test_why_there_are_no_layers_is_kept(table, file):
    condition = '{"layers_error": "no profiler", "peak_mb": 12.5}'
    for number in range(3):
        table.add(list(trial(file, number, 100, [], condition=condition)))
    profile = profile_of(table, file)
    assert (profile.layers, profile.layers_error, profile.peak_mb) == ((), "no profiler", 12.5)


def test_a_table_without_layers_has_a_speed_too(table, file):
    """Half of the trials are at half the speed: they are corrected by the reference job."""
    for number in range(8):
        slow = 1 + number % 2
        table.add(list(trial(file, number, 100 * slow, [], (0, 1200 * slow - 200 * (slow - 1), 1000 * slow))))
    assert table.reference_ms is not None


def test_a_model_file_is_a_reference_with_the_stated_accuracy(table, file):
    add_file(table, file, accuracy=0.75)
    for number in range(6):
        table.add(list(trial(file, number, 100, [])))
    (reference,) = measured_references(table)
    assert (reference.name, reference.top1, reference.is_file) == ("mine.onnx", 0.75, True)
    assert (reference.macs, reference.resolution_px) == (file.macs, 16)
    add_file(table, file)  # without an accuracy, the stated one stays
    assert measured_references(table)[0].top1 == 0.75
    add_file(table, file, accuracy=0.5)
    assert measured_references(table)[0].top1 == 0.5


# Reports.


def profile(name="mine.onnx", target="board", **fields):
    layers = (
        LayerProfile("first", "Conv", 0.6, 0.02, 0.6, 1_000_000, 2_000),
        LayerProfile(HOSTILE, "Reorder", 0.3, None, 0.3),
    )
    identity = Identity(target, "print", "onnxruntime", "1.0")
    given = {"latency_ms": 1.0, "half_width": 0.01, "first_ms": 3.0, "load_ms": 20.0, "layers": layers, **fields}
    return ModelProfile(name, "k", "t.lut", identity, "chip", ("x",), 1000, 1_000_000, 50, **given)


def test_the_page_draws_each_layer_and_escapes_text(tmp_path):
    text = write_models([profile()], tmp_path / "report").read_text()
    assert "takes 1.000\N{NO-BREAK SPACE}ms (±1.0\N{NO-BREAK SPACE}%) on board" in text
    assert text.count("<rect x=") == 2
    assert re.search(r'<rect x="600\.000" y="0" width="300\.000"', text)
    assert HOSTILE not in text
    assert not re.search(r"(src|href)=|@import|url\(", text)
    assert "between layers" in text


def test_the_page_names_the_slowest_layers_and_what_to_do_about_a_wide_interval(tmp_path):
    text = write_models([profile()], tmp_path / "report").read_text()
    assert "Slowest layers: first (Conv, 60.0" in text
    assert "Uncertain" not in text
    text = write_models([profile(flags=("unstable",), half_width=0.4)], tmp_path / "report").read_text()
    assert "run the command again with --effort thorough" in text


def test_several_models_and_targets_are_a_matrix(tmp_path):
    failed = profile("other.tflite", "phone", failure="it is off", latency_ms=math.nan, layers=())
    profiles = [profile(), profile(target="phone", latency_ms=4.0), profile("other.tflite"), failed]
    text = write_models(profiles, tmp_path).read_text()
    assert "2 models on 2 targets" in text
    assert '<table class="matrix">' in text
    assert "other.tflite on phone: it is off" in text
    assert text.count('<section class="model">') == 3


def test_the_csv_file_has_a_row_for_each_layer_and_each_whole_model(tmp_path):
    write_models([profile(), profile("other.onnx", layers=())], tmp_path)
    read = pd.read_csv(tmp_path / "layers.csv")
    assert list(read.part) == ["whole", "layer", "layer", "whole"]
    assert list(read.latency_ms) == [1.0, 0.6, 0.3, 1.0]
    assert read.gflops[1] == pytest.approx(2 * 1e6 / 0.6 / 1e6)
    assert list(rows([profile()]).number.dropna()) == [1, 2]


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write the report"):
        write_models([profile()], tmp_path / "file")
