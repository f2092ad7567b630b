"""What is timed is what is deployed: a lowered Block gives the numbers of the PyTorch layer with the same weights."""

import itertools
import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from ofa_agent import operators as ops
from ofa_agent.operators import Activation, Add, AvgPool, Block, Conv, Linear, MaxPool, Pool, SqueezeExcite, Take
from ofa_agent.protocol import messages as wire
from ofa_agent.protocol.messages import SeededValues
from ofa_nas.spaces import find_space, parse_architecture
from ofa_profiler.lowering import Model, lower
from ofa_profiler.lowering.onnx_file import varint
from ofa_tables.errors import UnknownName

SPACE = find_space("ofa-mbv3-w1.0")


def kind_of(block):
    """Blocks of one kind differ in nothing but sizes."""
    parts = []
    for operator in block.operators:
        if isinstance(operator, Conv):
            depthwise = " depthwise" if operator.groups > 1 else ""
            bias = "" if operator.bias else " without bias"
            parts.append(f"{operator.kernel_size}×{operator.kernel_size}/{operator.stride}{depthwise}{bias}")
        elif isinstance(operator, Activation):
            parts.append(operator.function)
        else:
            parts.append(type(operator).__name__)
    return ", ".join(parts)


RELU, RELU6, SWISH, SIGMOID = map(Activation, ("relu", "relu6", "swish", "sigmoid"))
INVERTED_RELU6 = (Conv(16, 96, 1), RELU6, Conv(96, 96, 5, 1, 96), RELU6, Conv(96, 16, 1), Add(0))
BOTTLENECK = (Conv(8, 4, 1), RELU, Conv(4, 4, 3, 2), RELU, Conv(4, 16, 1))
OF_OTHER_SPACES = [
    Block("with relu6", (16, 14, 14), INVERTED_RELU6),
    Block("with odd sizes", (8, 7, 9), (Conv(8, 12, 5, stride=2, groups=4), Activation("hard_sigmoid"))),
    Block("with a value from the middle", (4, 5, 5), (Conv(4, 8, 3), Activation("relu"), Conv(8, 8, 3), Add(2))),
    Block("with two linear layers", (6, 2, 2), (Linear(24, 12), Activation("relu"), Linear(12, 5, bias=False))),
    Block("with every way to weigh channels", (8, 6, 6), (SqueezeExcite(8, 4), RELU6, SqueezeExcite(8, 2), Pool())),
    Block("with EfficientNet's", (8, 6, 6), (Conv(8, 8, 3), SWISH, SqueezeExcite(8, 2, "swish", "sigmoid"), SIGMOID)),
    Block("with MnasNet's", (8, 6, 6), (Conv(8, 8, 5, 1, 8), RELU, SqueezeExcite(8, 2, "relu", "sigmoid"))),
    Block("with a maximum of even sizes", (4, 8, 8), (Conv(4, 4, 7, 2), RELU, MaxPool(3, 2))),
    Block("with a maximum of what may be negative", (4, 7, 8), (Conv(4, 4, 3), MaxPool(3, 2))),
    Block("with an average of windows", (4, 8, 8), (Conv(4, 4, 3), RELU, AvgPool(2))),
    Block("with an average of windows of odd sizes", (4, 7, 9), (Conv(4, 4, 3), AvgPool(2))),
    Block("with a shortcut of its own", (8, 7, 8), (*BOTTLENECK, Take(0), Conv(8, 16, 1, 2), Add(5), RELU)),
]
KINDS = {kind_of(block): block for block in [*SPACE.blocks(128)[::-1], *OF_OTHER_SPACES]}

every_kind = pytest.mark.parametrize("block", KINDS.values(), ids=KINDS)


def model_of(block, batch=1):
    return onnx.load_from_string(wire.model_bytes(lower("onnxruntime", block, batch).chunks))


def output_of(model, values):
    """What onnxruntime makes of a model file's bytes."""
    (output,) = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": values})
    return output


def an_input(block, batch=1):
    rng = np.random.default_rng(7)
    return rng.standard_normal((batch, *block.input_shape)).astype(np.float32)


def assert_same_numbers(got, expected):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(expected).max() > 1e-3, "an output of zeros shows nothing"


class TorchBlock:
    """The layers that the Operators mean, written for PyTorch without a look at the lowering."""

    def __init__(self, torch, block):
        self._torch = torch
        self._block = block
        self._number = itertools.count()

    def __call__(self, values):
        torch = self._torch
        outputs = [torch.from_numpy(values)]
        with torch.no_grad():
            for operator in self._block.operators:
                outputs.append(self._apply(operator, outputs))
        return outputs[-1].numpy()

    def _apply(self, operator, outputs):
        value, torch = outputs[-1], self._torch
        if isinstance(operator, Conv):
            return self._conv(operator)(value)
        if isinstance(operator, Activation):
            layers = {
                "relu": torch.nn.ReLU,
                "relu6": torch.nn.ReLU6,
                "hard_swish": torch.nn.Hardswish,
                "hard_sigmoid": torch.nn.Hardsigmoid,
                "swish": torch.nn.SiLU,
                "sigmoid": torch.nn.Sigmoid,
            }
            return layers[operator.function]()(value)
        if isinstance(operator, Pool):
            return torch.nn.AdaptiveAvgPool2d(1)(value)
        if isinstance(operator, MaxPool):
            return torch.nn.MaxPool2d(operator.kernel_size, operator.stride, operator.kernel_size // 2)(value)
        if isinstance(operator, AvgPool):
            return torch.nn.AvgPool2d(operator.size, ceil_mode=True)(value)
        if isinstance(operator, Take):
            return outputs[operator.value]
        if isinstance(operator, Linear):
            layer = torch.nn.Linear(operator.in_features, operator.out_features, bias=operator.bias)
            return self._filled(layer, operator.in_features)(value.flatten(1))
        if isinstance(operator, SqueezeExcite):
            gate = torch.nn.Sequential(
                torch.nn.AdaptiveAvgPool2d(1),
                self._conv(Conv(operator.channels, operator.reduced_channels, 1)),
                {"relu": torch.nn.ReLU, "swish": torch.nn.SiLU}[operator.activation](),
                self._conv(Conv(operator.reduced_channels, operator.channels, 1)),
                {"hard_sigmoid": torch.nn.Hardsigmoid, "sigmoid": torch.nn.Sigmoid}[operator.gate](),
            )
            return value * gate(value)
        assert isinstance(operator, Add)
        return value + outputs[operator.value]

    def _conv(self, conv):
        layer = self._torch.nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.kernel_size // 2,
            groups=conv.groups,
            bias=conv.bias,
        )
        return self._filled(layer, conv.in_channels // conv.groups * conv.kernel_size**2)

    def _filled(self, layer, fan_in):
        self._fill(layer.weight, math.sqrt(2 / fan_in))
        if layer.bias is not None:
            self._fill(layer.bias, 0.1)
        return layer

    def _fill(self, parameter, scale):
        rng = np.random.default_rng(self._block.seed << 16 | next(self._number))
        values = (rng.standard_normal(parameter.numel()) * scale).astype(np.float32)
        parameter.data = self._torch.from_numpy(values.reshape(parameter.shape))


def test_the_kinds_are_those_of_the_space():
    heads, firsts, others, tails = 2, 5, 4, 4  # of stages; stages 4 and 5 go on alike
    assert len(KINDS) == heads + 3 * firsts + 3 * others + tails + len(OF_OTHER_SPACES)
    named = "\n".join(KINDS)
    for part in ("3×3/2, hard_swish", "7×7/2 depthwise", "5×5/1 depthwise", "SqueezeExcite", "Add", "Linear", "relu6"):
        assert part in named


@every_kind
def test_a_lowered_block_gives_the_numbers_of_its_pytorch_layers(block):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    values = an_input(block)
    model = wire.model_bytes(lower("onnxruntime", block, 1).chunks)
    assert_same_numbers(output_of(model, values), TorchBlock(torch, block)(values))


def test_a_batch_gives_the_numbers_of_its_pytorch_layers():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for block in OF_OTHER_SPACES:
        values = an_input(block, batch=3)
        model = wire.model_bytes(lower("onnxruntime", block, 3).chunks)
        assert_same_numbers(output_of(model, values), TorchBlock(torch, block)(values))


@every_kind
def test_a_lowered_block_is_a_model_that_the_oldest_runtime_reads(block):
    model = model_of(block)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 15)]


@every_kind
def test_a_lowered_block_has_the_blocks_shapes_weights_and_activations(block):
    model = model_of(block, batch=2)
    (taken,), (given,) = model.graph.input, model.graph.output
    assert [size.dim_value for size in taken.type.tensor_type.shape.dim] == [2, *block.input_shape]
    assert [size.dim_value for size in given.type.tensor_type.shape.dim] == [2, *block.output_shape]
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.dims]
    assert sum(weight.size for weight in weights) == block.parameters
    kinds = [node.op_type for node in model.graph.node]
    functions = [operator.function for operator in block.operators if isinstance(operator, Activation)]
    assert kinds.count("HardSwish") == functions.count("hard_swish")
    assert kinds.count("Clip") == functions.count("relu6")
    squeezes = [operator for operator in block.operators if isinstance(operator, SqueezeExcite)]
    functions += [function for squeeze in squeezes for function in (squeeze.activation, squeeze.gate)]
    assert kinds.count("HardSigmoid") == functions.count("hard_sigmoid")
    assert kinds.count("Sigmoid") == functions.count("sigmoid") + functions.count("swish")
    assert kinds.count("Mul") == len(squeezes) + functions.count("swish"), "a hard swish is one node"


def test_weights_travel_as_seeds_and_the_graph_is_small():
    for block in SPACE.blocks(224):
        model = lower("onnxruntime", block, 1)
        literal = sum(len(chunk) for chunk in model.chunks if isinstance(chunk, bytes))
        seeded = [chunk for chunk in model.chunks if isinstance(chunk, SeededValues)]
        assert literal < 4000
        assert sum(chunk.length for chunk in seeded) == block.parameters
        assert [chunk.seed for chunk in seeded] == [ops.tensor_seed(block.seed, at) for at in range(len(seeded))]


def test_equal_blocks_are_equal_models_and_others_are_not():
    blocks = SPACE.blocks(128)
    models = [lower("onnxruntime", block, batch) for block in blocks for batch in (1, 4)]
    assert len({model.model_id for model in models}) == len(models)
    assert lower("onnxruntime", blocks[5], 1) == lower("onnxruntime", blocks[5], 1)


ARCHITECTURES = {
    "small": {"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": 128},
    "mixed": {"ks": [3, 5, 7, 3] * 5, "e": [6, 4, 3, 3] * 5, "d": [4, 3, 2, 3, 4], "r": 128},
}


def chained(blocks, weights, values):
    """The Blocks one after another in onnxruntime, with weights that are not their own."""
    remaining = iter(weights)
    for block in blocks:
        chunks = []
        for chunk in lower("onnxruntime", block, 1).chunks:
            if isinstance(chunk, SeededValues):
                own, chunk = chunk, next(remaining)
                assert (chunk.length, chunk.scale) == (own.length, own.scale)
            chunks.append(chunk)
        values = output_of(wire.model_bytes(chunks), values)
    assert next(remaining, None) is None
    return values


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_a_network_is_its_blocks_one_after_another(architecture):
    architecture = parse_architecture(architecture)
    network, blocks = SPACE.network(architecture), SPACE.network_blocks(architecture)
    model = lower("onnxruntime", network, 1)
    onnx.checker.check_model(model_of(network), full_check=True)
    weights = [chunk for chunk in model.chunks if isinstance(chunk, SeededValues)]
    values = an_input(network)
    assert_same_numbers(output_of(wire.model_bytes(model.chunks), values), chained(blocks, weights, values))


def test_a_network_gives_the_numbers_of_its_pytorch_layers():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    network = SPACE.network(parse_architecture(ARCHITECTURES["mixed"]))
    values = an_input(network)
    model = wire.model_bytes(lower("onnxruntime", network, 1).chunks)
    assert_same_numbers(output_of(model, values), TorchBlock(torch, network)(values))


def test_chunks_of_other_lowerings_are_merged_before_hashing(monkeypatch):
    pieces = [b"", b"he", b"ad", SeededValues(1, 4, 0.5), b"", b"tail"]
    monkeypatch.setattr("ofa_profiler.lowering._BUILT_IN", {"another": lambda block, batch, precision: pieces})
    model = lower("another", OF_OTHER_SPACES[0], 1)
    assert model == Model(wire.model_id_of(model.chunks), (b"head", SeededValues(1, 4, 0.5), b"tail"))


def test_a_runtime_that_nothing_is_lowered_to_is_named():
    with pytest.raises(UnknownName, match="did you mean onnxruntime"):
        lower("onnxrutime", OF_OTHER_SPACES[0], 1)


def test_a_length_of_any_size_is_encoded_as_protobuf_does():
    for length in (0, 1, 127, 128, 300, 1 << 28, (1 << 35) - 1):
        encoded = varint(length)
        assert sum((byte & 0x7F) << 7 * at for at, byte in enumerate(encoded)) == length
        assert all(byte & 0x80 for byte in encoded[:-1])
        assert not encoded[-1] & 0x80
