"""Write a graph as a .tflite file in pieces: the flatbuffer, and the weights as seeds.

The schema comes with ``ai_edge_litert``, which is imported where it is needed: a host that measures no TFLite does
without.
"""

import importlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ofa_agent.protocol.messages import ModelChunk, chunks_size
from ofa_tables.errors import UsageError

FILE_ID = b"TFL3"
SCHEMA_VERSION = 3
ALIGNMENT = 16  # alignment of constants: XNNPACK and the kernels read them in place
LAST_OLD_CODE = 127  # operators up to here also use a one-byte field

# The options of each operator, and its version for float and for int8.
_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
    "MEAN": "ReducerOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "PAD": "PadOptions",
    "HARD_SWISH": "HardSwishOptions",
    "DEQUANTIZE": "DequantizeOptions",
}
_VERSIONS = {
    "CONV_2D": (1, 3),
    "DEPTHWISE_CONV_2D": (1, 3),
    "FULLY_CONNECTED": (1, 4),
    "HARD_SWISH": (1, 1),
    "DEQUANTIZE": (3, 2),
}
_OTHERS_VERSIONS = (1, 2)
GROUPED_CONV_VERSION = 6


@dataclass(frozen=True)
class Quantisation:
    """``value = scale × (step − zero_point)``, with one scale, or one per index of ``axis``."""

    scales: tuple[float, ...]
    zero_point: int = 0
    axis: int = 0


@dataclass(frozen=True)
class Tensor:
    """``data`` is set for a constant."""

    name: str
    shape: tuple[int, ...]
    data: ModelChunk | None = None
    kind: str = "FLOAT32"
    quantisation: Quantisation | None = None


@dataclass(frozen=True)
class Node:
    """Tensors are referred to by number. ``options`` are the fields of the schema."""

    code: str
    inputs: tuple[int, ...]
    output: int
    options: dict[str, Any] = field(default_factory=dict)
    grouped: bool = False


@dataclass
class Graph:
    """Tensor 0 is the input."""

    tensors: list[Tensor]
    nodes: list[Node]
    outputs: list[int] = field(default_factory=list)

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1


def model_chunks(graph: Graph, description: str, metadata: dict[str, bytes] | None = None) -> list[ModelChunk]:
    """The file in pieces. Raises UsageError if the schema is not installed."""
    return _File(graph, metadata or {}).chunks(description)


def need(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"models for runtime tflite need {error.name} here: pip install 'ofa-profile[tflite]'"
        ) from None


class _File:
    """A writer that starts at the end of the file, as flatbuffers require: referenced objects come first."""

    def __init__(self, graph: Graph, metadata: dict[str, bytes]) -> None:
        self._schema = need("ai_edge_litert.schema_py_generated")
        constants = [tensor.data for tensor in graph.tensors if tensor.data is not None]
        self._builder = need("flatbuffers").Builder(chunks_size(constants) + 400 * len(graph.tensors) + 4096)
        self._graph = graph
        self._metadata = metadata
        self._seeded: list[tuple[int, int, ModelChunk]] = []  # offset from the end, length, content

    def chunks(self, description: str) -> list[ModelChunk]:
        self._builder.Finish(self._model(description), file_identifier=FILE_ID)
        content = memoryview(self._builder.Bytes)[self._builder.Head() :]
        chunks: list[ModelChunk] = []
        done = 0
        for from_end, size, chunk in sorted(self._seeded, key=lambda seeded: -seeded[0]):
            start = len(content) - from_end
            chunks += [bytes(content[done:start]), chunk]
            done = start + size
        return [*chunks, bytes(content[done:])]

    def _model(self, description: str) -> int:
        schema, graph = self._schema, self._graph
        buffers = [self._table("Buffer")]  # the first one is empty, for computed tensors
        tensors = []
        for tensor in graph.tensors:
            tensors.append(self._tensor(tensor, 0 if tensor.data is None else len(buffers)))
            if tensor.data is not None:
                buffers.append(self._table("Buffer", Data=self._data(tensor.data)))
        metadata = []
        for name, content in self._metadata.items():
            metadata.append(self._table("Metadata", Name=self._builder.CreateString(name), Buffer=len(buffers)))
            buffers.append(self._table("Buffer", Data=self._data(content)))
        versions = [(node.code, self._version(node)) for node in graph.nodes]
        codes = sorted(set(versions))
        nodes = [self._node(node, codes.index(version)) for node, version in zip(graph.nodes, versions, strict=True)]
        subgraph = self._table(
            "SubGraph",
            Tensors=self._offsets(tensors),
            Inputs=self._ints([0]),
            Outputs=self._ints(graph.outputs),
            Operators=self._offsets(nodes),
            Name=self._builder.CreateString("main"),
        )
        operator_codes = [self._code(getattr(schema.BuiltinOperator, code), version) for code, version in codes]
        return self._table(
            "Model",
            Version=SCHEMA_VERSION,
            OperatorCodes=self._offsets(operator_codes),
            Subgraphs=self._offsets([subgraph]),
            Description=self._builder.CreateString(description),
            Buffers=self._offsets(buffers),
            Metadata=self._offsets(metadata),
        )

    def _code(self, number: int, version: int) -> int:
        old = min(number, LAST_OLD_CODE)
        return self._table("OperatorCode", DeprecatedBuiltinCode=old, BuiltinCode=number, Version=version)

    def _version(self, node: Node) -> int:
        quantised = self._graph.tensors[node.inputs[0]].kind == "INT8"
        version = _VERSIONS.get(node.code, _OTHERS_VERSIONS)[quantised]
        return GROUPED_CONV_VERSION if node.grouped else version

    def _node(self, node: Node, code: int) -> int:
        fields: dict[str, int] = {}
        if node.code in _OPTIONS:
            options = _OPTIONS[node.code]
            fields["BuiltinOptions"] = self._table(options, **node.options)
            fields["BuiltinOptionsType"] = getattr(self._schema.BuiltinOptions, options)
        inputs, outputs = self._ints(node.inputs), self._ints([node.output])
        return self._table("Operator", OpcodeIndex=code, Inputs=inputs, Outputs=outputs, **fields)

    def _tensor(self, tensor: Tensor, buffer: int) -> int:
        fields = {"Shape": self._ints(tensor.shape), "Name": self._builder.CreateString(tensor.name)}
        if tensor.quantisation:
            fields["Quantization"] = self._quantisation(tensor.quantisation)
        kind = getattr(self._schema.TensorType, tensor.kind)
        return self._table("Tensor", Type=kind, Buffer=buffer, HasRank=True, **fields)

    def _quantisation(self, quantisation: Quantisation) -> int:
        scales = self._builder.CreateNumpyVector(np.array(quantisation.scales, "<f4"))
        zeros = np.full(len(quantisation.scales), quantisation.zero_point, "<i8")
        return self._table(
            "QuantizationParameters",
            Scale=scales,
            ZeroPoint=self._builder.CreateNumpyVector(zeros),
            QuantizedDimension=quantisation.axis,
        )

    def _data(self, chunk: ModelChunk) -> int:
        """The buffer of a constant; seeded values leave a gap."""
        content = chunk if isinstance(chunk, bytes) else bytes(chunk.size)
        self._builder.Prep(ALIGNMENT, len(content))
        vector = int(self._builder.CreateByteVector(content))
        if not isinstance(chunk, bytes):
            self._seeded.append((vector - _LENGTH.size, chunk.size, chunk))
        return vector

    def _table(self, kind: str, **fields: Any) -> int:
        start, adders, end = _table_functions(self._schema, kind)
        start(self._builder)
        for name, value in fields.items():
            adders[name](self._builder, value)
        return int(end(self._builder))

    def _ints(self, values: Sequence[int]) -> int:
        return int(self._builder.CreateNumpyVector(np.array(values, "<i4")))

    def _offsets(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(_LENGTH.size, len(offsets), _LENGTH.size)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())


_LENGTH = struct.Struct("<I")


@cache
def _table_functions(schema: Any, kind: str) -> tuple[Any, dict[str, Any], Any]:
    """The functions that start, fill and end a table of the schema."""
    add = f"{kind}Add"
    adders = {name[len(add) :]: function for name, function in vars(schema).items() if name.startswith(add)}
    return getattr(schema, f"{kind}Start"), adders, getattr(schema, f"{kind}End")
