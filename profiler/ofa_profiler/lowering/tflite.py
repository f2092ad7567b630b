"""Lower operators to TFLite: the graph that a converter makes of the channels-last PyTorch module.

Activations are fused into what comes before them; a hard sigmoid behind a convolution is one more in its bias, a relu6,
and a sixth of that. Tensors are named by their Operator's index.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ofa_agent import operators as ops
from ofa_agent.operators import Block, Shape
from ofa_agent.protocol import messages as wire
from ofa_agent.protocol.messages import ModelChunk, SeededValues
from ofa_profiler.lowering import tflite_int8
from ofa_profiler.lowering.tflite_file import Graph, Node, Tensor, model_chunks
from ofa_tables.errors import UsageError

# Numbers of the schema.
SAME, VALID = 0, 1
FUSED = {"": 0, "relu": 1, "relu6": 3}
# Activations fused into a convolution or a linear layer.
FUSED_WITH_WEIGHTS = (*FUSED, "hard_sigmoid")
NEVER_NEGATIVE = ("RELU", "RELU6", "LOGISTIC")

# Lets XNNPACK compute in half precision where the hardware can: tensorflow/tensorflow,
# tensorflow/lite/tools/optimize/reduced_precision_metadata.h.
HALF = {"reduced_precision_support": b"fp16accfp16"}


def lower(
    block: Block,
    batch: int,
    precision: str,
    source: wire.Source = ops.drawn,
    metadata: Mapping[str, str] | None = None,
) -> list[ModelChunk]:
    """The model file in pieces. Joined by ``wire.model_bytes`` they are a TFLite model with channels-last input and
    output.

    ``source`` provides the weights; some are written here, so join the pieces with the same ``source``.
    """
    graph = graph_of(block, batch, source)
    reported = {name: text.encode() for name, text in (metadata or {}).items()}
    if precision == "fp32":
        return model_chunks(graph, "ofa-profile", reported)
    if precision == "fp16":
        return model_chunks(_halved(graph), "ofa-profile: weights in half precision", HALF | reported)
    if precision == "int8":
        ranges = tflite_int8.ranges_of(graph_of(block, tflite_int8.INPUTS))
        return model_chunks(tflite_int8.quantised(graph, ranges), f"ofa-profile: {tflite_int8.DESCRIPTION}")
    raise UsageError(f"runtime tflite has no precision {precision!r}; there are fp32, fp16 and int8")


def graph_of(block: Block, batch: int, source: wire.Source = ops.drawn) -> Graph:
    """The graph in single precision."""
    layers = _Layers(block, batch, source)
    operators = block.operators
    kept = {operator.value for operator in operators if isinstance(operator, ops.Add | ops.Take)}
    values = [0]
    for index, operator in enumerate(operators):
        if len(values) > index + 1:
            continue  # fused into the preceding operator
        function = _fusible(operator, operators[index + 1 : index + 2]) if index + 1 not in kept else ""
        value = _LAYERS[type(operator)](layers, operator, f"operator{index}", values, function)
        values += [value, value] if function else [value]
    layers.graph.outputs = [values[-1]]
    return layers.graph


def _fusible(operator: ops.Operator, following: tuple[ops.Operator, ...]) -> str:
    """The activation that can be fused into the kernel of the operator."""
    if not following or not isinstance(following[0], ops.Activation):
        return ""
    function = following[0].function
    if isinstance(operator, ops.Conv | ops.Linear):
        return function if function in FUSED_WITH_WEIGHTS else ""
    return function if isinstance(operator, ops.Add | ops.SqueezeExcite) and function in FUSED else ""


class _Layers:
    """The growing graph; weights are numbered like the parameters of the block."""

    def __init__(self, block: Block, batch: int, source: wire.Source) -> None:
        self.graph = Graph([Tensor("x", (batch, *_channels_last(block.input_shape)))], [])
        self._source = source
        self._seed = block.seed
        self._parameters = 0
        self._constants: dict[str, int] = {}

    def node(self, code: str, inputs: list[int], name: str, shape: Shape, **options: Any) -> int:
        grouped = options.pop("grouped", False)
        output = self.graph.add(Tensor(name, shape))
        self.graph.nodes.append(Node(code, tuple(inputs), output, options, grouped))
        return output

    def shape(self, value: int) -> Shape:
        return self.graph.tensors[value].shape

    def seeded(self, parameter: ops.Parameter) -> SeededValues:
        seed = ops.tensor_seed(self._seed, self._parameters)
        self._parameters += 1
        return SeededValues(seed, parameter.size, parameter.scale)

    def values(self, data: ModelChunk) -> "np.ndarray[Any, Any]":
        """The values themselves, for tensors that a seed cannot describe."""
        return np.frombuffer(wire.model_bytes([data], self._source), "<f4")

    def transposed(self, data: ModelChunk, shape: Shape) -> bytes:
        """Transpose [out, c, h, w] to [out, h, w, c]."""
        return self.values(data).reshape(shape).transpose(0, 2, 3, 1).tobytes()

    def constant(self, name: str, values: "np.ndarray[Any, Any]") -> int:
        """Return the same tensor every time for the same name."""
        if name not in self._constants:
            kind = "INT32" if values.dtype == np.int32 else "FLOAT32"
            self._constants[name] = self.graph.add(Tensor(name, values.shape, values.tobytes(), kind))
        return self._constants[name]

    def scalar(self, name: str, value: float) -> int:
        return self.constant(name, np.array(value, "<f4"))

    def weighted(
        self, code: str, value: int, weight: Tensor, bias: ModelChunk, shape: Shape, function: str, **options: Any
    ) -> int:
        """A convolution or linear layer, and the activation that follows it."""
        name = weight.name.rpartition(".")[0]
        if function == "hard_sigmoid":
            bias = (self.values(bias) + np.float32(3)).tobytes()
        inputs = [value, self.graph.add(weight), self.graph.add(Tensor(f"{name}.bias", shape[-1:], bias))]
        options["FusedActivationFunction"] = FUSED["relu6" if function == "hard_sigmoid" else function]
        output = self.node(code, inputs, name, shape, **options)
        return self.sixth(output, name) if function == "hard_sigmoid" else output

    def sixth(self, value: int, name: str) -> int:
        return self.node("MUL", [value, self.scalar("sixth", 1 / 6)], f"{name}.gate", self.shape(value))

    def mean(self, value: int, name: str) -> int:
        batch, _, _, channels = self.shape(value)
        axes = self.constant("axes", np.array([1, 2], np.int32))
        return self.node("MEAN", [value, axes], name, (batch, 1, 1, channels), KeepDims=True)

    def padded(self, value: int, pad: int, name: str) -> int:
        batch, height, width, channels = self.shape(value)
        amounts = self.constant(f"pad{pad}", np.array([[0, 0], [pad, pad], [pad, pad], [0, 0]], np.int32))
        shape = (batch, height + 2 * pad, width + 2 * pad, channels)
        return self.node("PAD", [value, amounts], f"{name}.pad", shape)

    def is_never_negative(self, value: int) -> bool:
        """Whether the kernel that computes the value guarantees that it is not negative."""
        by = next((node for node in self.graph.nodes if node.output == value), None)
        return by is not None and (by.code in NEVER_NEGATIVE or by.options.get("FusedActivationFunction", 0) > 0)


def _conv(layers: _Layers, conv: ops.Conv, name: str, values: list[int], function: str) -> int:
    value = values[-1]
    batch, height, width, _ = layers.shape(value)
    shape = (batch, *_channels_last(conv.output_shape((conv.in_channels, height, width))))
    padding = SAME
    if not _same_is_centred(conv, height, width):
        value, padding = layers.padded(value, conv.kernel_size // 2, name), VALID
    options: dict[str, Any] = {"Padding": padding, "StrideH": conv.stride, "StrideW": conv.stride}
    code = "CONV_2D"
    if conv.groups == conv.in_channels > 1:
        code, options["DepthMultiplier"] = "DEPTHWISE_CONV_2D", conv.out_channels // conv.in_channels
    elif conv.groups > 1:
        options["grouped"] = True
    parameters = conv.parameters()
    weight = _conv_weight(layers, conv, parameters[0], f"{name}.weight")
    bias: ModelChunk = layers.seeded(parameters[1]) if conv.bias else bytes(4 * conv.out_channels)
    return layers.weighted(code, value, weight, bias, shape, function, **options)


def _same_is_centred(windows: ops.Conv | ops.MaxPool, height: int, width: int) -> bool:
    """Whether TFLite's SAME padding starts where PyTorch's ``padding=k // 2`` does."""
    stride, kernel_size = windows.stride, windows.kernel_size
    lacking = [((size - 1) // stride) * stride + kernel_size - size for size in (height, width)]
    return all(max(0, missing) // 2 == kernel_size // 2 for missing in lacking)


def _conv_weight(layers: _Layers, conv: ops.Conv, parameter: ops.Parameter, name: str) -> Tensor:
    """Transpose [out, in / groups, k, k] to [out, k, k, in / groups], or to [1, k, k, out] if depthwise."""
    values, (out, each, kernel, _) = layers.seeded(parameter), parameter.shape
    if conv.groups == conv.in_channels > 1:
        return Tensor(name, (1, kernel, kernel, out), values._replace(rows=out))
    if kernel == 1 or each == 1:
        return Tensor(name, (out, kernel, kernel, each), values)
    return Tensor(name, (out, kernel, kernel, each), layers.transposed(values, parameter.shape))


def _linear(layers: _Layers, linear: ops.Linear, name: str, values: list[int], function: str) -> int:
    batch, *size = layers.shape(values[-1])
    parameters = linear.parameters()
    data: ModelChunk = layers.seeded(parameters[0])
    if ops.product(size[:-1]) > 1:  # PyTorch flattens with channels first
        height, width, channels = size
        data = layers.transposed(data, (linear.out_features, channels, height, width))
    weight = Tensor(f"{name}.weight", parameters[0].shape, data)
    bias: ModelChunk = layers.seeded(parameters[1]) if linear.bias else bytes(4 * linear.out_features)
    return layers.weighted("FULLY_CONNECTED", values[-1], weight, bias, (batch, linear.out_features), function)


def _squeeze_excite(layers: _Layers, squeeze: ops.SqueezeExcite, name: str, values: list[int], function: str) -> int:
    pooled = layers.mean(values[-1], f"{name}.pool")
    reduced = _activated(layers, squeeze.reduce, squeeze.activation, f"{name}.reduce", pooled)
    gate = _activated(layers, squeeze.expand, squeeze.gate, f"{name}.expand", reduced)
    return _fused(layers, "MUL", [values[-1], gate], name, function)


def _activated(layers: _Layers, conv: ops.Conv, function: str, name: str, value: int) -> int:
    if function in FUSED_WITH_WEIGHTS:
        return _conv(layers, conv, name, [value], function)
    return _activation(layers, ops.Activation(function), f"{name}.act", [_conv(layers, conv, name, [value], "")], "")


def _add(layers: _Layers, add: ops.Add, name: str, values: list[int], function: str) -> int:
    return _fused(layers, "ADD", [values[add.value], values[-1]], name, function)


def _take(layers: _Layers, take: ops.Take, name: str, values: list[int], function: str) -> int:
    return values[take.value]


def _activation(layers: _Layers, activation: ops.Activation, name: str, values: list[int], function: str) -> int:
    value = values[-1]
    if activation.function == "hard_sigmoid":
        three = layers.scalar("three", 3.0)
        return layers.sixth(_fused(layers, "ADD", [value, three], name, "relu6"), name)
    if activation.function == "swish":
        gate = layers.node("LOGISTIC", [value], f"{name}.gate", layers.shape(value))
        return _fused(layers, "MUL", [value, gate], name, "")
    code = "LOGISTIC" if activation.function == "sigmoid" else activation.function.upper()
    return layers.node(code, [value], name, layers.shape(value))


def _pool(layers: _Layers, pool: ops.Pool, name: str, values: list[int], function: str) -> int:
    return layers.mean(values[-1], name)


def _max_pool(layers: _Layers, pool: ops.MaxPool, name: str, values: list[int], function: str) -> int:
    value, padding = values[-1], SAME
    batch, height, width, channels = layers.shape(value)
    shape = (batch, *_channels_last(pool.output_shape((channels, height, width))))
    if not _same_is_centred(pool, height, width):
        if not layers.is_never_negative(value):  # XNNPACK has no PADV2, which pads with any value
            raise UsageError(f"{name} is a padded maximum of values that may be negative; TFLite pads with zeros alone")
        value, padding = layers.padded(value, pool.kernel_size // 2, name), VALID
    options = {"Padding": padding, "StrideH": pool.stride, "StrideW": pool.stride}
    options |= {"FilterHeight": pool.kernel_size, "FilterWidth": pool.kernel_size}
    return layers.node("MAX_POOL_2D", [value], name, shape, **options)


def _avg_pool(layers: _Layers, pool: ops.AvgPool, name: str, values: list[int], function: str) -> int:
    batch, height, width, channels = layers.shape(values[-1])
    shape = (batch, *_channels_last(pool.output_shape((channels, height, width))))
    if max(-height % pool.size, -width % pool.size) > 1:  # SAME would start outside the map
        raise UsageError(f"{name} is an average over windows that TFLite would begin elsewhere: {height} by {width} px")
    options = {"Padding": SAME, "StrideH": pool.size, "StrideW": pool.size}
    options |= {"FilterHeight": pool.size, "FilterWidth": pool.size}
    return layers.node("AVERAGE_POOL_2D", [values[-1]], name, shape, **options)


def _fused(layers: _Layers, code: str, inputs: list[int], name: str, function: str) -> int:
    return layers.node(code, inputs, name, layers.shape(inputs[0]), FusedActivationFunction=FUSED[function])


_LAYERS: dict[type, Callable[[_Layers, Any, str, list[int], str], int]] = {
    ops.Conv: _conv,
    ops.Activation: _activation,
    ops.SqueezeExcite: _squeeze_excite,
    ops.Pool: _pool,
    ops.MaxPool: _max_pool,
    ops.AvgPool: _avg_pool,
    ops.Linear: _linear,
    ops.Add: _add,
    ops.Take: _take,
}


def _halved(graph: Graph) -> Graph:
    """Weights and biases in half precision, each followed by a DEQUANTIZE, as TFLite's own tools write them."""
    halved = Graph(list(graph.tensors), [], graph.outputs)
    for number, tensor in enumerate(graph.tensors):
        if tensor.data is None or tensor.kind != "FLOAT32" or not tensor.shape:
            continue
        data: ModelChunk
        if isinstance(tensor.data, bytes):
            data = np.frombuffer(tensor.data, "<f4").astype("<f2").tobytes()
        else:
            data = tensor.data._replace(form="float16")
        half = halved.add(Tensor(f"{tensor.name}.half", tensor.shape, data, "FLOAT16"))
        halved.tensors[number] = Tensor(tensor.name, tensor.shape)
        halved.nodes.append(Node("DEQUANTIZE", (half,), number))
    halved.nodes += graph.nodes
    return halved


def _channels_last(shape: Shape) -> Shape:
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape
