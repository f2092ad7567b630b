"""Lower operators to ONNX: the graph through ``onnx.helper``, the weights as seeds that the agent expands."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from ofa_agent import operators as ops
from ofa_agent.operators import Block
from ofa_agent.protocol import messages as wire
from ofa_agent.protocol.messages import ModelChunk, SeededValues
from ofa_profiler.lowering import onnx_int8
from ofa_profiler.lowering.onnx_file import INPUT, OUTPUT, Graph, Weights, model_chunks


def lower(
    block: Block,
    batch: int,
    precision: str = "fp32",
    source: wire.Source = ops.drawn,
    metadata: Mapping[str, str] | None = None,
    ranges: onnx_int8.Ranges | None = None,
) -> list[ModelChunk]:
    """The model file in pieces. Joined by ``wire.model_bytes`` they are an ONNX model with input ``x`` and output
    ``y``, both in float.

    It is the same for fp32 and fp16: TensorRT converts it. In int8 the scales depend on the weights that ``source``
    provides, so join the pieces with the same ``source``; ``ranges`` are those of the activations, by default for
    random inputs.
    """
    graph = graph_of(block, batch)
    if precision == "int8":
        ranges = ranges or random_ranges(block, source)
        graph = onnx_int8.quantised(graph, ranges, source)
    return model_chunks(graph, metadata)


def lower_for_tensorrt(block: Block, batch: int, precision: str = "fp32") -> list[ModelChunk]:
    """The model file for TensorRT, which requires symmetric quantisation."""
    if precision != "int8":
        return lower(block, batch, precision)
    return model_chunks(onnx_int8.quantised_symmetrically(graph_of(block, batch), random_ranges(block, ops.drawn)))


def lower_for_cuda(block: Block, batch: int, precision: str = "fp32") -> list[ModelChunk]:
    """The model file for the CUDA provider, which computes in the type of the values: float16 in fp16."""
    return model_chunks(in_half(graph_of(block, batch))) if precision == "fp16" else lower(block, batch, precision)


def in_half(graph: Graph) -> Graph:
    """The same graph with all values in float16, also input and output."""
    constants = [
        numpy_helper.from_array(numpy_helper.to_array(constant).astype(np.float16), constant.name)
        for constant in graph.constants
    ]
    weights = [
        replace(each, kind=TensorProto.FLOAT16, data=each.data._replace(form="float16"))
        for each in graph.weights
        if isinstance(each.data, SeededValues)
    ]
    return Graph(graph.input_shape, graph.output_shape, graph.nodes, weights, constants, TensorProto.FLOAT16)


def random_ranges(block: Block, source: wire.Source) -> onnx_int8.Ranges:
    """The ranges of all activations for random inputs."""
    graph = graph_of(block, onnx_int8.INPUTS)
    return onnx_int8.ranges_of(graph, source, [onnx_int8.random_input(graph.input_shape)])


def graph_of(block: Block, batch: int) -> Graph:
    """The graph in single precision."""
    graph = _Layers(block, batch)
    values = [INPUT]
    for index, operator in enumerate(block.operators):
        values.append(_NODES[type(operator)](graph, operator, f"{index}", values))
    graph.node("Identity", [values[-1]], OUTPUT)
    return graph


class _Layers(Graph):
    """The growing graph; weight tensors are numbered like the parameters of the block."""

    def __init__(self, block: Block, batch: int) -> None:
        super().__init__((batch, *block.input_shape), (batch, *block.output_shape))
        self._seed = block.seed

    def parameters(self, operator: ops.Conv | ops.Linear, prefix: str) -> list[str]:
        """Add the weight tensors of an operator and return their names."""
        names = [f"{prefix}.{parameter.part}" for parameter in operator.parameters()]
        for name, parameter in zip(names, operator.parameters(), strict=True):
            seed = ops.tensor_seed(self._seed, len(self.weights))
            values = SeededValues(seed, parameter.size, parameter.scale)
            self.weights.append(Weights(name, parameter.shape, values))
        return names


def _conv(graph: _Layers, conv: ops.Conv, name: str, values: list[str]) -> str:
    pad = conv.kernel_size // 2
    return graph.node(
        "Conv",
        [values[-1], *graph.parameters(conv, name)],
        f"operator{name}",
        kernel_shape=[conv.kernel_size] * 2,
        strides=[conv.stride] * 2,
        pads=[pad] * 4,
        group=conv.groups,
    )


def _activation(graph: _Layers, activation: ops.Activation, name: str, values: list[str]) -> str:
    if activation.function == "relu6":
        return graph.node("Clip", [values[-1], graph.scalar("zero", 0.0), graph.scalar("six", 6.0)], f"operator{name}")
    if activation.function == "hard_sigmoid":
        return graph.node("HardSigmoid", [values[-1]], f"operator{name}", alpha=1 / 6, beta=0.5)
    if activation.function == "swish":
        gate = graph.node("Sigmoid", [values[-1]], f"operator{name}.gate")
        return graph.node("Mul", [values[-1], gate], f"operator{name}")
    kinds = {"relu": "Relu", "hard_swish": "HardSwish", "sigmoid": "Sigmoid"}
    return graph.node(kinds[activation.function], [values[-1]], f"operator{name}")


def _squeeze_excite(graph: _Layers, squeeze: ops.SqueezeExcite, name: str, values: list[str]) -> str:
    inner = [graph.node("GlobalAveragePool", [values[-1]], f"operator{name}.pool")]
    for part, conv, function in (
        ("reduce", squeeze.reduce, squeeze.activation),
        ("expand", squeeze.expand, squeeze.gate),
    ):
        inner.append(_conv(graph, conv, f"{name}.{part}", inner))
        inner.append(_activation(graph, ops.Activation(function), f"{name}.{part}.act", inner))
    return graph.node("Mul", [values[-1], inner[-1]], f"operator{name}")


def _pool(graph: _Layers, pool: ops.Pool, name: str, values: list[str]) -> str:
    return graph.node("GlobalAveragePool", [values[-1]], f"operator{name}")


def _max_pool(graph: _Layers, pool: ops.MaxPool, name: str, values: list[str]) -> str:
    size, pad = pool.kernel_size, pool.kernel_size // 2
    return graph.node(
        "MaxPool",
        [values[-1]],
        f"operator{name}",
        kernel_shape=[size] * 2,
        strides=[pool.stride] * 2,
        pads=[pad] * 4,
    )


def _avg_pool(graph: _Layers, pool: ops.AvgPool, name: str, values: list[str]) -> str:
    return graph.node(
        "AveragePool",
        [values[-1]],
        f"operator{name}",
        kernel_shape=[pool.size] * 2,
        strides=[pool.size] * 2,
        ceil_mode=1,
    )


def _linear(graph: _Layers, linear: ops.Linear, name: str, values: list[str]) -> str:
    flat = graph.node("Flatten", [values[-1]], f"operator{name}.flat")
    return graph.node("Gemm", [flat, *graph.parameters(linear, name)], f"operator{name}", transB=1)


def _add(graph: _Layers, add: ops.Add, name: str, values: list[str]) -> str:
    return graph.node("Add", [values[add.value], values[-1]], f"operator{name}")


def _take(graph: _Layers, take: ops.Take, name: str, values: list[str]) -> str:
    return values[take.value]


_NODES: dict[type, Callable[[_Layers, Any, str, list[str]], str]] = {
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
