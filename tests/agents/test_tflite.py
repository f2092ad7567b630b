"""Runtime ``tflite``: model files with LiteRT or tflite-runtime, and the formats of seeded weights."""

import subprocess
import sys

import numpy as np
import pytest

from ofa_agent import operators as ops
from ofa_agent import runtimes
from ofa_agent.device import probe
from ofa_agent.protocol import messages as wire
from ofa_agent.protocol.messages import SeededValues
from ofa_agent.runtimes import Malformed, OutOfMemory, Unsupported, litert_profiler
from ofa_agent.runtimes import tflite as runtime
from ofa_agent.service.models import BadModel, ModelCache
from ofa_profiler.lowering import lower

EVERY_KIND = (
    ops.Conv(8, 16, 3, 2),
    ops.Activation("hard_swish"),
    ops.Conv(16, 16, 5, groups=16, bias=False),
    ops.Activation("relu6"),
    ops.SqueezeExcite(16, 4),
    ops.Add(2),
)
BLOCK = ops.Block("every kind of operator", (8, 9, 10), EVERY_KIND)


@pytest.fixture
def litert():
    return pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")


def job_of(block, name="tflite", batch=1, precision="fp32", threads=1):
    settings = wire.Settings(runtime=name, precision=precision, threads=threads, batch=batch)
    return wire.job_message(block, settings, "a model")


@pytest.fixture
def loaded_by(tmp_path, litert):
    def load(name="tflite", batch=1, precision="fp32", threads=1, model=None):
        if model is None:
            model = wire.model_bytes(lower(name, BLOCK, batch, precision).chunks)
        (tmp_path / name).write_bytes(model)
        return runtimes.find(name).load(BLOCK, job_of(BLOCK, name, batch, precision, threads), str(tmp_path / name))

    return load


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("fp16", 1e-2), ("int8", 0.1)])
def test_a_block_gives_the_same_output_as_another_runtime(loaded_by, precision, bound, batch, threads):
    expected = loaded_by("onnxruntime", batch)
    loaded = loaded_by("tflite", batch, precision, threads)
    for each in (expected, loaded):
        each.run()
    assert loaded.output().shape == (batch, *BLOCK.output_shape)
    assert np.abs(loaded.output() - expected.output()).max() <= bound * np.ptp(expected.output())


def test_runs_repeat_and_a_warm_input_is_the_same_input(loaded_by):
    loaded = loaded_by()
    loaded.run()
    first = loaded.output()
    loaded.warm_input()
    loaded.run()
    assert np.array_equal(loaded.output(), first)
    assert np.ptp(first) > 0


def test_the_version_names_the_package(litert):
    assert runtimes.find("tflite").version().startswith("ai-edge-litert ")


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
def test_a_damaged_model_is_malformed(loaded_by, damage):
    whole = wire.model_bytes(lower("tflite", BLOCK, 1).chunks)
    content = {"cut": whole[: len(whole) // 2], "foreign": b"another format" * 100, "empty": b""}[damage]
    with pytest.raises(Malformed):
        loaded_by(model=content)


def test_a_model_of_a_different_block_is_malformed(loaded_by):
    for batch, precision in ((2, "fp32"), (1, "int8")):
        model = wire.model_bytes(lower("tflite", BLOCK, batch, precision).chunks)
        with pytest.raises(Malformed, match=f"which does not match {BLOCK.key}"):
            loaded_by(model=model)


def test_a_job_without_a_model_is_malformed(litert):
    with pytest.raises(Malformed, match="requires a model, but the job has no model_id"):
        runtimes.find("tflite").load(BLOCK, job_of(BLOCK), "")


def test_an_unknown_precision_is_unsupported(loaded_by):
    model = wire.model_bytes(lower("tflite", BLOCK, 1).chunks)
    with pytest.raises(Unsupported, match="runtime tflite does not support bf16"):
        loaded_by(precision="bf16", model=model)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), OutOfMemory),
        (RuntimeError("std::bad_alloc"), OutOfMemory),
        (ValueError("Didn't find op for builtin opcode 'HARD_SWISH' version '1'."), Unsupported),
        (ValueError("The model is not a valid Flatbuffer buffer"), Malformed),
    ],
)
def test_errors_of_the_interpreter_are_typed(error, kind):
    assert type(runtime.typed(error)) is kind


def test_a_missing_gpu_delegate_is_unsupported(litert):
    with pytest.raises(
        Unsupported,
        match=r"the GPU delegate .* does not load .*: libtensorflowlite_gpu_delegate\.so",
    ):
        runtimes.find("tflite-gpu").version()


# Packages that a device may have, reduced to the parts that the agent reads.
OLD_PACKAGE = "__version__ = '2.14.0'\n"
ASK = """
import sys
sys.path.insert(0, sys.argv[1])
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ai_edge_litert" else found(name, *rest)
import numpy
numpy.__version__ = sys.argv[2]
from ofa_agent import runtimes
ready = runtimes.probe()
print(ready.runtimes.get("tflite", ready.missing_runtimes["tflite"]))
"""


@pytest.mark.parametrize(
    ("package", "numpy_version", "answer"),
    [
        (OLD_PACKAGE, "1.26.4", "tflite-runtime 2.14.0"),
        (OLD_PACKAGE, "2.1.0", "tflite-runtime 2.14.0 crashes with NumPy 2.1.0; install numpy<2"),
        (None, "1.26.4", "neither ai-edge-litert nor tflite-runtime is installed"),
    ],
)
def test_an_installed_package_is_reported_without_import(tmp_path, package, numpy_version, answer):
    if package is not None:
        (tmp_path / "tflite_runtime").mkdir()
        (tmp_path / "tflite_runtime" / "__init__.py").write_text(package)
        (tmp_path / "tflite_runtime" / "interpreter.py").write_text("raise SystemExit('it crashed')\n")
    command = [sys.executable, "-c", ASK, str(tmp_path), numpy_version]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == answer


def test_either_package_is_found_by_the_probe(monkeypatch):
    for package in ("ai_edge_litert", "tflite_runtime"):
        monkeypatch.setattr(probe.util, "find_spec", lambda name, package=package: name == package or None)
        assert probe.probe()["runtimes"] == ["tflite"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_agent_measures_with_it(host, trial_of, litert, precision):
    model = lower("tflite", BLOCK, 1, precision)
    trial = trial_of("tflite")
    trial.job.CopyFrom(job_of(BLOCK, precision=precision))
    trial.job.model_id = model.model_id
    measurement = host.take(trial, model)
    assert measurement.status == "ok", measurement.error
    assert measurement.runtime_version == runtimes.find("tflite").version()
    assert min(measurement.samples_ns) > 0


# Formats of weights in messages.


def test_a_matrix_is_written_column_by_column():
    plain = ops.seeded(5, 12, 0.5)
    assert np.array_equal(ops.seeded(5, 12, 0.5, rows=3).reshape(4, 3), plain.reshape(3, 4).T)
    half = ops.seeded(5, 12, 0.5, rows=3, form="float16")
    assert half.dtype == np.float16
    assert np.array_equal(half.reshape(4, 3), plain.reshape(3, 4).T.astype(np.float16))


def test_int8_weights_have_one_scale_per_row():
    matrix = ops.seeded(5, 3000, 0.5).reshape(3, -1)
    steps = ops.seeded(5, 3000, 0.5, 3, ops.INT8_BY_ROW).reshape(3, -1)
    assert np.array_equal(ops.seeded(5, 3000, 0.5, 3, "int8").reshape(-1, 3), steps.T)
    assert np.abs(steps).max(axis=1).tolist() == [127, 127, 127]
    scales = ops.int8_scales(matrix)
    assert np.abs(steps * scales[:, None] - matrix).max() <= 0.501 * scales.max()
    assert np.abs(ops.seeded(5, 3000, 0.5, form="int8")).max() == 127


def test_a_row_of_zeros_stays_zero():
    assert not ops.to_int8(np.zeros((2, 3), np.float32), ops.int8_scales(np.zeros((2, 3), np.float32))).any()


FORMED = [SeededValues(7, 12, 0.5, rows, form) for rows in (0, 3) for form in ops.FORMS]


@pytest.mark.parametrize("chunk", FORMED)
def test_every_weight_format_round_trips(chunk):
    chunks = [b"head", chunk, b"tail"]
    messages = [wire.Model.FromString(message.SerializeToString()) for message in wire.model_messages("id", chunks)]
    assert wire.merged(chunk for message in messages for chunk in wire.model_chunks(message)) == chunks
    assert len(wire.model_bytes(chunks)) == wire.chunks_size(chunks)


def test_every_weight_format_has_its_own_hash_and_plain_hashes_are_stable():
    assert len({wire.model_id_of([chunk]) for chunk in FORMED}) == len(FORMED)
    plain = wire.model_id_of([SeededValues(1, 2, 0.5)])
    assert plain == "1b9d493d306ccdb057358a5ed109281674b278ca27d2cd18fb2158769e941123"


@pytest.mark.parametrize(
    ("chunk", "why"),
    [
        (SeededValues(1, 12, 0.5, 0, "float8"), "unknown weight format 'float8'; update the agent"),
        (SeededValues(1, 12, 0.5, 5), "12 values do not form a matrix of 5 rows"),
        (SeededValues(1, 1 << 40, 0.5, 0, "int8"), "larger than"),
    ],
)
def test_values_that_cannot_be_generated_are_a_bad_model(tmp_path, chunk, why):
    cache = ModelCache(str(tmp_path / "models"))
    (message,) = wire.model_messages("id", [chunk])
    with pytest.raises(BadModel, match=why):
        cache.receive(message)
    (message,) = wire.model_messages(wire.model_id_of([b"good"]), [b"good"])
    assert cache.receive(message)


# Blocks inside networks.


@pytest.fixture
def profiler(litert):
    if not hasattr(runtimes.find("tflite"), "load_profiled"):
        pytest.skip("the profiler of this LiteRT is not known")


def network_of(parts):
    return ops.concatenate("network:test", parts)


FIRST = ops.Block("first", (8, 32, 32), (ops.Conv(8, 64, 3, 2), ops.Activation("hard_swish")))
SECOND = ops.Block(
    "second",
    (64, 16, 16),
    (ops.SqueezeExcite(64, 16), ops.Activation("relu6"), ops.Conv(64, 64, 5, 2, 64), ops.Activation("relu")),
)
LAST = ops.Block("last", (64, 8, 8), (ops.Pool(), ops.Linear(64, 10)))
PARTS = (FIRST, SECOND, LAST)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_operators_are_timed_inside_a_network(tmp_path, profiler, precision):
    network = network_of(PARTS)
    path = tmp_path / "model"
    path.write_bytes(wire.model_bytes(lower("tflite", network, 1, precision).chunks))
    job = job_of(network, precision=precision)
    loaded = runtimes.find("tflite").load_profiled(network, job, str(path))
    for _ in range(5):
        loaded.run()
    reported = loaded.operator_times()
    fused = [isinstance(op, ops.Activation) and op.function in ("relu", "relu6") for op in network.operators]
    assert reported.operator_ns.shape == (5, len(network.operators))
    assert [kernels == 0 for kernels in reported.kernels] == fused
    assert ((reported.operator_ns == 0) == fused).all()
    loaded.run()  # later runs are not profiled
    plain = runtimes.find("tflite").load(network, job, str(path))
    plain.run()
    assert np.array_equal(loaded.output(), plain.output())
    loaded.close()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_agent_times_blocks_inside_a_network(host, trial_of, profiler, precision):
    network = network_of(PARTS)
    model = lower("tflite", network, 1, precision)
    trial = trial_of("tflite")
    trial.job.CopyFrom(job_of(network, precision=precision))
    trial.job.model_id = model.model_id
    for part in PARTS:
        trial.job.parts.add(key=part.key, operators=len(part.operators))
    measurement = host.take(trial, model)
    assert measurement.status == "ok", measurement.error
    assert [part.key for part in measurement.parts] == ["first", "second", "last"]
    medians = [np.median(part.samples_ns) for part in measurement.parts]
    assert medians[2] < min(medians[:2]), "a pool and ten outputs are by far the least of the three"


def test_kernels_without_a_node_belong_to_the_node_that_requires_them():
    nodes = [("DEQUANTIZE", 0), ("PAD", 0), ("CONV_2D", 0), ("HARD_SWISH", 1), ("MUL", 2), ("FULLY_CONNECTED", 4)]
    tags = ["Convolution (NHWC, F32) IGEMM", "HARD_SWISH", "Multiply (ND)", "Clamp (NC)", "Static Reshape (NC)"]
    assert litert_profiler.owners_of([*tags, "Fully Connected (NC, F32) GEMM"], nodes) == [0, 1, 2, 2, 4, 4]
    for others in (tags, [*tags[::-1], "Fully Connected"], [*tags, "Fully Connected", "Fully Connected"]):
        with pytest.raises(Unsupported, match="reported kernels that do not match the model"):
            litert_profiler.owners_of(others, nodes)
