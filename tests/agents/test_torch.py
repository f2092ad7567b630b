"""Runtime ``torch``: blocks from their operators, with the same weights and outputs as lowered blocks."""

import shutil

import numpy as np
import pytest

from ofa_agent import runtimes
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Unsupported
from ofa_nas.spaces import find_space
from ofa_profiler.lowering import lower

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

SPACE = find_space("ofa-mbv3-w1.0")


def job_of(block, runtime, batch=1, precision="fp32", model_id=""):
    settings = wire.Settings(runtime=runtime, precision=precision, threads=1, batch=batch)
    return wire.job_message(block, settings, model_id)


def output_by(runtime, block, tmp_path, batch=1):
    model = lower(runtime, block, batch)
    path = tmp_path / "model"
    path.write_bytes(wire.model_bytes(model.chunks))
    loaded = runtimes.find(runtime).load(block, job_of(block, runtime, batch, model_id=model.model_id), str(path))
    loaded.run()
    output = np.array(loaded.output())
    loaded.close()
    return output


@pytest.mark.parametrize("runtime", ["torch", "torch-script"])
@pytest.mark.parametrize(
    "block", [None, *SPACE.blocks(128)[::12]], ids=lambda block: block.key if block else "every kind"
)
def test_a_block_gives_the_same_output_as_the_lowered_block(runtime, block, every_kind, tmp_path):
    block = block or every_kind
    expected, got = (output_by(name, block, tmp_path, batch=2) for name in ("onnxruntime", runtime))
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.slow  # compiles
def test_torch_compile_gives_the_same_output(every_kind, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    expected, got = (output_by(name, every_kind, tmp_path) for name in ("torch", "torch-compile"))
    assert np.abs(got - expected).max() <= 1e-4


def test_a_job_needs_no_model():
    model = lower("torch", SPACE.blocks(128)[3], 1)
    assert (model.model_id, model.chunks) == ("", ())


def test_operators_are_timed_inside_a_network(tmp_path):
    network = SPACE.network(SPACE.decode(SPACE.sample(1, np.random.default_rng(0), [128]))[0])
    loaded = runtimes.find("torch").load_profiled(network, job_of(network, "torch"), "")
    for _ in range(3):
        loaded.run()
    reported = loaded.operator_times()
    assert reported.operator_ns.shape == (3, len(network.operators))
    assert (reported.operator_ns > 0).all()
    loaded.run()  # later runs are not profiled
    assert loaded.operator_times is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("runtime", ["torch-cuda", "torch-cuda-script", "torch-cuda-compile", "torch-cuda-graph"])
def test_a_device_without_cuda_is_unsupported(runtime):
    with pytest.raises(Unsupported, match="finds no CUDA device"):
        runtimes.find(runtime).version()
    assert "finds no CUDA device" in runtimes.probe().missing_runtimes[runtime]


def test_half_precision_on_the_cpu_is_refused():
    block = SPACE.blocks(128)[3]
    with pytest.raises(Unsupported, match="does not support fp16 on cpu"):
        runtimes.find("torch").load(block, job_of(block, "torch", precision="fp16"), "")


def test_onnxruntime_without_gpu_providers_is_unsupported():
    for runtime in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
        with pytest.raises(Unsupported, match="was built without"):
            runtimes.find(runtime).version()


def test_the_agent_measures_with_it(host, trial_of, small_block):
    trial = trial_of("torch")
    measurement = host.take(trial)
    assert measurement.status == "ok", measurement.error
    assert measurement.runtime_version == torch.__version__
