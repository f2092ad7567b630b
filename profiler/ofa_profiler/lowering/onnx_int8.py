"""Static quantisation to int8 in the QDQ format: QuantizeLinear and DequantizeLinear around float operators.

The pattern is that of ``onnxruntime.quantization.quantize_static`` with uint8 activations and int8 weights per channel,
the settings that ONNX Runtime recommends for x86. The runtime replaces it by integer kernels. HardSwish and HardSigmoid
stay in float, because ONNX Runtime has no integer kernels for them.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ofa_agent import operators as ops
from ofa_agent.operators import Shape
from ofa_agent.protocol import messages as wire
from ofa_agent.protocol.messages import SeededValues
from ofa_profiler.lowering.onnx_file import INPUT, OUTPUT, Graph, Weights, model_chunks

INPUTS = 2
SEED = 1  # the input of the runtimes comes first

# Kinds of nodes as quantize_static treats them.
_WITH_WEIGHTS = ("Conv", "Gemm")
_QUANTISED = (*_WITH_WEIGHTS, "Add", "Mul", "GlobalAveragePool", "Sigmoid")
_KEEPS_SCALE = ("MaxPool", "AveragePool", "Flatten")  # quantised if the input is
_CLIPS = ("Relu", "Clip")  # replaced by the range of the output if the input is quantised

Array = np.ndarray[Any, np.dtype[Any]]
Ranges = dict[str, tuple[float, float]]


def random_input(shape: Shape) -> Array:
    return ops.seeded(SEED, ops.product(shape), 1.0).reshape(shape)


def ranges_of(graph: Graph, source: wire.Source, inputs: Iterable[Array]) -> Ranges:
    """The smallest and largest value of every activation of a float graph that has a scale, over all ``inputs``."""
    import onnxruntime

    roots = {*_Plan.of(graph, removes_clips=False).scale_of.values()}
    names = [*sorted(roots - {INPUT}), OUTPUT]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    content = wire.model_bytes(model_chunks(graph, also_outputs=names[:-1]), source)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    ranges: Ranges = {}
    for values in inputs:
        for name, output in zip([INPUT, *names], [values, *session.run(names, {INPUT: values})], strict=True):
            least, greatest = ranges.get(name, (0.0, 0.0))  # zero is always representable
            ranges[name] = min(least, float(output.min())), max(greatest, float(output.max()))
    return ranges


def quantised(graph: Graph, ranges: Ranges, source: wire.Source) -> Graph:
    """The graph with uint8 activations, int8 weights and int32 biases; input and output stay in float."""
    return _Writer(graph, _Plan.of(graph, removes_clips=True), ranges, source).written()


def quantised_symmetrically(graph: Graph, ranges: Ranges) -> Graph:
    """The same with symmetric int8 activations, and float weights that TensorRT quantises."""
    return _SymmetricWriter(graph, _Plan.of(graph, removes_clips=False), ranges, ops.drawn).written()


@dataclass(frozen=True)
class _Plan:
    """Which activations are quantised.

    ``scale_of`` maps each of them to the activation that has its scale. ``replaced`` maps outputs of nodes to those of
    the Relu or Clip that follows and is left out.
    """

    scale_of: dict[str, str]
    replaced: dict[str, str]

    @classmethod
    def of(cls, graph: Graph, removes_clips: bool) -> "_Plan":
        consumers = Counter(name for node in graph.nodes for name in node.input)
        scale_of: dict[str, str] = {}
        replaced: dict[str, str] = {}
        for node in graph.nodes:
            value, output = node.input[0], node.output[0]
            if node.op_type in _QUANTISED:
                activations = [value] if node.op_type in _WITH_WEIGHTS else node.input
                scale_of |= {name: scale_of.get(name, name) for name in (*activations, output)}
            elif node.op_type in _KEEPS_SCALE and value in scale_of:
                scale_of[output] = scale_of[value]
            elif node.op_type in _CLIPS and value in scale_of:
                scale_of[output] = output
                if removes_clips and consumers[value] == 1 and scale_of[value] == value != INPUT:
                    replaced[value] = output
                    del scale_of[value]
        return cls(scale_of, replaced)


class _Writer:
    """Writes the QDQ graph.

    Each node that reads a quantised activation has a DequantizeLinear that only it reads, which all versions of the
    runtime can replace. It has the name of the node, so its time belongs to the same operator.
    """

    kind = TensorProto.UINT8

    def __init__(self, graph: Graph, plan: _Plan, ranges: Ranges, source: wire.Source) -> None:
        self._from = graph
        self._plan = plan
        self._ranges = ranges
        self._source = source
        self._weights = {weights.name: weights for weights in graph.weights}
        self._to = Graph(graph.input_shape, graph.output_shape, constants=list(graph.constants))
        self._zeros: set[str] = set()

    def written(self) -> Graph:
        if INPUT in self._plan.scale_of:
            self._quantise(INPUT)
        for node in self._from.nodes:
            if node.output[0] in self._plan.replaced.values():
                continue
            output = self._plan.replaced.get(node.output[0], node.output[0])
            written = onnx.NodeProto()
            written.CopyFrom(node)
            written.output[0] = output
            written.input[:] = self._inputs(node)
            self._to.nodes.append(written)
            if output in self._plan.scale_of:
                self._quantise(output)
        return self._to

    def _inputs(self, node: onnx.NodeProto) -> list[str]:
        if node.op_type in _WITH_WEIGHTS:
            value, *names = node.input
            return [self._activation(value, node, 0), *self._parameters(value, [self._weights[name] for name in names])]
        return [self._activation(name, node, at) for at, name in enumerate(node.input)]

    def _activation(self, name: str, node: onnx.NodeProto, at: int) -> str:
        if name not in self._plan.scale_of:
            return name
        return self._dequantised(f"{name}.int8", name, f"{node.name}.input{at}")

    def _dequantised(self, int8: str, name: str, output: str) -> str:
        return self._to.node("DequantizeLinear", self._encoded(int8, name), output)

    def _quantise(self, name: str) -> None:
        self._to.node("QuantizeLinear", self._encoded(name, name), f"{name}.int8")

    def _encoded(self, value: str, name: str) -> list[str]:
        """The value, its scale and its zero point."""
        root = self._plan.scale_of[name]
        scale, zero_point = self._encoding(root)
        zero = self._to.scalar(f"{root}.zero_point", zero_point, self.kind)
        return [value, self._to.scalar(f"{root}.scale", scale), zero]

    def _encoding(self, root: str) -> tuple[float, int]:
        least, greatest = self._ranges[root]
        scale = float(np.float32((greatest - least) / 255)) or 1.0
        return scale, round(-least / scale)

    def _parameters(self, value: str, parameters: list[Weights]) -> list[str]:
        """Weights in int8 with a scale for each output channel, and the bias in int32."""
        weights = parameters[0]
        channels = weights.shape[0]
        data = weights.data
        assert isinstance(data, SeededValues)
        scales = ops.int8_scales(self._values(weights).reshape(channels, -1))
        int8 = data._replace(rows=channels, form=ops.INT8_BY_ROW)
        self._to.weights.append(Weights(f"{weights.name}.int8", weights.shape, int8, TensorProto.INT8))
        names = [self._by_channel(weights.name, scales, np.int8)]
        for bias in parameters[1:]:
            scale, _ = self._encoding(self._plan.scale_of[value])
            bias_scales = np.float32(scale) * scales
            steps = np.clip(np.rint(self._values(bias) / bias_scales.astype(np.float64)), -(2.0**31), 2.0**31 - 1)
            self._constant(f"{bias.name}.int8", steps.astype(np.int32))
            names.append(self._by_channel(bias.name, bias_scales, np.int32))
        return names

    def _by_channel(self, name: str, scales: Array, kind: type[np.signedinteger[Any]]) -> str:
        encoded = [f"{name}.int8", *self._channel_encoding(name, scales, kind)]
        return self._to.node("DequantizeLinear", encoded, f"operator{name}", axis=0)

    def _channel_encoding(self, name: str, scales: Array, kind: type[np.signedinteger[Any]]) -> list[str]:
        """The scales and the zero points, which all tensors with this number of channels share."""
        self._constant(f"{name}.scale", scales.astype(np.float32))
        zeros = f"zeros.{kind.__name__}.{len(scales)}"
        if zeros not in self._zeros:
            self._zeros.add(zeros)
            self._constant(zeros, np.zeros(len(scales), kind))
        return [f"{name}.scale", zeros]

    def _constant(self, name: str, values: Array) -> None:
        self._to.constants.append(numpy_helper.from_array(values, name))

    def _values(self, weights: Weights) -> Array:
        return np.frombuffer(wire.model_bytes([weights.data], self._source), "<f4")


class _SymmetricWriter(_Writer):
    """Each node that reads a quantised activation has a QuantizeLinear too, as old versions of TensorRT require."""

    kind = TensorProto.INT8

    def _quantise(self, name: str) -> None:
        pass

    def _activation(self, name: str, node: onnx.NodeProto, at: int) -> str:
        if name not in self._plan.scale_of:
            return name
        output = f"{node.name}.input{at}"
        int8 = self._to.node("QuantizeLinear", self._encoded(name, name), f"{output}.int8")
        return self._dequantised(int8, name, output)

    def _encoding(self, root: str) -> tuple[float, int]:
        return float(np.float32(max(map(abs, self._ranges[root])) / 127)) or 1.0, 0

    def _parameters(self, value: str, parameters: list[Weights]) -> list[str]:
        """Float weights, quantised for each output channel, and the bias in float."""
        self._to.weights.extend(parameters)
        weights = parameters[0]
        channels = weights.shape[0]
        scales = ops.int8_scales(self._values(weights).reshape(channels, -1))
        encoding = self._channel_encoding(weights.name, scales, np.int8)
        int8 = self._to.node("QuantizeLinear", [weights.name, *encoding], f"{weights.name}.int8", axis=0)
        name = self._to.node("DequantizeLinear", [int8, *encoding], f"operator{weights.name}", axis=0)
        return [name, *(bias.name for bias in parameters[1:])]
