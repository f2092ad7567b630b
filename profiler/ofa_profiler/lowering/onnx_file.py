"""ONNX files: a graph of nodes and tensors, written around weights that the agent generates.

Opset 15 and IR 8 are what onnxruntime 1.10 reads, the last version for Python 3.6.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import TensorProto, helper

from ofa_agent.operators import Shape
from ofa_agent.protocol.messages import ModelChunk, SeededValues, merged

OPSET = 15
IR_VERSION = 8
INPUT, OUTPUT = "x", "y"

# Field numbers of onnx.proto: the weights are inserted into the message that protobuf serialises.
_GRAPH_OF_MODEL = 7
_INITIALIZER_OF_GRAPH = 5
_RAW_DATA_OF_TENSOR = 9


@dataclass(frozen=True)
class Weights:
    """A weight tensor; ``kind`` is a data type of TensorProto."""

    name: str
    shape: Shape
    data: ModelChunk
    kind: int = TensorProto.FLOAT


@dataclass
class Graph:
    """Nodes in order, weights, and constants that protobuf writes. Shapes include the batch.

    ``kind`` is the data type of input and output.
    """

    input_shape: Shape
    output_shape: Shape
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    kind: int = TensorProto.FLOAT
    _scalars: set[str] = field(default_factory=set)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        # Nodes and values are named by the index of the operator, so that the agent can assign kernels to operators.
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def scalar(self, name: str, value: float, kind: int = TensorProto.FLOAT) -> str:
        """Return the same constant every time for the same name."""
        if name not in self._scalars:
            self._scalars.add(name)
            self.constants.append(helper.make_tensor(name, kind, [], [value]))
        return name


def model_chunks(
    graph: Graph, metadata: Mapping[str, str] | None = None, also_outputs: Iterable[str] = ()
) -> list[ModelChunk]:
    """The model file in pieces. ``also_outputs`` are values that are outputs too, before the output itself."""
    inputs = [helper.make_tensor_value_info(INPUT, graph.kind, graph.input_shape)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in also_outputs]
    outputs.append(helper.make_tensor_value_info(OUTPUT, graph.kind, graph.output_shape))
    graph_head = helper.make_graph(graph.nodes, "block", inputs, outputs, graph.constants).SerializeToString()

    pieces: list[ModelChunk] = []
    for weights in graph.weights:
        size = _size(weights.data)
        head = TensorProto(dims=weights.shape, data_type=weights.kind, name=weights.name).SerializeToString()
        head += _length_delimited(_RAW_DATA_OF_TENSOR, size)
        pieces.append(_length_delimited(_INITIALIZER_OF_GRAPH, len(head) + size) + head)
        pieces.append(weights.data)

    model = helper.make_model(onnx.GraphProto(), ir_version=IR_VERSION, producer_name="ofa-profile")
    helper.set_model_props(model, dict(metadata or {}))
    model.ClearField("graph")
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    graph_size = len(graph_head) + sum(map(_size, pieces))
    head = model.SerializeToString() + _length_delimited(_GRAPH_OF_MODEL, graph_size) + graph_head
    return merged([head, *pieces])


def _size(chunk: ModelChunk) -> int:
    return chunk.size if isinstance(chunk, SeededValues) else len(chunk)


def _length_delimited(field: int, length: int) -> bytes:
    """The header of a protobuf field of ``length`` bytes."""
    return varint(field << 3 | 2) + varint(length)


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
