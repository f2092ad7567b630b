"""The output of ``benchmark_model``: real outputs, damaged outputs, and a stand-in that runs models."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ofa_agent.inputs import ModelInput
from ofa_agent.runtimes import (
    Malformed,
    OutOfMemory,
    RuntimeFailure,
    Unsupported,
    benchmark_files,
    benchmark_model,
)
from ofa_agent.runtimes.benchmark_model import Options, Report, abi, command, parse

OUTPUTS = Path(__file__).parent / "benchmark_model_outputs"
STAND_IN = Path(__file__).parents[1] / "phones" / "benchmark_model.py"
US = 1000

# For each real output: the requested delegate, and the statistics in µs.
FIGURES = {
    "cpu-2018": ("", (15, 127425, 66699, 66838, 66767.6, 39, 0, 7, 76605.9, 9933)),
    "cpu-2020-profiled": ("", (50, 49060, 32641, 34005, 33209.4, 450, 0, 15, 34825.1, 855)),
    "gpu-2020": ("gpu", (50, 130565, 113737, 124776, 119375, 1948, 0, 4, 122373, 870557)),
    "cpu-2021": ("", (14192, 2071, 68, 249, 69.691, 5, 0, 7028, 70.3736, 1304)),
    "cpu-2022-profiled": ("", (50, 3512391, 2727568, 3189954, 2.95034e6, 109798, 0, 1, 3512391, 17187)),
    "nnapi-2023": ("nnapi", (520, 637079, 1171, 9925, 1885.74, 870, 0, 1, 637079, 66002)),
    "external-2023": ("", (876, 201009, 810, 6334, 1096.48, 476, 0, 277, 1760.78, 25573)),
    "none-2025": ("none", (50, 1357602, 1238588, 1252566, 1.24027e6, 2565, 1239807, 1, 1357602, 5579)),
    "xnnpack-2025": ("xnnpack", (50, 905463, 898007, 906121, 899641, 1549, 899281, 1, 905463, 614333)),
    "default-2025": ("", (50, 106436, 105416, 106528, 105784, 260, 105718, 5, 106065, 87639)),
    "gpu-2025": ("gpu", (50, 125113, 111842, 119614, 115246, 1329, 115350, 5, 115344, 1361236)),
}

WARMUP = "Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds."
TIMED = WARMUP.replace("least 1 ", "least 50 ")
FIRST = "count=4 first=130 curr=120 min=117 max=130 avg=122.25 std=4"
SECOND = "count=50 first=119 curr=118 min=113 max=124 avg=119.3 std=1 p5=114 median=119 p95=123"
CLOSING = "Inference timings in us: Init: 870, First inference: 130, Warmup (avg): 122.25, Inference (avg): 119.3"
GOOD = [WARMUP, FIRST, TIMED, SECOND, CLOSING]


def output(name):
    return (OUTPUTS / (name + ".txt")).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FIGURES)
def test_a_real_output_is_parsed(name):
    delegate, (count, *figures) = FIGURES[name]
    first, low, high, mean, std, median, warmups, warmup, init = figures
    reported = [round(each * US) for each in (first, low, high, mean, std, median)]
    expected = Report(count, *reported, warmups, round(warmup * US), init * US)
    assert parse(output(name), "", 0, delegate) == expected
    assert parse("", output(name).replace("\n", "\r\n"), 0, delegate) == expected
    assert not expected.samples_ns


def test_every_real_output_is_tested_and_has_a_source():
    tested = {*FIGURES, *(name for name, *_ in FAILURES)}
    assert {path.stem for path in OUTPUTS.iterdir()} - {"README"} == tested
    sources = re.findall(r"^\| `([\w-]+)\.\w+` \| .+ \| .+ \|$", (OUTPUTS / "README.md").read_text(), re.MULTILINE)
    assert set(sources) == tested


FAILURES = [
    ("hexagon-missing", 0, Unsupported, "Could not create Hexagon delegate: platform may not support"),
    ("hexagon-refuses", 1, Unsupported, "Failed to apply Hexagon delegate."),
    ("xnnpack-refuses", 1, Unsupported, "Failed to apply XNNPACK delegate."),
    ("wrong-abi", 126, Unsupported, "different ABI than the ABI of the device: .* not executable: 64-bit ELF file"),
    ("crashed", 139, RuntimeFailure, r"crashed \(ended by signal 11\): Segmentation fault"),
    ("litert-2026", 0, Unsupported, "benchmark_model of LiteRT; use the tool of TFLite"),
]


@pytest.mark.parametrize(("name", "exit_code", "failure", "text"), FAILURES)
def test_a_real_failure_is_typed_and_quotes_the_decisive_line(name, exit_code, failure, text):
    with pytest.raises(failure, match=text) as raised:
        parse(output(name), "", exit_code)
    assert type(raised.value) is failure


@pytest.mark.parametrize(
    ("line", "failure", "text"),
    [
        ("terminate called after throwing an instance of 'std::bad_alloc'", OutOfMemory, "bad_alloc"),
        ('CANNOT LINK EXECUTABLE "./benchmark_model": library "libEGL.so" not found', Unsupported, "does not link"),
        ("sh: ./benchmark_model: inaccessible or not found", Unsupported, "an ABI whose linker"),
        ("bash: ./benchmark_model: cannot execute binary file: Exec format error", Unsupported, "different ABI"),
        ("ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'.", Unsupported, "older than the model"),
        ("ERROR: Could not open '/data/local/tmp/m.tflite'.", Malformed, "Could not open"),
        ("ERROR: The model is not a valid Flatbuffer buffer", Malformed, "valid Flatbuffer"),
        ("ERROR: Node number 57 (BATCH_MATMUL) failed to prepare.", Unsupported, "BATCH_MATMUL"),
        ("ERROR: Disallowed CPU fallback detected.", Unsupported, "the delegate does not support the model"),
        ("ERROR: Something new went wrong", RuntimeFailure, r"exited with 1\): Something new went wrong"),
    ],
)
def test_each_cause_of_failure_has_its_type(line, failure, text):
    with pytest.raises(failure, match=text) as raised:
        parse("INFO: STARTING!\n", line + "\nERROR: Benchmarking failed.\n", 1)
    assert type(raised.value) is failure


def test_unsupported_operators_are_named():
    refused = (
        "ERROR: Following operations are not supported by GPU delegate:\nERROR: GATHER_ND: Operation is not supported."
    )
    with pytest.raises(Unsupported, match="GATHER_ND"):
        parse("", refused + "\nERROR: Disallowed CPU fallback detected.", 1)


@pytest.mark.parametrize(("exit_code", "how"), [(0, "exited with 0"), (139, "ended by signal 11"), (-6, "signal 6")])
def test_empty_output_is_a_failure(exit_code, how):
    with pytest.raises(RuntimeFailure, match="printed nothing and .*" + how):
        parse("\n", "", exit_code)


@pytest.mark.parametrize("exit_code", [1, 137, -9])
def test_statistics_of_a_failed_run_are_rejected(exit_code):
    with pytest.raises(RuntimeFailure):
        parse("\n".join(GOOD), "", exit_code)


def test_statistics_next_to_a_reported_failure_are_rejected():
    with pytest.raises(RuntimeFailure, match="failed"):
        parse("\n".join(GOOD), "ERROR: Benchmarking failed.", 0)


@pytest.mark.parametrize(
    "line",
    [
        "WARN: Unconsumed cmdline flags: --use_xnnpack=true",
        "WARN: Unconsumed cmdline flags: --max_secs=2 --xnnpack_force_fp16=true",
        "Could not create Hexagon delegate: platform may not support delegate or required libraries are missing",
        "WARN: GPU acceleration is unsupported on this platform.",
        "INFO: Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.",
    ],
)
def test_a_warning_that_something_else_was_measured_is_unsupported(line):
    with pytest.raises(Unsupported, match=re.escape(line.split(": ", 1)[-1])):
        parse("\n".join([line, *GOOD]), "", 0)


def test_partial_delegation_is_unsupported():
    line = "Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 3."
    with pytest.raises(Unsupported, match=r"part of the model ran on the CPU: .*w/ 3"):
        parse("\n".join([line, *GOOD]), "", 0)


@pytest.mark.parametrize("delegate", ["xnnpack", "gpu", "nnapi", "hexagon"])
def test_a_requested_delegate_must_be_reported(delegate):
    assert parse("\n".join(GOOD), "", 0, "none")
    with pytest.raises(Unsupported, match="did not report that"):
        parse("\n".join(GOOD), "", 0, delegate)


@pytest.mark.parametrize(
    ("at", "line", "text"),
    [
        (4, None, "ends without"),
        (4, CLOSING[:60], "ends without"),
        (4, CLOSING.replace("119.3", "nan"), "ends without"),
        (4, CLOSING.replace("119.3", "120.3"), "mean of 120.3 µs, the statistics do not: count=50"),
        (4, CLOSING.replace("130", "131"), "first run of 131"),
        (4, CLOSING + "\n" + CLOSING.replace("870", "871"), "two different summaries"),
        (3, None, "reported 1 bursts"),
        (3, SECOND + "\n" + SECOND, "did not announce: count=50"),
        (3, "count=0", "invalid statistics: count=0"),
        (3, SECOND[:40], "invalid statistics: count=50 first"),
        (3, SECOND.replace("avg=119.3", "avg=nan"), "invalid statistics"),
        (3, SECOND.replace("std=1", "std=-9223372036854775808"), "invalid statistics"),
        (3, SECOND.replace("min=113", "min=123"), "inconsistent statistics: count=50"),
        (3, SECOND.replace("median=119", "median=125"), "inconsistent statistics"),
        (3, "count=9000 curr=0(all same)", "too short for the clock of benchmark_model: count=9000"),
        (1, "count=0", "invalid statistics: count=0"),
    ],
)
def test_unexpected_output_is_malformed(at, line, text):
    lines = [*GOOD[:at], *([line] if line else []), *GOOD[at + 1 :]]
    with pytest.raises(Malformed, match=re.escape(text)):
        parse("\n".join(lines), "", 0)


def test_identical_runs_have_no_spread():
    closing = CLOSING.replace("119.3", "120")
    report = parse("\n".join([WARMUP, FIRST, TIMED, "count=50 curr=120(all same)", closing]), "", 0)
    assert (report.min_ns, report.median_ns, report.mean_ns, report.max_ns, report.std_ns) == (120000,) * 4 + (0,)


def test_a_repeated_summary_is_accepted():
    assert parse("\n".join([*GOOD, CLOSING]), "", 0) == parse("\n".join(GOOD), "", 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options("m", delegate="xnnpack"), "--use_xnnpack=true"),
        (Options("m", delegate="xnnpack", fp16=True), "--xnnpack_force_fp16=true --use_xnnpack=true"),
        (Options("m", delegate="none"), "--use_xnnpack=false"),
        (
            Options("m", delegate="gpu"),
            "--use_gpu=true --require_full_delegation=true --gpu_precision_loss_allowed=false",
        ),
        (
            Options("m", delegate="nnapi", fp16=True),
            "--use_nnapi=true --require_full_delegation=true --allow_fp16=true",
        ),
        (Options("m", delegate="hexagon"), "--use_hexagon=true --require_full_delegation=true"),
    ],
)
def test_the_command_line_contains_the_options(options, expected):
    common = (
        "tool --graph=m --num_threads=1 --warmup_runs=1 --warmup_min_secs=0.5 --num_runs=50 --min_secs=1 --max_secs=150"
    )
    assert command("tool", options) == [*common.split(), *expected.split()]


def test_an_unknown_delegate_is_unsupported():
    with pytest.raises(Unsupported, match="no delegate 'npu'; it has xnnpack, none, gpu, nnapi, hexagon"):
        command("tool", Options("m", delegate="npu"))


@pytest.mark.parametrize(
    ("machine", "expected"), [(0xB7, "arm64-v8a"), (0x28, "armeabi-v7a"), (0x3E, "x86_64"), (0x15, "")]
)
def test_the_abi_of_an_executable(machine, expected):
    head = b"\x7fELF\x02\x01" + bytes(10) + b"\x03\x00" + bytes([machine, 0])
    assert abi(head) == expected
    assert abi(b"#!/bin/sh\n" + bytes(10)) == abi(head[:19]) == ""


def test_executables_of_this_machine_have_an_abi():
    with open(sys.executable, "rb") as file:
        assert abi(file.read(20)) in benchmark_model.MACHINES.values()


# The stand-in.


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with one 1×1 convolution."""
    path = tmp_path_factory.mktemp("model") / "conv.tflite"
    path.write_bytes(one_convolution(56, 16, 64))
    return str(path)


def one_convolution(size, channels_in, channels_out):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    import flatbuffers
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name, shape, buffer):
        each = schema.TensorT()
        each.name, each.shape, each.buffer, each.type = name, shape, buffer, schema.TensorType.FLOAT32
        return each

    def buffer(values):
        each = schema.BufferT()
        each.data = np.frombuffer(values.astype("<f4").tobytes(), np.uint8) if values.size else None
        return each

    weights = np.random.default_rng(1).standard_normal((channels_out, 1, 1, channels_in))
    graph, operator, code, root = schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT(), schema.ModelT()
    graph.tensors = [
        tensor("input", [1, size, size, channels_in], 0),
        tensor("weights", list(weights.shape), 1),
        tensor("bias", [channels_out], 2),
        tensor("output", [1, size, size, channels_out], 0),
    ]
    operator.inputs, operator.outputs, operator.opcodeIndex = [0, 1, 2], [3], 0
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.Conv2DOptions, schema.Conv2DOptionsT()
    operator.builtinOptions.strideH = operator.builtinOptions.strideW = 1
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    graph.inputs, graph.outputs, graph.operators = [0], [3], [operator]
    root.version, root.operatorCodes, root.subgraphs = 3, [code], [graph]
    root.buffers = [buffer(np.zeros(0)), buffer(weights), buffer(np.zeros(channels_out))]
    builder = flatbuffers.Builder()
    builder.Finish(root.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def ran(options, deviations=""):
    started = command(str(STAND_IN), options)
    return subprocess.run(
        [sys.executable, *started],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "OFA_STAND_IN": deviations},
        check=False,
    )


def brief(model, **options):
    return Options(**{"graph": model, "warmup_s": 0.01, "min_s": 0.02, "min_runs": 5, **options})


def measured(options, deviations=""):
    done = ran(options, deviations)
    return parse(done.stdout, done.stderr, done.returncode, options.delegate)


@pytest.mark.real
@pytest.mark.parametrize("delegate", benchmark_model.DELEGATES)
def test_the_stand_in_measures_a_real_model(model, delegate):
    report = measured(brief(model, delegate=delegate))
    assert report.count >= 5
    assert 0 < report.min_ns <= report.median_ns <= report.max_ns
    assert 0 < report.warmup_mean_ns <= report.first_ns or report.warmup_count > 1
    assert report.init_ns > 0


@pytest.mark.real
def test_the_stand_in_follows_the_limits_of_the_tool(model):
    assert measured(brief(model, warmup_s=0, min_s=0, min_runs=7)).count == 7
    assert measured(brief(model, warmup_s=0, min_s=0, min_runs=7)).warmup_count == 1
    assert measured(brief(model, min_s=0.2, min_runs=1)).count > 7
    assert measured(brief(model, min_runs=10**9, max_s=0.1)).count < 10**9


@pytest.mark.real
def test_the_stand_in_is_slower_with_a_larger_model(model, tmp_path):
    (tmp_path / "large.tflite").write_bytes(one_convolution(112, 64, 256))
    assert measured(brief(str(tmp_path / "large.tflite"))).min_ns > 5 * measured(brief(model)).min_ns


@pytest.mark.real
@pytest.mark.parametrize(
    ("deviations", "failure", "text"),
    [
        ("crash", RuntimeFailure, f"signal {signal.SIGSEGV:d}"),
        ("silent", RuntimeFailure, "printed nothing and exited with 0"),
        ("wrong-abi", Unsupported, "different ABI"),
        ("refuse", Unsupported, "CONV_2D: Operation is not supported"),
        ("refuse=no-such-model,crash=conv.tflite", RuntimeFailure, "signal"),
    ],
)
def test_the_stand_in_fails_as_the_tool_does(model, deviations, failure, text):
    with pytest.raises(failure, match=text) as raised:
        measured(brief(model, delegate="gpu"), deviations)
    assert type(raised.value) is failure


@pytest.mark.real
def test_a_hanging_stand_in_must_be_killed(model):
    started = [sys.executable, *command(str(STAND_IN), brief(model))]
    with subprocess.Popen(started, stdout=subprocess.PIPE, env={**os.environ, "OFA_STAND_IN": "hang"}) as hanging:
        lines = iter(hanging.stdout.readline, b"")
        assert any(b"Running benchmark" in line for line in lines)
        with pytest.raises(subprocess.TimeoutExpired):
            hanging.wait(0.3)
        hanging.kill()


@pytest.mark.real
def test_a_sleeping_stand_in_sleeps_in_proportion_to_the_model_size(model):
    report = measured(brief(model, min_s=0, min_runs=3), "sleep=4000")
    assert report.min_ns >= 4000 * os.path.getsize(model) - US


@pytest.mark.real
def test_a_file_next_to_the_stand_in_sets_its_deviation(model, tmp_path, monkeypatch):
    monkeypatch.delenv("OFA_STAND_IN", raising=False)
    (tmp_path / "benchmark_model").write_bytes(STAND_IN.read_bytes())
    (tmp_path / "benchmark_model.stand_in").write_text("silent\n")
    done = subprocess.run(
        [sys.executable, *command(str(tmp_path / "benchmark_model"), brief(model))], capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.real
def test_an_old_stand_in_reports_no_median_and_supports_fewer_flags(model):
    report = measured(brief(model), "old")
    assert report.median_ns == 0 < report.mean_ns
    with pytest.raises(Unsupported, match=r"does not support some flags: .*--xnnpack_force_fp16=true"):
        measured(brief(model, fp16=True), "old")


@pytest.mark.real
@pytest.mark.parametrize(("content", "text"), [(None, "Could not open"), (b"no model", "valid Flatbuffer|identifier")])
def test_the_stand_in_rejects_files_that_are_not_models(tmp_path, model, content, text):
    path = tmp_path / "broken.tflite"
    if content:
        path.write_bytes(content)
    with pytest.raises(Malformed, match=text):
        measured(brief(str(path)))


@pytest.mark.parametrize("delegate", ["none", "hexagon"])
def test_a_delegate_that_would_compute_in_another_precision_is_refused(delegate):
    with pytest.raises(Unsupported, match="computes in fp16 only with the delegates xnnpack, gpu and nnapi"):
        command("tool", Options("m", delegate=delegate, fp16=True))


# Model files of users.


def test_the_profile_of_operators_is_read_by_its_columns():
    """The recorded profile is shortened to the first operators."""
    layers, took_ns = benchmark_files.read_layers((OUTPUTS / "cpu-2022-profiled.txt").read_text())
    assert [(layer.name, layer.operator) for layer in layers] == [
        ("MobilenetV1/MobilenetV1/Conv2d_0/Relu6", "CONV_2D"),
        ("MobilenetV1/MobilenetV1/Conv2d_1_depthwise/Relu6", "DEPTHWISE_CONV_2D"),
    ]
    assert took_ns == [60_957_000, 49_870_000]


def test_a_profile_without_the_column_of_starts():
    printed = (OUTPUTS / "cpu-2022-profiled.txt").read_text()
    newer = [
        line.replace("          [start]\t", "").replace("            0.066\t", "") for line in printed.splitlines()
    ]
    newer = [line.replace("           61.033\t", "") for line in newer]
    assert benchmark_files.read_layers("\n".join(newer)) == benchmark_files.read_layers(printed)


def test_an_output_without_a_profile_is_unsupported():
    with pytest.raises(Unsupported, match="prints no profile of operators"):
        benchmark_files.read_layers((OUTPUTS / "xnnpack-2025.txt").read_text())


def test_the_memory_of_a_model_is_read():
    assert benchmark_files.footprint_bytes((OUTPUTS / "default-2025.txt").read_text()) == int(14.8164 * 2**20)
    assert benchmark_files.footprint_bytes("nothing") == 0


def test_inputs_are_flags():
    inputs = [ModelInput("ids", "int64", (1, 7), 50), ModelInput("x", "float32", (1, 8, 8, 3))]
    assert benchmark_files.input_flags(inputs) == [
        "--input_layer=ids,x",
        "--input_layer_shape=1,7:1,8,8,3",
        "--input_layer_value_range=ids,0,49",
    ]
    with pytest.raises(Unsupported, match="cannot name the input 'x:0'"):
        benchmark_files.input_flags([ModelInput("x:0", "float32", (1,))])
