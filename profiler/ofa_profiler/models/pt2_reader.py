"""Read files of ``torch.export.save``: inputs, operators and MACs. Requires PyTorch on the host."""

import math
from collections.abc import Iterator, Mapping
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
from ofa_tables.reading import opened, read_bytes, zip_problem

MOST_ENTRIES = 100_000  # of the zip file: one for each weight
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
PRODUCTS = {"linear": 0, "mm": 0, "bmm": 0, "matmul": 0, "addmm": 1, "baddbmm": 1}  # by name: which argument has rows
ATTENTION = "scaled_dot_product_attention"
NOT_COUNTED = ("lstm", "gru", "rnn_tanh", "einsum")


def read_pt2(path: Path, shapes: Mapping[str, Shape]) -> ModelFile:
    """Read a model file. Raises FileError if it is damaged or too large, or has an open shape; UsageError.

    The file is loaded by PyTorch, which may execute what it contains: it must be the user's own.
    """
    with opened(path, MOST_BYTES, WHAT) as file:
        problem = zip_problem(file, MOST_ENTRIES)
    if problem:
        raise FileError(f"{path} is truncated, damaged, or not a file of torch.export.save: {problem}")
    try:
        import torch
    except ImportError:
        raise UsageError(".pt2 files need PyTorch on this machine, too: pip install 'ofa-profile[torch]'") from None
    try:
        program = torch.export.load(str(path))
    except Exception as error:  # torch raises many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FileError(f"{path} is damaged, or not a file of torch.export.save: {reason}") from None
    return _of_program(path, read_bytes(path, MOST_BYTES, WHAT), program, shapes)


def _of_program(path: Path, content: bytes, program: Any, shapes: Mapping[str, Shape]) -> ModelFile:
    nodes = {node.name: node for node in program.graph.nodes}
    names = [str(name) for name in program.graph_signature.user_inputs]
    missing = [name for name in names if name not in nodes]
    if missing:
        raise FileError(f"{path}: input {missing[0]} is not a tensor; export it with that value fixed")
    on_file = {name: _on_file(nodes[name]) for name in names}
    resolved = resolve(path, on_file, shapes)
    below = _table_rows(program)
    inputs = tuple(ModelInput(name, _kind(nodes[name]), resolved[name], below.get(name, 0)) for name in names)
    require_possible(path, inputs)
    is_fixed = not any(isinstance(size, str) for shape in on_file.values() for size in shape)
    operators = tuple(_operators(program, is_fixed))
    parameters = sum(parameter.numel() for parameter in program.parameters())
    has_all = is_fixed and not any(each.kind in NOT_COUNTED for each in operators)
    return ModelFile(path, "pt2", content, inputs, operators, parameters, has_all)


def _on_file(node: Any) -> OnFile:
    return tuple(int(size) if isinstance(size, int) else str(size) for size in node.meta["val"].shape)


def _kind(node: Any) -> str:
    return str(node.meta["val"].dtype).removeprefix("torch.")


def _table_rows(program: Any) -> dict[str, int]:
    """Return how many rows the embeddings have that an input is an index of."""
    return {
        str(node.args[1].name): int(node.args[0].meta["val"].shape[0])
        for node in program.graph.nodes
        if node.op == "call_function" and _kind_of(node) == "embedding" and node.args[1].op == "placeholder"
    }


def _kind_of(node: Any) -> str:
    """The operator without namespace and overload: ``aten.conv2d.default`` is ``conv2d``."""
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def _operators(program: Any, is_fixed: bool) -> Iterator[FileOperator]:
    sizes = {node.name: _size_bytes(node) for node in program.graph.nodes} if is_fixed else {}
    for node in program.graph.nodes:
        if node.op == "call_function":
            read = tuple(each.name for each in node.all_input_nodes)
            yield FileOperator(
                node.name,
                _kind_of(node),
                read,
                (node.name,),
                _macs(node) if is_fixed else None,
                count_bytes([*read, node.name], sizes),
                _label(node),
            )


def _label(node: Any) -> str:
    """Return the path of the module that calls an operator, and the operator."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return f"{path} {node.name}" if path else str(node.name)


def _shape(node: Any) -> Shape | None:
    value: Any = getattr(node, "meta", {}).get("val")
    return tuple(int(size) for size in value.shape) if hasattr(value, "shape") else None


def _size_bytes(node: Any) -> int | None:
    value = node.meta.get("val")
    if not hasattr(value, "element_size"):
        return None
    shape = _shape(node)
    return None if shape is None else math.prod(shape) * int(value.element_size())


def _macs(node: Any) -> int | None:
    kind, output = _kind_of(node), _shape(node)
    if output is None:
        return None
    if kind in CONVOLUTIONS or kind in TRANSPOSED:
        values, weight = _shape(node.args[0]), _shape(node.args[1])
        transposed = kind in TRANSPOSED or (kind == "convolution" and node.args[6])
        counted = values if transposed else output
        return None if counted is None or weight is None else math.prod(counted) * math.prod(weight[1:])
    if kind in PRODUCTS:
        rows = _shape(node.args[PRODUCTS[kind]])
        return math.prod(output) * rows[-1] if rows else None
    if kind == ATTENTION:
        query, key = _shape(node.args[0]), _shape(node.args[1])
        return None if not query or not key else math.prod(query[:-1]) * key[-2] * (query[-1] + output[-1])
    return None
