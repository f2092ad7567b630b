"""Lower operators to ONNX: the graph through ``onnx.helper``, the weights as seeds that the agent expands.

Opset 15 and IR 8 are what onnxruntime 1.10 reads, the last that exists for Python 3.6.
"""

from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import TensorProto, helper

from ofa_agent import operators as ops
from ofa_agent.operators import Block, Parameter
from ofa_agent.protocol.messages import ModelChunk, SeededValues, merged

OPSET = 15
IR_VERSION = 8

# Field numbers of onnx.proto: the weights are inserted into the message that protobuf serialises.
_GRAPH_OF_MODEL = 7
_INITIALIZER_OF_GRAPH = 5
_RAW_DATA_OF_TENSOR = 9
_FLOAT32_BYTES = 4


def lower(
    block: Block, batch: int, precision: str = "fp32", metadata: Mapping[str, str] | None = None
) -> list[ModelChunk]:
    """The model file in pieces. Joined by ``wire.model_bytes`` they are an ONNX model with input ``x`` and output
    ``y``.

    It is the same for every precision: TensorRT converts it.
    """
    graph = _Graph()
    values = ["x"]
    for index, operator in enumerate(block.operators):
        values.append(_NODES[type(operator)](graph, operator, f"{index}", values))
    graph.node("Identity", [values[-1]], "y")
    shapes = block.shapes
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shapes[0]])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, *shapes[-1]])]
    graph_head = helper.make_graph(graph.nodes, "block", inputs, outputs, graph.constants).SerializeToString()

    weights: list[ModelChunk] = []
    for index, (name, parameter) in enumerate(graph.parameters):
        size = parameter.size * _FLOAT32_BYTES
        head = TensorProto(dims=parameter.shape, data_type=TensorProto.FLOAT, name=name).SerializeToString()
        head += _length_delimited(_RAW_DATA_OF_TENSOR, size)
        weights.append(_length_delimited(_INITIALIZER_OF_GRAPH, len(head) + size) + head)
        weights.append(SeededValues(ops.tensor_seed(block.seed, index), parameter.size, parameter.scale))

    model = helper.make_model(onnx.GraphProto(), ir_version=IR_VERSION, producer_name="ofa-profile")
    helper.set_model_props(model, dict(metadata or {}))
    model.ClearField("graph")
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    graph_size = len(graph_head) + sum(_size(chunk) for chunk in weights)
    head = model.SerializeToString() + _length_delimited(_GRAPH_OF_MODEL, graph_size) + graph_head
    return merged([head, *weights])


class _Graph:
    """Nodes and weight tensors in order; weights are numbered like the parameters of the block."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.parameters: list[tuple[str, Parameter]] = []
        self.constants: list[TensorProto] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        # Nodes and values are named by the index of the operator, so that the agent can assign kernels to operators.
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def weights(self, operator: Any, prefix: str) -> list[str]:
        names = [f"{prefix}.{parameter.part}" for parameter in operator.parameters()]
        self.parameters.extend(zip(names, operator.parameters(), strict=True))
        return names

    def scalar(self, name: str, value: float) -> str:
        if name not in {constant.name for constant in self.constants}:
            self.constants.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
        return name


def _conv(graph: _Graph, conv: ops.Conv, name: str, values: list[str]) -> str:
    pad = conv.kernel_size // 2
    return graph.node(
        "Conv",
        [values[-1], *graph.weights(conv, name)],
        f"operator{name}",
        kernel_shape=[conv.kernel_size] * 2,
        strides=[conv.stride] * 2,
        pads=[pad] * 4,
        group=conv.groups,
    )


def _activation(graph: _Graph, activation: ops.Activation, name: str, values: list[str]) -> str:
    if activation.function == "relu6":
        return graph.node("Clip", [values[-1], graph.scalar("zero", 0.0), graph.scalar("six", 6.0)], f"operator{name}")
    if activation.function == "hard_sigmoid":
        return graph.node("HardSigmoid", [values[-1]], f"operator{name}", alpha=1 / 6, beta=0.5)
    if activation.function == "swish":
        gate = graph.node("Sigmoid", [values[-1]], f"operator{name}.gate")
        return graph.node("Mul", [values[-1], gate], f"operator{name}")
    kinds = {"relu": "Relu", "hard_swish": "HardSwish", "sigmoid": "Sigmoid"}
    return graph.node(kinds[activation.function], [values[-1]], f"operator{name}")


def _squeeze_excite(graph: _Graph, squeeze: ops.SqueezeExcite, name: str, values: list[str]) -> str:
    inner = [graph.node("GlobalAveragePool", [values[-1]], f"operator{name}.pool")]
    for part, conv, function in (
        ("reduce", squeeze.reduce, squeeze.activation),
        ("expand", squeeze.expand, squeeze.gate),
    ):
        inner.append(_conv(graph, conv, f"{name}.{part}", inner))
        inner.append(_activation(graph, ops.Activation(function), f"{name}.{part}.act", inner))
    return graph.node("Mul", [values[-1], inner[-1]], f"operator{name}")


def _pool(graph: _Graph, pool: ops.Pool, name: str, values: list[str]) -> str:
    return graph.node("GlobalAveragePool", [values[-1]], f"operator{name}")


def _max_pool(graph: _Graph, pool: ops.MaxPool, name: str, values: list[str]) -> str:
    size, pad = pool.kernel_size, pool.kernel_size // 2
    return graph.node(
        "MaxPool",
        [values[-1]],
        f"operator{name}",
        kernel_shape=[size] * 2,
        strides=[pool.stride] * 2,
        pads=[pad] * 4,
    )


def _avg_pool(graph: _Graph, pool: ops.AvgPool, name: str, values: list[str]) -> str:
    return graph.node(
        "AveragePool",
        [values[-1]],
        f"operator{name}",
        kernel_shape=[pool.size] * 2,
        strides=[pool.size] * 2,
        ceil_mode=1,
    )


def _linear(graph: _Graph, linear: ops.Linear, name: str, values: list[str]) -> str:
    flat = graph.node("Flatten", [values[-1]], f"operator{name}.flat")
    return graph.node("Gemm", [flat, *graph.weights(linear, name)], f"operator{name}", transB=1)


def _add(graph: _Graph, add: ops.Add, name: str, values: list[str]) -> str:
    return graph.node("Add", [values[add.value], values[-1]], f"operator{name}")


def _take(graph: _Graph, take: ops.Take, name: str, values: list[str]) -> str:
    return values[take.value]


_NODES: dict[type, Callable[[_Graph, Any, str, list[str]], str]] = {
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


def _size(chunk: ModelChunk) -> int:
    return len(chunk) if isinstance(chunk, bytes) else chunk.length * _FLOAT32_BYTES


def _length_delimited(field: int, length: int) -> bytes:
    """The header of a protobuf field of ``length`` bytes."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
