"""ONNX models in int8: outputs close to those in fp32, and the kernels with which ONNX Runtime executes them."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from ofa_agent import operators as ops
from ofa_agent.operators import Activation, Add, AvgPool, Block, Conv, Linear, MaxPool, Pool, SqueezeExcite, Take
from ofa_agent.protocol import messages as wire
from ofa_nas.spaces import find_space, parse_architecture
from ofa_profiler.lowering import lower

SPACE = find_space("ofa-mbv3-w1.0")
SMALL = parse_architecture({"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": 128})
BOUND = 0.05  # the largest error, relative to the range of the output

RELU, RELU6, SWISH, SIGMOID, HARD_SWISH, HARD_SIGMOID = map(
    Activation, ("relu", "relu6", "swish", "sigmoid", "hard_swish", "hard_sigmoid")
)
BOTTLENECK = (Conv(8, 4, 1), RELU, Conv(4, 4, 3, 2), RELU, Conv(4, 16, 1))
BLOCKS = [
    Block("convolutions", (16, 14, 14), (Conv(16, 96, 1), RELU6, Conv(96, 96, 5, 1, 96), RELU6, Conv(96, 16, 1))),
    Block("groups without a bias", (8, 7, 9), (Conv(8, 12, 5, 2, 4, bias=False), HARD_SIGMOID)),
    Block("hard swish", (3, 16, 16), (Conv(3, 16, 3, 2), HARD_SWISH, Conv(16, 16, 3, 1, 16), HARD_SWISH)),
    Block("squeeze-and-excite", (8, 6, 6), (Conv(8, 8, 3), HARD_SWISH, SqueezeExcite(8, 4), Conv(8, 8, 1), Add(0))),
    Block("swish", (8, 6, 6), (Conv(8, 8, 3), SWISH, SqueezeExcite(8, 2, "swish", "sigmoid"), SIGMOID)),
    Block("linear layers", (6, 2, 2), (Conv(6, 6, 3), Linear(24, 12), RELU, Linear(12, 5, bias=False))),
    Block("a classifier", (8, 4, 4), (Conv(8, 16, 1), HARD_SWISH, Pool(), Conv(16, 20, 1), HARD_SWISH, Linear(20, 10))),
    Block("an addition before a relu", (4, 5, 5), (Conv(4, 8, 3), RELU, Conv(8, 8, 3), Add(2), RELU)),
    Block("a value before its relu", (4, 5, 5), (Conv(4, 8, 3), RELU, Conv(8, 8, 3), Add(1))),
    Block("a maximum", (4, 8, 8), (Conv(4, 4, 3), RELU, MaxPool(3, 2))),
    Block("an average", (4, 7, 9), (Conv(4, 4, 3), AvgPool(2), RELU)),
    Block("a branch", (8, 8, 8), (*BOTTLENECK, Take(0), AvgPool(2), Conv(8, 16, 1), Add(5), RELU)),
    Block("only activations", (8, 6, 6), (RELU, HARD_SIGMOID, RELU6, HARD_SWISH)),
]
every_block = pytest.mark.parametrize("block", BLOCKS, ids=[block.key for block in BLOCKS])


def content_of(block, precision="int8", runtime="onnxruntime", batch=1):
    return wire.model_bytes(lower(runtime, block, batch, precision).chunks)


def session_of(content, optimised=""):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def an_input(block, batch=1):
    return ops.seeded(1, batch * ops.product(block.input_shape), 1.0).reshape(batch, *block.input_shape)


def output_of(content, block, batch=1):
    return session_of(content).run(None, {"x": an_input(block, batch)})[0]


def kernels_of(content, tmp_path):
    """The kernels that ONNX Runtime chooses, with their numbers."""
    session_of(content, tmp_path / "optimised.onnx")
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-tensorrt"])
@every_block
def test_int8_outputs_are_close_to_those_in_fp32(without_saturation, block, runtime):
    for batch in (1, 2):
        expected = output_of(content_of(block, "fp32", batch=batch), block, batch)
        got = output_of(content_of(block, runtime=runtime, batch=batch), block, batch)
        assert got.shape == expected.shape
        assert np.ptp(expected) > 1e-3, "an output of one value shows nothing"
        assert np.abs(got - expected).max() <= BOUND * np.ptp(expected)


def test_a_network_in_int8_correlates_with_the_same_in_fp32():
    network = SPACE.network(SMALL)
    expected, got = output_of(content_of(network, "fp32"), network), output_of(content_of(network), network)
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.9


@every_block
def test_a_model_in_int8_is_one_that_the_oldest_runtime_reads(block):
    model = onnx.load_from_string(content_of(block, batch=2))
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 15)]
    (taken,), (given,) = model.graph.input, model.graph.output
    assert taken.type.tensor_type.elem_type == given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_only_hard_swish_and_hard_sigmoid_are_computed_in_float(tmp_path):
    for block in BLOCKS[:-1]:
        kernels = kernels_of(content_of(block), tmp_path)
        convolutions = sum(isinstance(op, Conv) + 2 * isinstance(op, SqueezeExcite) for op in block.operators)
        assert kernels["QLinearConv"] == convolutions
        assert kernels["QGemm"] == sum(isinstance(op, Linear) for op in block.operators)
        assert kernels["QLinearAdd"] == sum(isinstance(op, Add) for op in block.operators)
        floats = {"Conv", "Gemm", "Add", "Relu", "Clip", "Sigmoid", "GlobalAveragePool", "AveragePool"}
        assert not floats & set(kernels), block.key
        hard = {HARD_SWISH, HARD_SIGMOID} & set(block.operators)
        assert hard or "Mul" not in kernels


class Inputs:
    """The input that the lowering calibrates with, one image at a time."""

    def __init__(self, block):
        self._images = iter(an_input(block, 2))

    def get_next(self):
        image = next(self._images, None)
        return image if image is None else {"x": image[None]}


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "tiny"])
def test_the_kernels_are_those_of_onnx_runtimes_own_quantiser(name, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    space = find_space(name)
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(0), [min(space.resolutions_px)]))
    network = space.network(architecture)
    quantization.quantize_static(
        onnx.load_from_string(content_of(network, "fp32")),
        tmp_path / "theirs.onnx",
        Inputs(network),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
    )
    theirs = (tmp_path / "theirs.onnx").read_bytes()
    assert kernels_of(content_of(network), tmp_path) == kernels_of(theirs, tmp_path)
    ours, theirs = (output_of(content, network) for content in (content_of(network), theirs))
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9


def tensors_of(model):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_weights_have_a_scale_per_channel_and_biases_the_product_of_two():
    block = BLOCKS[0]
    model = onnx.load_from_string(content_of(block))
    tensors = tensors_of(model)
    nodes = {node.output[0]: node for node in model.graph.node}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3
    for conv in convolutions:
        value, weight, bias = (nodes[name] for name in conv.input)
        scale, zero_point = (tensors[name] for name in value.input[1:])
        weights, weight_scales, weight_zeros = (tensors[name] for name in weight.input)
        biases, bias_scales, bias_zeros = (tensors[name] for name in bias.input)
        assert [array.dtype for array in (zero_point, weights, biases)] == [np.uint8, np.int8, np.int32]
        assert len(weight_scales) == len(weights) == len(biases)
        assert np.abs(weights.reshape(len(weights), -1).astype(int)).max(axis=1).tolist() == [127] * len(weights)
        assert not weight_zeros.any()
        assert not bias_zeros.any()
        assert np.allclose(bias_scales, scale * weight_scales)
        assert np.abs(biases).max() > 0


def test_weights_in_int8_are_generated_by_the_agent():
    for block in SPACE.blocks(160)[::12]:
        model = lower("onnxruntime", block, 1, "int8")
        weights = [chunk for chunk in model.chunks if not isinstance(chunk, bytes)]
        sizes = [parameter.size for op in block.operators for parameter in op.parameters() if len(parameter.shape) > 1]
        assert [(chunk.length, chunk.form) for chunk in weights] == [(size, ops.INT8_BY_ROW) for size in sizes]
        assert model == lower("onnxruntime", block, 1, "int8")
        assert model.model_id != lower("onnxruntime", block, 1).model_id


def test_tensorrt_gets_symmetric_scales_and_a_pair_for_each_input():
    for block in BLOCKS:
        model = onnx.load_from_string(content_of(block, runtime="onnxruntime-tensorrt"))
        onnx.checker.check_model(model, full_check=True)
        tensors = tensors_of(model)
        readers = Counter(name for node in model.graph.node for name in node.input)
        for node in model.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                zero_point = tensors[node.input[2]]
                assert zero_point.dtype == np.int8
                assert not zero_point.any()
                assert readers[node.output[0]] == 1
            elif node.op_type in ("Conv", "Gemm"):
                assert all(tensors[name].dtype == np.float32 for name in node.input[2:])
    assert content_of(BLOCKS[0], "fp32", "onnxruntime-tensorrt") == content_of(BLOCKS[0], "fp32")
