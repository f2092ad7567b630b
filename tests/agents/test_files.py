"""Trials of model files, in this process: layers, memory, any inputs and outputs, and files that do not fit."""

import numpy as np
import pytest
from model_files import (
    contradictory_onnx,
    conv_onnx,
    custom_onnx,
    loop_onnx,
    small_pt2,
    small_tflite,
    tokens_onnx,
    two_inputs_tflite,
)

from ofa_agent.commands.template import parse
from ofa_agent.inputs import ModelInput
from ofa_agent.measuring import memory
from ofa_agent.measuring.parts import Profiled, layer_samples
from ofa_agent.measuring.timing import Budget
from ofa_agent.measuring.worker import take_trial
from ofa_agent.protocol import messages as wire

IMAGE = ModelInput("x", "float32", (1, 3, 16, 16))
BUDGET = Budget(warmup_s=0.01, window_s=0.0, burst_min_s=0.0, burst_max_s=0.001)


def take(path, inputs, runtime, layers=True, **settings):
    of_job = wire.Settings(runtime=runtime, **{"precision": "fp32", "threads": 1, "batch": 1, **settings})
    job = wire.file_job_message("network:file/m@0", path.suffix[1:], inputs, layers, of_job, "id")
    trial = wire.Trial(trial_id="one", job=job)
    wire.set_budget(trial.budget, BUDGET, 60.0)
    return take_trial(trial, str(path))


def assert_divided(measurement, names=None):
    """It has layers, which add up to no more than the whole model."""
    assert (measurement.status, measurement.error, measurement.layers_error) == ("ok", "", "")
    assert measurement.layers
    if names is not None:
        assert [layer.name for layer in measurement.layers] == names
    total = sum(float(np.median(layer.samples_ns)) for layer in measurement.layers)
    assert 0 < total <= 1.01 * np.median(measurement.samples_ns)
    assert measurement.load_ns > 0
    assert measurement.first_ns > 0


def test_an_onnx_file_with_two_outputs(tmp_path):
    measurement = take(conv_onnx(tmp_path / "m.onnx"), [IMAGE], "onnxruntime")
    assert_divided(measurement)
    assert "Gemm" in [layer.operator for layer in measurement.layers]
    assert all(layer.bytes for layer in measurement.layers)


def test_only_the_whole_model_is_timed_if_nobody_asks_for_layers(tmp_path):
    measurement = take(conv_onnx(tmp_path / "m.onnx"), [IMAGE], "onnxruntime", layers=False)
    assert (measurement.status, len(measurement.layers), measurement.layers_error) == ("ok", 0, "")


def test_token_ids_and_a_mask(tmp_path):
    inputs = [ModelInput("ids", "int64", (1, 7), 50), ModelInput("mask", "bool", (1, 7))]
    assert_divided(take(tokens_onnx(tmp_path / "m.onnx"), inputs, "onnxruntime"))


def test_layers_inside_a_loop_are_part_of_the_loop(tmp_path):
    measurement = take(loop_onnx(tmp_path / "m.onnx"), [ModelInput("x", "float32", (64,))], "onnxruntime")
    assert_divided(measurement, ["loop"])


def test_an_open_shape_is_that_of_the_job(tmp_path):
    path = conv_onnx(tmp_path / "m.onnx", batch="n")
    small, large = (
        take(path, [IMAGE._replace(shape=(batch, 3, 16, 16))], "onnxruntime").layers[0].bytes for batch in (1, 8)
    )
    assert large > 4 * small


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([IMAGE._replace(name="y")], "the model has the inputs x"),
        ([IMAGE._replace(shape=(1, 4, 16, 16))], ""),
        ([IMAGE._replace(kind="text")], "values of type 'text'; update the agent"),
        ([IMAGE._replace(shape=(1 << 20, 1 << 20))], "exceeds the limits"),
    ],
)
def test_inputs_that_do_not_fit_are_malformed(tmp_path, inputs, says):
    measurement = take(conv_onnx(tmp_path / "m.onnx"), inputs, "onnxruntime")
    assert measurement.status == "malformed"
    assert says in measurement.error
    assert "\n" not in measurement.error


def test_a_custom_operator_is_unsupported(tmp_path):
    measurement = take(custom_onnx(tmp_path / "m.onnx"), [ModelInput("x", "float32", (1, 4))], "onnxruntime")
    assert measurement.status == "unsupported"
    assert "Sparkle" in measurement.error


def test_a_file_that_is_larger_than_the_memory_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    measurement = take(conv_onnx(tmp_path / "m.onnx"), [IMAGE], "onnxruntime")
    assert measurement.status == "out-of-memory"
    assert "and its inputs need at least" in measurement.error


def test_a_runtime_that_reads_no_files_says_so(tmp_path):
    pytest.importorskip("torch")
    measurement = take(conv_onnx(tmp_path / "m.onnx"), [IMAGE], "torch-script")
    assert (measurement.status, measurement.error) == (
        "unsupported",
        "runtime torch-script does not read model files",
    )


def test_a_tflite_file(tmp_path):
    pytest.importorskip("ai_edge_litert")
    inputs = [ModelInput("x", "float32", (1, 12, 12, 3))]
    measurement = take(small_tflite(tmp_path / "m.tflite"), inputs, "tflite")
    assert_divided(measurement)
    assert "CONV_2D" in [layer.operator for layer in measurement.layers]


def test_a_tflite_file_with_two_inputs_in_another_order_in_its_signature(tmp_path):
    pytest.importorskip("ai_edge_litert")
    inputs = [ModelInput("small", "float32", (1, 4)), ModelInput("large", "float32", (3, 4))]
    measurement = take(two_inputs_tflite(tmp_path / "m.tflite"), inputs, "tflite")
    assert_divided(measurement, ["sum"])
    swapped = take(two_inputs_tflite(tmp_path / "m.tflite"), inputs[::-1], "tflite")
    assert (swapped.status, swapped.error[:15]) == ("malformed", "the model takes")


def test_a_torch_export_file(tmp_path):
    pytest.importorskip("torch")
    inputs = [ModelInput("image", "float32", (1, 3, 8, 8)), ModelInput("scale", "float32", (1,))]
    path = small_pt2(tmp_path / "m.pt2")
    assert_divided(take(path, inputs, "torch"), ["conv2d", "relu", "mean", "mul", "linear"])
    assert take(path, inputs[:1], "torch").status == "malformed"


def test_an_onnx_file_in_openvino(tmp_path):
    pytest.importorskip("openvino")
    measurement = take(conv_onnx(tmp_path / "m.onnx"), [IMAGE], "openvino")
    assert measurement.status == "ok"
    assert measurement.layers or "no kernel of 1 µs" in measurement.layers_error


def test_a_model_that_allocates_more_takes_more_memory(tmp_path):
    small, large = (
        take(
            conv_onnx(tmp_path / f"{batch}.onnx", batch="n"), [IMAGE._replace(shape=(batch, 3, 16, 16))], "onnxruntime"
        ).peak_bytes
        for batch in (1, 4096)
    )
    # Input, convolution, and ReLU of the large one: 4096 × (3 + 8) × 256 × 4 bytes at least.
    assert large > small
    assert large >= 40e6


# Shares of the whole.


def times(*runs, pure):
    runs = np.array(runs, dtype=float)
    return Profiled(runs, np.ones(runs.shape[1], dtype=int), pure)


def test_layers_below_the_whole_stay_as_they_are():
    for pure in (True, False):
        assert layer_samples(times((100, 300), (120, 280), pure=pure), 500.0) == [[100, 120], [300, 280]]


def test_the_overhead_of_a_profiler_is_taken_off_every_layer_alike():
    (short,), (long,) = layer_samples(times((4000, 11000), pure=False), 11000.0)
    assert (short, long) == (2000, 9000)


def test_overhead_beyond_that_of_any_profiler_is_a_slower_device():
    """Each layer has 5 µs of overhead at most; the rest is scaled, so that no layer vanishes."""
    (short,), (long,) = layer_samples(times((20_000, 40_000), pure=False), 25_000.0)
    assert (short, long) == (7500, 17500)


def test_times_without_overhead_are_scaled():
    (short,), (long,) = layer_samples(times((200, 400), pure=True), 300.0)
    assert (short, long) == (100, 200)


def test_a_pause_of_one_run_is_not_in_the_sum_of_the_layers():
    runs = [(100, 300)] * 2 + [(9000, 300), (100, 9000)] + [(100, 300)]
    assert layer_samples(times(*runs, pure=True), 400.0)[0][0] == 100


def test_a_model_that_contradicts_itself_is_malformed_and_not_tried_again(tmp_path):
    """The message names no file of the agent."""
    path = contradictory_onnx(tmp_path / "m.onnx")
    measurement = take(path, [ModelInput("x", "float32", (1, 4))], "onnxruntime")
    assert measurement.status == "malformed"
    assert "the model" in measurement.error
    assert str(path) not in measurement.error


# Command templates.


def take_by_tool(path, inputs, **values):
    template = {"run": ["cat", "{model}"], "model": "onnx", "latency": {"regex": "took ([0-9.]+)", "unit": "ms"}}
    return take(path, inputs, "command:mine", command=parse("mine", {**template, **values}).text)


def test_a_tool_times_a_file_and_its_layers(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_text("took 12.5\nlayer one: 4\nlayer two: 6\n")
    layers = {"regex": "layer (?P<name>\\w+): (?P<time>[0-9.]+)", "unit": "ms"}
    measurement = take_by_tool(path, [IMAGE], layers=layers)
    assert (measurement.status, measurement.error) == ("ok", "")
    assert measurement.summary.mean_ns == 12_500_000
    assert [(layer.name, list(layer.samples_ns)) for layer in measurement.layers] == [
        ("one", [4_000_000]),
        ("two", [6_000_000]),
    ]
    assert measurement.peak_bytes == 0  # of another process


def test_cycles_of_layers_are_shares_of_the_latency(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_text("took 10\nlayer one: 300\nlayer two: 100\n")
    layers = {"regex": "layer (?P<name>\\w+): (?P<time>[0-9.]+)", "unit": "cycles"}
    measurement = take_by_tool(path, [IMAGE], layers=layers)
    assert [list(layer.samples_ns) for layer in measurement.layers] == [[7_500_000], [2_500_000]]


def test_a_tool_without_a_rule_for_layers_times_the_whole_model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_text("took 10\n")
    measurement = take_by_tool(path, [IMAGE])
    assert (measurement.status, len(measurement.layers)) == ("ok", 0)
    assert "does not report the times of layers" in measurement.layers_error


def test_a_tool_that_takes_one_input_refuses_two(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_text("took 10\n")
    measurement = take_by_tool(path, [IMAGE, IMAGE._replace(name="y")], run=["cat", "{model}", "{input}"])
    assert (measurement.status, measurement.error) == (
        "unsupported",
        "[command.mine] gives one input; the model has 2",
    )
