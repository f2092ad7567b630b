"""ONNX Runtime on a GPU. Without one, the provider of the CPU runs the same code; it shows that the pieces fit."""

import numpy as np
import pytest

from ofa_agent import runtimes
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Unsupported
from ofa_agent.runtimes import onnxruntime as module
from ofa_agent.runtimes.onnxruntime import CPU, CUDA, OnnxRuntime, _provider_options
from ofa_agent.runtimes.onnxruntime_gpu import OnnxGpuLoaded
from ofa_nas.spaces import find_space
from ofa_profiler.lowering import lower

BLOCK = find_space("ofa-mbv3-w1.0").blocks(128)[3]
needs_gpu = pytest.mark.skipif(
    CUDA not in module.ort.get_available_providers(), reason="this onnxruntime has no CUDA provider"
)


@pytest.fixture
def job(tmp_path):
    """A job of BLOCK and the path of its model."""

    def make(runtime="onnxruntime", precision="fp32"):
        model = lower(runtime, BLOCK, 2, precision)
        path = tmp_path / f"{runtime}-{precision}.onnx"
        path.write_bytes(wire.model_bytes(model.chunks))
        settings = wire.Settings(runtime=runtime, precision=precision, threads=1, batch=2)
        return wire.job_message(BLOCK, settings, model.model_id), str(path)

    return make


class ThereLoaded(OnnxGpuLoaded):
    """With the input in an OrtValue, as on a GPU."""

    def __init__(self, session, as_graph):
        super().__init__(session, BLOCK, 2, "cpu", as_graph)
        self._there = module.ort.OrtValue.ortvalue_from_numpy(self._input, "cpu", 0)
        self._binding = self.bound(session)


def test_device_time_and_launch_time_are_measured_in_runs_of_their_own(job):
    message, path = job()
    session = module.cpu._session(message, path)
    loaded = ThereLoaded(session, lambda: module.cpu._session(message, path, as_graph=True))
    loaded.run()
    expected = loaded.output().copy()
    times = loaded.device_times()
    assert times.device_ns > 0
    assert times.launch_ns > 0
    loaded.warm_input()
    loaded.run()
    assert np.array_equal(loaded.output(), expected)


def test_a_block_that_cannot_be_a_graph_has_no_device_time(job):
    def refuse():
        raise RuntimeError("This session cannot use the graph capture feature")

    message, path = job()
    times = ThereLoaded(module.cpu._session(message, path), refuse).device_times()
    assert times.device_ns == 0
    assert times.launch_ns > 0


@pytest.mark.parametrize(("version", "precision", "expected"), [
    ("1.30.0", "fp32", {"use_tf32": "0"}),
    ("1.30.0", "tf32", {"use_tf32": "1"}),
    ("1.30.0", "fp16", {"use_tf32": "0"}),
    ("1.10.0", "fp32", {}),
])  # fmt: skip
def test_fp32_is_not_computed_as_tf32(monkeypatch, version, precision, expected):
    monkeypatch.setattr(module.ort, "__version__", version)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert _provider_options(CUDA, precision, as_graph=False) == expected
    assert module.os.environ["NVIDIA_TF32_OVERRIDE"] == ("1" if expected else "0")


def test_an_old_version_refuses_tf32(monkeypatch):
    monkeypatch.setattr(module.ort, "__version__", "1.16.3")
    with pytest.raises(Unsupported, match=r"cannot choose tf32; it needs 1\.18"):
        _provider_options(CUDA, "tf32", as_graph=False)


def test_a_graph_is_an_option_of_the_provider():
    assert _provider_options(CUDA, "fp32", as_graph=True)["enable_cuda_graph"] == "1"
    assert _provider_options(CPU, "fp32", as_graph=True) == {}


def test_a_model_in_half_precision_has_the_same_output(job):
    expected = module.cpu.load(BLOCK, *job())
    expected.run()
    _, path = job("onnxruntime-cuda", "fp16")
    session = module.ort.InferenceSession(path, providers=[CPU])  # converts what it cannot compute in half precision
    assert session.get_inputs()[0].type == session.get_outputs()[0].type == "tensor(float16)"
    half = ThereLoaded(session, None)
    half.run()
    assert half.output().dtype == np.float16
    assert np.abs(half.output() - expected.output()).max() <= 2e-2 * np.abs(expected.output()).max()


def test_blocks_are_timed_alone_because_profiles_have_no_kernel_times():
    assert not hasattr(runtimes.find("onnxruntime-cuda"), "load_profiled")
    assert hasattr(OnnxRuntime(), "load_profiled")


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
def test_a_block_gives_the_same_output_as_on_the_cpu(job, precision):
    cpu = runtimes.find("onnxruntime").load(BLOCK, *job())
    cpu.run()
    gpu = runtimes.find("onnxruntime-cuda").load(BLOCK, *job("onnxruntime-cuda", precision))
    gpu.run()
    bound = 1e-4 if precision == "fp32" else 2e-2
    assert np.abs(gpu.output() - cpu.output()).max() <= bound * np.abs(cpu.output()).max()
    assert gpu.device_times().device_ns > 0
