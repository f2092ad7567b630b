"""Full-integer quantisation: int8 weights with a scale a channel, int8 activations with ranges from random inputs.

As TFLite's specification for 8-bit quantisation asks: weights symmetric, biases in int32, activations asymmetric.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from ofa_agent import operators as ops
from ofa_agent.operators import Shape
from ofa_agent.protocol import messages as wire
from ofa_agent.protocol.messages import ModelChunk, SeededValues
from ofa_profiler.lowering.tflite_file import Graph, Node, Quantisation, Tensor, model_chunks, need

INPUTS = 2
SEED = 1  # the input of the runtimes comes first
DESCRIPTION = f"int8, calibrated with {INPUTS} random inputs, seed {SEED}"

# The channel axis of the weights; a linear layer has one scale, which all runtimes support.
_CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": None}
_KEEPS_SCALE = ("PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D")
_LOGISTIC = Quantisation((1 / 256,), -128)  # the only one that its kernels produce

Ranges = dict[int, tuple[float, float]]


def ranges_of(graph: Graph) -> Ranges:
    """The smallest and largest value of every computed tensor, by number, for random inputs."""
    computed = [node.output for node in graph.nodes if node.code not in _KEEPS_SCALE]
    probe = Graph(graph.tensors, graph.nodes, computed)
    content = wire.model_bytes(model_chunks(probe, "calibration"))
    tflite = need("ai_edge_litert.interpreter")
    own_kernels = tflite.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # XNNPACK prints messages on standard error
    interpreter = tflite.Interpreter(model_content=content, experimental_op_resolver_type=own_kernels)
    interpreter.allocate_tensors()
    values = _random_input(graph.tensors[0].shape)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    ranges = {0: _range(values)}
    for number, output in zip(computed, outputs, strict=True):
        ranges[number] = _range(interpreter.tensor(output["index"])())
    return ranges


def quantised(graph: Graph, ranges: Ranges) -> Graph:
    """The graph in int8, including input and output."""
    tensors = list(graph.tensors)
    for number, (least, greatest) in ranges.items():
        tensors[number] = _activation(tensors[number], least, greatest)
    for node in graph.nodes:
        if node.code in _CHANNEL_AXIS:
            _quantise_weights(tensors, node)
        elif node.code in _KEEPS_SCALE:
            quantisation = tensors[node.inputs[0]].quantisation
            tensors[node.output] = replace(tensors[node.output], kind="INT8", quantisation=quantisation)
        elif node.code == "LOGISTIC":
            tensors[node.output] = replace(tensors[node.output], quantisation=_LOGISTIC)
    for number, tensor in enumerate(tensors):
        if tensor.kind == "FLOAT32":  # the rest are scalars
            tensors[number] = _weight(tensor, None)
    return Graph(tensors, graph.nodes, graph.outputs)


def _random_input(shape: Shape) -> "np.ndarray[Any, Any]":
    """Random values in the order that runtimes use: channels first."""
    values = ops.seeded(SEED, ops.product(shape), 1.0)
    if len(shape) != 4:
        return values.reshape(shape)
    batch, height, width, channels = shape
    return np.ascontiguousarray(values.reshape(batch, channels, height, width).transpose(0, 2, 3, 1))


def _range(values: "np.ndarray[Any, Any]") -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _activation(tensor: Tensor, least: float, greatest: float) -> Tensor:
    """Zero is always representable."""
    least, greatest = min(least, 0.0), max(greatest, 0.0)
    scale = float(np.float32((greatest - least) / 255)) or 1.0
    quantisation = Quantisation((scale,), round(-128 - least / scale))
    return replace(tensor, kind="INT8", quantisation=quantisation)


def _quantise_weights(tensors: list[Tensor], node: Node) -> None:
    value, weight, bias = node.inputs
    tensors[weight] = _weight(tensors[weight], _CHANNEL_AXIS[node.code])
    of_value, of_weight = tensors[value].quantisation, tensors[weight].quantisation
    assert of_value
    assert of_weight
    scales = np.float32(of_value.scales[0]) * np.array(of_weight.scales, np.float32)
    tensors[bias] = _bias(tensors[bias], scales)


def _weight(tensor: Tensor, axis: int | None) -> Tensor:
    """One scale per index of ``axis``, or one in total."""
    rows = np.moveaxis(_values(tensor).reshape(tensor.shape), axis, 0) if axis is not None else _values(tensor)[None]
    matrix = rows.reshape(len(rows), -1)
    scales = ops.int8_scales(matrix)
    data: ModelChunk
    if isinstance(tensor.data, SeededValues):
        data = tensor.data._replace(rows=len(rows), form="int8" if axis else ops.INT8_BY_ROW)
    else:
        data = np.moveaxis(ops.to_int8(matrix, scales).reshape(rows.shape), 0, axis or 0).tobytes()
    return replace(tensor, kind="INT8", data=data, quantisation=Quantisation(tuple(scales.tolist()), axis=axis or 0))


def _bias(tensor: Tensor, scales: "np.ndarray[Any, Any]") -> Tensor:
    steps = np.rint(_values(tensor) / np.broadcast_to(scales, tensor.shape)).astype("<i4")
    return replace(tensor, kind="INT32", data=steps.tobytes(), quantisation=Quantisation(tuple(scales.tolist())))


def _values(tensor: Tensor) -> "np.ndarray[Any, Any]":
    assert tensor.data is not None
    return np.frombuffer(wire.model_bytes([tensor.data]), "<f4")
