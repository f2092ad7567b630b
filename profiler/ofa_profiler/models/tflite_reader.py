"""Read TFLite files: inputs, operators and MACs. The schema comes with ``ai_edge_litert``."""

import importlib
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ofa_agent.inputs import ModelInput
from ofa_profiler.models.model_file import (
    MOST_BYTES,
    WHAT,
    FileOperator,
    ModelFile,
    Shape,
    count_bytes,
    require_possible,
)
from ofa_profiler.models.shapes import OnFile, resolve
from ofa_tables.errors import FileError, UsageError
from ofa_tables.reading import read_bytes

FILE_ID = b"TFL3"
# Types of TFLite, as numpy names them; bytes of a value.
BYTES = {"float32": 4, "float16": 2, "float64": 8, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4}
BYTES |= {"uint32": 4, "int64": 8, "uint64": 8, "bool": 1}
# Custom operators that every TFLite interpreter has.
BUILT_IN_CUSTOM = ("TFLite_Detection_PostProcess", "Mfcc", "AudioSpectrogram")
NOT_COUNTED = ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "RNN", "CONV_3D", "SVDF", "WHILE", "IF")
COUNTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL")


def read_tflite(path: Path, shapes: Mapping[str, Shape]) -> ModelFile:
    """Read a model file. Raises FileError if it is damaged or too large, or has an open shape; UsageError."""
    content = read_bytes(path, MOST_BYTES, WHAT)
    if content[4:8] != FILE_ID:
        raise FileError(f"{path} is not a TFLite file, or is damaged: it does not have the mark TFL3")
    try:
        return _read(path, content, shapes)
    except (struct.error, IndexError, TypeError, ValueError, AttributeError, UnicodeDecodeError, AssertionError):
        raise FileError(f"{path} is truncated or damaged; export it again") from None


def _read(path: Path, content: bytes, shapes: Mapping[str, Shape]) -> ModelFile:
    schema = _schema()
    model = schema.Model.GetRootAsModel(content, 0)
    graph = model.Subgraphs(0)
    if graph is None or not graph.OperatorsLength():
        raise ValueError("no operators")
    _require_buffers(model, len(content))
    tensors = [_Tensor(graph.Tensors(index)) for index in range(graph.TensorsLength())]
    taken = [tensors[int(index)] for index in graph.InputsAsNumpy()]
    on_file = {tensor.name: tensor.on_file for tensor in taken}
    resolved = resolve(path, on_file, shapes)
    # The sizes of a file that leaves them open are placeholders.
    is_fixed = all(tensor.shape == resolved[tensor.name] for tensor in taken)
    operators = tuple(_operators(path, model, graph, tensors, is_fixed))
    below = _table_rows(operators, tensors)
    inputs = tuple(ModelInput(t.name, t.kind, resolved[t.name], below.get(t.name, 0)) for t in taken)
    require_possible(path, inputs)
    weights = [tensor for tensor in tensors if _has_data(model, tensor.buffer)]
    has_all = is_fixed and not any(each.kind in NOT_COUNTED for each in operators)
    return ModelFile(
        path, "tflite", content, inputs, operators, sum(math.prod(tensor.shape) for tensor in weights), has_all
    )


class _Tensor:
    def __init__(self, tensor: Any) -> None:
        self.name = tensor.Name().decode()
        self.kind = _kinds().get(tensor.Type(), "unknown")
        self.shape = tuple(int(tensor.Shape(at)) for at in range(tensor.ShapeLength()))
        signature = tuple(int(tensor.ShapeSignature(at)) for at in range(tensor.ShapeSignatureLength()))
        self.on_file: OnFile = tuple(size if size >= 0 else "" for size in signature or self.shape)
        self.buffer = tensor.Buffer()

    @property
    def size_bytes(self) -> int | None:
        return math.prod(self.shape) * BYTES[self.kind] if self.kind in BYTES else None


@cache
def _schema() -> Any:
    try:
        return importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError:
        raise UsageError("TFLite files need the package ai-edge-litert: pip install 'ofa-profile[tflite]'") from None


@cache
def _kinds() -> dict[int, str]:
    return {value: name.lower() for name, value in vars(_schema().TensorType).items() if not name.startswith("_")}


@cache
def _codes() -> dict[int, str]:
    return {value: name for name, value in vars(_schema().BuiltinOperator).items() if not name.startswith("_")}


def _require_buffers(model: Any, file_bytes: int) -> None:
    """Raise ValueError if the weights go beyond the end of the file."""
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.Offset() + buffer.Size() > file_bytes:
            raise ValueError("weights are missing")
        if buffer.DataLength():
            buffer.DataAsNumpy()[-1]


def _has_data(model: Any, index: int) -> bool:
    buffer = model.Buffers(index)
    return bool(buffer.DataLength() or buffer.Size())


def _operators(
    path: Path, model: Any, graph: Any, tensors: Sequence[_Tensor], is_fixed: bool
) -> Iterator[FileOperator]:
    sizes = {tensor.name: tensor.size_bytes for tensor in tensors} if is_fixed else {}
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = _codes()[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if kind == "CUSTOM":
            kind = code.CustomCode().decode()
            if kind not in BUILT_IN_CUSTOM:
                raise FileError(
                    f"{path} has the custom operator {kind}, which no runtime has; convert it to built-in operators"
                )
        read = [_named(tensors, int(operator.Inputs(at))) for at in range(operator.InputsLength())]
        written = [_named(tensors, int(operator.Outputs(at))) for at in range(operator.OutputsLength())]
        names = tuple(tensor.name if tensor else "" for tensor in read)
        outputs = tuple(tensor.name for tensor in written if tensor)
        yield FileOperator(
            outputs[0] if outputs else f"{kind}_{number}",
            kind,
            names,
            outputs,
            _macs(kind, read, written) if is_fixed else None,
            count_bytes([*names, *outputs], sizes),
        )


def _named(tensors: Sequence[_Tensor], index: int) -> _Tensor | None:
    return tensors[index] if index >= 0 else None  # an optional input that is absent


def _macs(kind: str, read: Sequence[_Tensor | None], written: Sequence[_Tensor | None]) -> int | None:
    if kind not in COUNTED or len(read) < 2 or not written or written[0] is None or read[0] is None or read[1] is None:
        return None
    output, weight = math.prod(written[0].shape), read[1].shape
    if kind == "DEPTHWISE_CONV_2D":
        return output * weight[1] * weight[2]
    if kind == "TRANSPOSE_CONV":  # inputs: the output shape, weights, values
        return None if read[2] is None else math.prod(read[2].shape) * math.prod(weight[:3])
    if kind == "BATCH_MATMUL":
        return output * read[0].shape[-1]
    return output * (math.prod(weight[1:]) if kind == "CONV_2D" else weight[-1])


def _table_rows(operators: Sequence[FileOperator], tensors: Sequence[_Tensor]) -> dict[str, int]:
    """Return how many rows the tables have that an input is an index of."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    found: dict[str, int] = {}
    for operator in operators:
        if operator.kind in ("GATHER", "EMBEDDING_LOOKUP") and len(operator.inputs) > 1:
            table, index = operator.inputs[:2] if operator.kind == "GATHER" else operator.inputs[1::-1]
            rows = shapes.get(table, ())[:1]
            if rows:
                found[index] = min(rows[0], found.get(index, rows[0]))
    return found
