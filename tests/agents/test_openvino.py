"""Runtime ``openvino``: outputs, precision, threads, and the times of operators from performance counters."""

import os

import numpy as np
import pytest

from ofa_agent import operators as ops
from ofa_agent import runtimes
from ofa_agent.commands.layers import Kernel, owners_of
from ofa_agent.measuring.parts import part_samples
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Malformed, OutOfMemory, Unsupported
from ofa_agent.runtimes import openvino as runtime
from ofa_agent.runtimes.openvino_counters import Counters, later_average_us
from ofa_nas.spaces import find_space
from ofa_profiler.lowering import lower

FIRST = ops.Block("first", (8, 64, 64), (ops.Conv(8, 64, 3, 2), ops.Activation("hard_swish")))
SECOND = ops.Block(
    "second",
    (64, 32, 32),
    (
        ops.Conv(64, 64, 5, 1, 64),
        ops.Activation("relu"),
        ops.SqueezeExcite(64, 16),
        ops.Conv(64, 64, 1),
        ops.Add(0),
    ),
)
LAST = ops.Block("last", (64, 32, 32), (ops.Conv(64, 256, 1), ops.Pool(), ops.Linear(256, 1000)))
PARTS = (FIRST, SECOND, LAST)
NETWORK = ops.concatenate("network:test", PARTS)
SPACES = {"ofa-mbv3-w1.0": 24, "ofa-proxyless-w1.3": 40, "ofa-resnet50d": 40, "tiny": 12}  # every how many blocks


@pytest.fixture
def openvino():
    return pytest.importorskip("openvino", reason="OpenVINO is not installed")


@pytest.fixture
def load(tmp_path):
    """Load a block by a runtime."""

    def load(block=NETWORK, name="openvino", batch=1, precision="fp32", threads=1, model=None, profiled=False):
        if model is None:
            model = wire.model_bytes(lower(name, block, batch, "int8" if precision == "int8" else "fp32").chunks)
        path = tmp_path / name
        path.write_bytes(model)
        found = runtimes.find(name)
        return (found.load_profiled if profiled else found.load)(
            block, job_of(block, name, batch, precision, threads), str(path)
        )

    return load


def job_of(block, name="openvino", batch=1, precision="fp32", threads=1):
    settings = wire.Settings(runtime=name, precision=precision, threads=threads, batch=batch)
    return wire.job_message(block, settings, "a model")


def blocks():
    yield pytest.param(NETWORK, id="a network")
    for name, every in SPACES.items():
        space = find_space(name)
        for block in space.blocks(min(space.resolutions_px))[::every]:
            yield pytest.param(block, id=f"{name} {block.key}")


@pytest.mark.parametrize("block", list(blocks()))
def test_a_block_gives_the_same_output_as_in_onnxruntime(openvino, load, block):
    outputs = []
    for name in ("onnxruntime", "openvino"):
        loaded = load(block, name, batch=2)
        loaded.run()
        loaded.warm_input()
        loaded.run()
        outputs.append(np.array(loaded.output()))
    expected, got = outputs
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


def test_int8_outputs_are_close_to_those_in_fp32(openvino, load):
    outputs = []
    for precision in ("fp32", "int8"):
        loaded = load(precision=precision)
        loaded.run()
        outputs.append(np.array(loaded.output()))
    expected, got = outputs
    assert 0 < np.abs(got - expected).max() <= 0.1 * np.ptp(expected)


# Settings.


def test_the_version_is_reported_without_import(openvino):
    assert runtimes.find("openvino").version() == runtime._installed()
    assert "openvino" in runtimes.probe().profiling_runtimes


def test_missing_and_old_packages_are_unsupported(monkeypatch):
    monkeypatch.setattr(runtime.util, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match="OpenVINO is not installed"):
        runtime._installed.__wrapped__()
    monkeypatch.setattr(runtime, "_installed", lambda: "2022.3.1")
    with pytest.raises(Unsupported, match=r"OpenVINO 2022\.3\.1 is too old; install 2023\.1 or later"):
        runtimes.find("openvino").version()


@pytest.mark.parametrize(("name", "device"), [("openvino-gpu", "GPU"), ("openvino-npu", "NPU")])
def test_a_machine_without_the_device_is_unsupported(openvino, load, monkeypatch, name, device):
    if any(each.startswith(device) for each in runtime._core().available_devices):
        pytest.skip(f"this machine has a device that OpenVINO calls {device}")
    monkeypatch.setitem(runtime.DRIVERS, device, ("/absent",))
    with pytest.raises(Unsupported, match=f"finds no {device}: there is no /absent"):
        runtimes.find(name).version()
    monkeypatch.setitem(runtime.DRIVERS, device, ("/",))
    with pytest.raises(Unsupported, match=f"OpenVINO finds no {device}; it finds CPU"):
        runtimes.find(name).version()
    with pytest.raises(Unsupported, match=f"OpenVINO finds no {device}; it finds CPU"):
        load(name=name)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_precision_that_the_processor_lacks_is_unsupported(openvino, load, monkeypatch, precision):
    class Core:
        def get_property(self, device, name):
            return ["FP32", "INT8"]

        def __getattr__(self, name):
            return getattr(core, name)

    core = runtime._core()
    monkeypatch.setattr(runtime, "_core", Core)
    with pytest.raises(Unsupported, match=r"does not compute in b?f16; it has FP32, INT8"):
        load(precision=precision)


def test_an_unknown_precision_is_unsupported(load):
    with pytest.raises(Unsupported, match="runtime openvino does not support fp64"):
        load(precision="fp64")


def test_a_setting_that_openvino_replaces_is_unsupported(openvino, load):
    with pytest.raises(Unsupported, match=r"OpenVINO uses INFERENCE_NUM_THREADS .* on this device, not 4096"):
        load(threads=4096)


def test_fp32_is_computed_in_fp32(openvino, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(wire.model_bytes(lower("openvino", NETWORK, 1).chunks))
    job = job_of(NETWORK)
    compiled = runtime.cpu._compile(runtime.cpu._read(NETWORK, job, str(path)), job.settings)
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


def test_threads_stay_on_the_cores_of_the_process(openvino, load):
    before = os.sched_getaffinity(0)
    known = set(os.listdir("/proc/self/task"))
    core = max(before)
    os.sched_setaffinity(0, {core})
    try:
        loaded = load(threads=1)
        for _ in range(3):
            loaded.run()
        assert os.sched_getaffinity(0) == {core}
        new = set(os.listdir("/proc/self/task")) - known
        assert all(os.sched_getaffinity(int(task)) == {core} for task in new)
    finally:
        os.sched_setaffinity(0, before)


# Failures.


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
def test_a_damaged_model_is_malformed(openvino, load, damage):
    whole = wire.model_bytes(lower("openvino", NETWORK, 1).chunks)
    content = {"cut": whole[: len(whole) // 2], "foreign": b"another format" * 100, "empty": b""}[damage]
    with pytest.raises(Malformed):
        load(model=content)


def test_a_model_of_a_different_block_is_malformed(openvino, load):
    with pytest.raises(Malformed, match="which does not match network:test"):
        load(model=wire.model_bytes(lower("openvino", NETWORK, 2).chunks))
    with pytest.raises(Malformed, match="which does not match network:test"):
        load(model=wire.model_bytes(lower("openvino", SECOND, 1).chunks))


def test_a_job_without_a_model_is_malformed():
    with pytest.raises(Malformed, match="requires a model, but the job has no model_id"):
        runtimes.find("openvino").load(NETWORK, job_of(NETWORK), "")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), OutOfMemory),
        (RuntimeError("std::bad_alloc"), OutOfMemory),
        (RuntimeError("[GPU] CL_OUT_OF_RESOURCES"), OutOfMemory),
        (RuntimeError("-- No conversion rule found for operations: X"), Unsupported),
        (RuntimeError("anything else"), RuntimeError),
    ],
)
def test_errors_of_openvino_are_typed(error, kind):
    assert type(runtime.typed(error)) is kind


# Blocks inside networks.


def test_operators_are_timed_inside_a_network(openvino, load):
    loaded = load(profiled=True)
    for _ in range(20):
        loaded.run()
    reported = loaded.operator_times()
    assert reported.operator_ns.shape == (20, len(NETWORK.operators))
    fused = [isinstance(op, ops.Activation | ops.Add) for op in NETWORK.operators]
    assert [kernels == 0 for kernels in reported.kernels] == fused
    assert ((reported.operator_ns[0] == 0) == fused).all()
    loaded.run()  # later runs have no counters
    plain = load()
    plain.run()
    assert np.array_equal(loaded.output(), plain.output())
    loaded.close()


def test_parts_add_up_to_the_network(openvino, load):
    loaded = load(profiled=True)
    for _ in range(20):
        loaded.run()
    samples = part_samples(loaded.operator_times(), [len(part.operators) for part in PARTS], whole_ns=1e6)
    assert np.sum(samples, axis=0) == pytest.approx([1e6] * 20, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "fp32") for name in SPACES), ("ofa-mbv3-w1.0", "int8"), ("tiny", "int8")]
)
def test_every_block_of_a_network_has_a_kernel(openvino, load, name, precision):
    space = find_space(name)
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(0), [max(space.resolutions_px)]))
    loaded = load(space.network(architecture), profiled=True, precision=precision)
    for _ in range(5):
        loaded.run()
    sizes = [len(block.operators) for block in space.network_blocks(architecture)]
    samples = part_samples(loaded.operator_times(), sizes, whole_ns=1e6)
    assert len(samples) == len(sizes)


def test_the_agent_times_blocks_inside_a_network(host, trial_of, openvino):
    model = lower("openvino", NETWORK, 1)
    trial = trial_of("openvino", block=NETWORK, model_id=model.model_id)
    for part in PARTS:
        trial.job.parts.add(key=part.key, operators=len(part.operators))
    measurement = host.take(trial, model)
    assert measurement.status == "ok", measurement.error
    assert measurement.runtime_version == runtimes.find("openvino").version()
    assert [part.key for part in measurement.parts] == ["first", "second", "last"]
    assert all(min(part.samples_ns) > 0 for part in measurement.parts)


def test_a_kernel_belongs_to_the_operator_that_requires_it():
    kernels = [
        Kernel("x_abcd_acdb_operator0/WithoutBiases", ""),
        Kernel("operator0/WithoutBiases", "operator0/WithoutBiases,operator0,operator1"),
        Kernel("operator0/WithoutBiases_acdb_abcd_operator2.pool", ""),
        Kernel("operator2", "operator2.pool,operator2"),
        Kernel("Multiply_17", "Multiply_17"),
        Kernel("operator12", "operator12,operator13"),
        Kernel("y", "y"),
    ]
    assert owners_of(kernels, 15) == [0, 0, 2, 2, 12, 12, 14]


def test_branches_may_run_in_any_order():
    kernels = [Kernel(f"operator{index}", f"operator{index}") for index in (0, 3, 1, 2)]
    assert owners_of(kernels, 4) == [0, 3, 1, 2]


def readings_of(runs_us):
    """The counters of a kernel after each run: times are rounded down, and so is their average."""
    totals = np.cumsum(np.floor(runs_us))
    runs = np.arange(1, len(runs_us) + 1)
    return runs, np.floor(totals / runs)[:, None]


def test_averages_are_corrected_for_rounding_and_slow_first_runs():
    noise = np.random.default_rng(0)
    errors = []
    for usual in noise.uniform(3, 300, 200):
        took = noise.normal(usual, 1.0, 40)
        took[0] = usual * 20
        errors.append(later_average_us(*readings_of(took))[0] - usual)
    assert abs(np.mean(errors)) < 0.1
    assert np.std(errors) < 1.0


def test_an_interrupted_run_is_not_counted():
    took = np.full(40, 50.2)
    took[25] += 4000
    assert later_average_us(*readings_of(took))[0] == pytest.approx(50.2, abs=3)


def test_a_single_reading_is_used_as_it_is():
    counters = Counters({"operator0": 0}, 2)
    counters.add(3, {"operator0": 7.0})
    reported = counters.profiled()
    assert reported.operator_ns.tolist() == [[8000.0, 0.0]] * 3
    assert reported.kernels.tolist() == [1, 0]
