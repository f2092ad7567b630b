"""Read ONNX files: inputs, operators, MACs, and weights that lie in other files."""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from ofa_agent.inputs import ModelInput
from ofa_agent.text import numbered
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
from ofa_tables.errors import FileError
from ofa_tables.reading import opened, read_bytes, too_large

# Domains of operators that ONNX Runtime has.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft")
STANDARD = ("", "ai.onnx")
KEPT_BYTES = 1024  # constants up to here may determine shapes

# Operators that compute products in ways that are not counted.
NOT_COUNTED = ("Einsum", "LSTM", "GRU", "RNN", "Attention", "MultiHeadAttention", "GroupQueryAttention", "DeformConv")
# By kind: which inputs are the values and the weights.
CONVOLUTIONS = {"Conv": (0, 1), "FusedConv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3)}
PRODUCTS = {
    "MatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
    "Gemm": (0, 1),
}


def read_onnx(path: Path, shapes: Mapping[str, Shape]) -> ModelFile:
    """Read a model file. Raises FileError if it is damaged or too large, or has an open shape; UsageError."""
    content = read_bytes(path, MOST_BYTES, WHAT)
    model = _parsed(path, content)
    is_changed = _load_weights(path, model)
    if _name_nodes(model) or is_changed:
        content = model.SerializeToString()
    _require_operators(path, model)
    initial = {tensor.name for tensor in model.graph.initializer}
    declared = [value for value in model.graph.input if value.name not in initial]
    on_file = {value.name: _shape_on_file(path, value) for value in declared}
    resolved = resolve(path, on_file, shapes)
    below = _table_rows(model)
    inputs = tuple(ModelInput(v.name, _kind(v), resolved[v.name], below.get(v.name, 0)) for v in declared)
    require_possible(path, inputs)
    operators = tuple(_operators(model, resolved))
    return ModelFile(
        path,
        "onnx",
        content,
        inputs,
        operators,
        sum(math.prod(tensor.dims) for tensor in model.graph.initializer),
        not any(node.op_type in NOT_COUNTED or node.op_type in _SUBGRAPHS for node in model.graph.node)
        and not any(each.macs is None for each in operators if each.kind in CONVOLUTIONS or each.kind in PRODUCTS),
    )


_SUBGRAPHS = ("If", "Loop", "Scan")


def _parsed(path: Path, content: bytes) -> ModelProto:
    try:
        model = ModelProto.FromString(content)
    except DecodeError:
        raise FileError(f"{path} is truncated, damaged, or not an ONNX file; export it again") from None
    if not model.HasField("graph") or not model.graph.node or not model.opset_import:
        raise FileError(f"{path} is truncated, damaged, or not an ONNX file: it has no operators; export it again")
    return model


def _load_weights(path: Path, model: ModelProto) -> bool:
    """Load the weights that lie in other files, and return whether there are any. Raises FileError."""
    tensors = [tensor for tensor in _tensors(model.graph) if uses_external_data(tensor)]
    if not tensors:
        return False
    total = 0
    for name in dict.fromkeys(ExternalDataInfo(tensor).location for tensor in tensors):
        beside = path.parent / name
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise FileError(f"{path} keeps weights in {name}, outside its folder; save it with weights beside it")
        if not os.path.lexists(beside):
            raise FileError(f"{path} keeps its weights in {name}, which is missing; copy it into the same folder")
        with opened(beside, MOST_BYTES, "the weights of a model") as file:
            total += os.fstat(file.fileno()).st_size
    if total > MOST_BYTES:
        raise too_large(path, MOST_BYTES, f"{WHAT} with its weights")
    try:
        load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"{path}: its weights cannot be read: {reason}; export it again") from None
    for tensor in tensors:  # a file that is too short leaves some out
        if len(tensor.raw_data) != _tensor_bytes(tensor.dims, tensor.data_type):
            location = ExternalDataInfo(tensor).location
            raise FileError(f"{path}: {location} is truncated: weights of {tensor.name} are missing; export it again")
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return True


def _name_nodes(model: ModelProto) -> bool:
    """Name the nodes that have no name or share one, so that layers can be found. Return whether there were any."""
    given = [node.name for node in model.graph.node]
    names = numbered(name or node.op_type for name, node in zip(given, model.graph.node, strict=True))
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    return names != given


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from _tensors_of(attribute)


def _tensors_of(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
        yield from _tensors(graph)


def _require_operators(path: Path, model: ModelProto) -> None:
    """Raise FileError for an operator that no runtime has."""
    own = {(function.domain, function.name) for function in model.functions}
    knows_opset = all(
        opset.version <= onnx.defs.onnx_opset_version() for opset in model.opset_import if opset.domain in STANDARD
    )
    for node in _nodes(model.graph):
        if (node.domain, node.op_type) in own:
            continue
        if node.domain not in DOMAINS or (
            node.domain in STANDARD and knows_opset and not onnx.defs.has(node.op_type, "")
        ):
            name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            raise FileError(f"{path} has the custom operator {name}, which no runtime has; replace it by standard ones")


def _nodes(graph: GraphProto) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _nodes(inner)


def _shape_on_file(path: Path, value: Any) -> OnFile | None:
    if not value.type.HasField("tensor_type"):
        raise FileError(f"{path}: input {value.name} is not a tensor; only tensors can be filled with random values")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim)


def _kind(value: Any) -> str:
    kind = value.type.tensor_type.elem_type
    return str(TensorProto.DataType.Name(kind).lower()) if kind not in _KINDS else _KINDS[kind]


_KINDS = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}


def _table_rows(model: ModelProto) -> dict[str, int]:
    """Return how many rows the tables have that an input is an index of, such as embeddings of tokens."""
    tables = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    found: dict[str, int] = {}
    for node in model.graph.node:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        if node.op_type == "Gather" and node.input[0] in tables and axis < len(tables[node.input[0]]):
            rows = tables[node.input[0]][axis]
            found[node.input[1]] = min(rows, found.get(node.input[1], rows))
    return found


# Work of the operators.


def _operators(model: ModelProto, resolved: Mapping[str, Shape]) -> Iterator[FileOperator]:
    shapes, sizes = _inferred(model, resolved)
    for node in model.graph.node:
        yield FileOperator(
            node.name,
            node.op_type,
            tuple(node.input),
            tuple(node.output),
            _macs(node, shapes),
            count_bytes([*node.input, *node.output], sizes),
        )


def _inferred(model: ModelProto, resolved: Mapping[str, Shape]) -> tuple[dict[str, Shape], dict[str, int | None]]:
    """Return shapes and sizes in bytes of the values that ONNX's shape inference determines."""
    light = _without_weights(model, resolved)
    with contextlib.suppress(Exception):  # it raises several kinds; without it, fewer shapes are known
        light = onnx.shape_inference.infer_shapes(light, data_prop=True)
    shapes: dict[str, Shape] = {}
    sizes: dict[str, int | None] = {}
    for value in [*light.graph.input, *light.graph.value_info, *light.graph.output]:
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
            sizes[value.name] = _tensor_bytes(shapes[value.name], tensor.elem_type)
    for initializer in light.graph.initializer:
        shapes[initializer.name] = tuple(initializer.dims)
        sizes[initializer.name] = _tensor_bytes(initializer.dims, initializer.data_type)
    return shapes, sizes


def _without_weights(model: ModelProto, resolved: Mapping[str, Shape]) -> ModelProto:
    """Return the model with large weights as inputs, which need no copy, and with fixed input shapes."""
    light = ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name or "graph"
    light.graph.node.extend(model.graph.node)
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(value for value in model.graph.value_info if _is_fixed(value))
    for tensor in model.graph.initializer:
        if (_tensor_bytes(tensor.dims, tensor.data_type) or 0) <= KEPT_BYTES:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for value in model.graph.input:
        if value.name in resolved:
            kind = value.type.tensor_type.elem_type
            light.graph.input.append(helper.make_tensor_value_info(value.name, kind, resolved[value.name]))
    return light


def _is_fixed(value: Any) -> bool:
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim)


def _tensor_bytes(shape: Sequence[int], kind: int) -> int | None:
    if kind in (TensorProto.INT4, TensorProto.UINT4):  # two in a byte
        return (math.prod(shape) + 1) // 2
    try:
        return math.prod(shape) * int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except (KeyError, TypeError):
        return None


def _macs(node: Any, shapes: Mapping[str, Shape]) -> int | None:
    """Return the MACs of a convolution or product; None for others, and if a shape is unknown."""
    output = shapes.get(node.output[0]) if node.output else None
    if node.op_type in CONVOLUTIONS:
        weight = shapes.get(node.input[CONVOLUTIONS[node.op_type][1]])
        return None if output is None or weight is None else math.prod(output) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        values, weight = shapes.get(node.input[0]), shapes.get(node.input[1])
        return None if values is None or weight is None else math.prod(values) * math.prod(weight[1:])
    if node.op_type in PRODUCTS:
        values = shapes.get(node.input[PRODUCTS[node.op_type][0]])
        if output is None or not values:
            return None
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(output) * (values[-2] if transposed and len(values) > 1 else values[-1])
    return None
