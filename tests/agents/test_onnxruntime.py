"""Runtime ``onnxruntime`` in int8: outputs, operator times, and the precisions of each provider."""

from types import SimpleNamespace

import numpy as np
import pytest

from ofa_agent import operators as ops
from ofa_agent import runtimes
from ofa_agent.measuring.parts import part_samples
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Unsupported
from ofa_agent.runtimes import onnxruntime as runtime
from ofa_nas.spaces import find_space
from ofa_profiler.lowering import lower

FIRST = ops.Block("first", (8, 32, 32), (ops.Conv(8, 16, 3, 2), ops.Activation("hard_swish")))
SECOND = ops.Block("second", (16, 16, 16), (ops.SqueezeExcite(16, 8), ops.Conv(16, 16, 1), ops.Add(0)))
LAST = ops.Block("last", (16, 16, 16), (ops.Pool(), ops.Linear(16, 10)))
PARTS = (FIRST, SECOND, LAST)
NETWORK = ops.concatenate("network:test", PARTS)


@pytest.fixture
def load(tmp_path):
    """Load a block by a runtime."""

    def load(block=NETWORK, name="onnxruntime", precision="int8", profiled=False):
        path = tmp_path / precision
        path.write_bytes(wire.model_bytes(lower(name, block, 1, precision).chunks))
        job = wire.job_message(block, wire.Settings(runtime=name, precision=precision, threads=1, batch=1), "a model")
        found = runtimes.find(name)
        return (found.load_profiled if profiled else found.load)(block, job, str(path))

    return load


def test_int8_outputs_are_close_to_those_in_fp32(load):
    outputs = []
    for precision in ("fp32", "int8"):
        loaded = load(precision=precision)
        loaded.run()
        outputs.append(np.array(loaded.output()))
    expected, got = outputs
    assert got.dtype == np.float32
    assert 0 < np.abs(got - expected).max() <= 0.05 * np.ptp(expected)


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "ofa-resnet50d", "tiny"])
def test_every_block_of_a_network_in_int8_has_a_kernel(load, name):
    space = find_space(name)
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(0), [min(space.resolutions_px)]))
    loaded = load(space.network(architecture), profiled=True)
    for _ in range(3):
        loaded.run()
    sizes = [len(block.operators) for block in space.network_blocks(architecture)]
    assert len(part_samples(loaded.operator_times(), sizes, whole_ns=1e6)) == len(sizes)
    loaded.close()


@pytest.mark.parametrize("seed", range(4))
def test_an_activation_at_the_start_of_a_block_leaves_the_convolution_before_it_a_kernel(load, seed):
    conv = ops.Block("conv", (8, 32, 32), (ops.Conv(8, 8, 3),))
    cell = ops.Block("cell", (8, 32, 32), (ops.Activation("relu"), ops.Conv(8, 8, 5, 1, 8), ops.Conv(8, 8, 1)))
    parts = [conv, *((conv, cell)[at] for at in np.random.default_rng(seed).permutation([0, 1, 1]))]
    loaded = load(ops.concatenate("network:cells", parts), precision="fp32", profiled=True)
    for _ in range(3):
        loaded.run()
    sizes = [len(block.operators) for block in parts]
    assert len(part_samples(loaded.operator_times(), sizes, whole_ns=1e6)) == len(parts)
    loaded.close()


def test_the_agent_times_blocks_in_int8_inside_a_network(host, trial_of):
    model = lower("onnxruntime", NETWORK, 1, "int8")
    trial = trial_of("onnxruntime", block=NETWORK, model_id=model.model_id, precision="int8")
    for part in PARTS:
        trial.job.parts.add(key=part.key, operators=len(part.operators))
    measurement = host.take(trial, model)
    assert measurement.status == "ok", measurement.error
    assert [part.key for part in measurement.parts] == ["first", "second", "last"]


def test_kernels_that_lost_their_names_belong_to_operators_in_order():
    names = ["operator5.weight", "x.int8", "Transpose", "QLinearConv", "operator1.input0", "HardSigmoid_7"]
    names += ["operator1.int8", "operator2.pool", "QLinearConv_token_3", "QLinearConv_token_7", "operator2"]
    names += ["QLinearConv_token_9", "NhwcMaxPool_token_4", "operator5"]
    conv = ops.Conv(8, 8, 1)
    operators = (conv, ops.Activation("hard_swish"), ops.SqueezeExcite(8, 4), conv, ops.MaxPool(3, 2), ops.Linear(8, 8))
    named = runtime._with_names(names, operators)
    assert runtime._owners(named, len(operators)) == [5, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5]
    with pytest.raises(Unsupported, match="reported 4 kernels QLinearConv; the model has 3 of them"):
        runtime._with_names(names, operators[:3])


@pytest.mark.parametrize(
    ("name", "precision"),
    [("onnxruntime", "fp16"), ("onnxruntime-cuda", "int8"), ("onnxruntime-tensorrt", "bf16")],
)
def test_a_precision_that_the_provider_lacks_is_unsupported(load, name, precision):
    with pytest.raises(Unsupported, match=f"runtime {name} does not support {precision}"):
        load(name=name, precision=precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_is_told_the_precision(load, monkeypatch, precision):
    class Session:
        def __init__(self, path, options, providers):
            self.providers = providers

        def get_providers(self):
            return [self.providers[0][0]]

    monkeypatch.setattr(runtime.ort, "InferenceSession", Session)
    settings = SimpleNamespace(runtime="onnxruntime-tensorrt", precision=precision, threads=1)
    session = runtime.tensorrt._session(SimpleNamespace(settings=settings), "a path")
    name, options = session.providers[0]
    assert name == "TensorrtExecutionProvider"
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (precision == "fp16", precision == "int8")
