"""Engine: an analytic latency model of an accelerator, such as a DPU on an FPGA.

A roofline (Williams et al., "Roofline: an insightful visual performance model", CACM 2009) for each layer:

    latency(layer) = max(arithmetic, memory) + overhead
    arithmetic     = MACs of the padded channels / rate of this kind of layer
    memory         = bytes moved / bandwidth

The weights of a network do not fit on the chip, so each layer reads its own. Inputs and outputs are moved only if they
do not fit beside the weights. Layers run one after the other. Activation functions cost nothing, because they are fused
into the layer before them. docs/simulated.md lists the parameters of the shipped targets and their sources.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from ofa_agent import operators as ops
from ofa_agent.operators import PRECISIONS, Block, Operator, Shape, product
from ofa_tables.errors import FileError

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

# The terms of a latency, which ``fit.py`` scales.
DENSE, DEPTHWISE, MEMORY, OVERHEAD = range(4)
TERMS = ("dense", "depthwise", "memory", "overhead")


@dataclass(frozen=True)
class Layer:
    """One layer for one image. ``kernel_size`` is set only for a depthwise convolution.

    ``work`` are MACs, or values for the kind "elementwise". ``weights``, ``inputs`` and ``outputs`` are values.
    """

    kind: str
    work: float
    weights: int
    inputs: int
    outputs: int
    kernel_size: int = 0


@dataclass(frozen=True)
class Engine:
    """The declared parameters.

    ``depthwise_macs_per_s`` is a rate for each kernel size; other sizes have the rate of the nearest one.
    ``elementwise_per_s`` are values per second of additions, multiplications and poolings. ``channels`` are computed at
    once; others are padded to a multiple. ``overhead_us`` is per layer.
    """

    dense_macs_per_s: float
    depthwise_macs_per_s: Mapping[int, float]
    linear_macs_per_s: float
    elementwise_per_s: float
    channels: int
    memory_bytes_per_s: float
    on_chip_bytes: float
    overhead_us: float

    @classmethod
    def of(cls, name: str, declared: Mapping[str, Any]) -> "Engine":
        """Check and convert the section ``engine`` of a target. Raises FileError."""
        names = [field.name for field in fields(cls)]
        for missing in (each for each in names if each not in declared):
            raise FileError(f"targets.toml: [{name}.engine] has no {missing}; add it, or like = 'xilinx-zu9eg'")
        for unknown in (each for each in declared if each not in names):
            raise FileError(f"targets.toml: [{name}.engine] has an unknown key {unknown!r}; known: {', '.join(names)}")
        rates = declared["depthwise_macs_per_s"]
        rates = rates if isinstance(rates, Mapping) else {"3": rates}
        plain = {key: value for key, value in declared.items() if key != "depthwise_macs_per_s"}
        numbers = [*plain.items(), *((f"depthwise_macs_per_s {size}", rate) for size, rate in rates.items())]
        for key, value in numbers:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not (0 <= value < float("inf")) or (value == 0 and key != "overhead_us"):
                raise FileError(f"targets.toml: [{name}.engine] {key} must be a positive number, not {value!r}")
        if not rates or not all(str(size).isdecimal() for size in rates) or plain["channels"] != int(plain["channels"]):
            raise FileError(
                f"targets.toml: [{name}.engine] takes depthwise_macs_per_s = {{ 3 = RATE, 5 = RATE }} and a whole "
                "number of channels"
            )
        return cls(
            dense_macs_per_s=float(plain["dense_macs_per_s"]),
            depthwise_macs_per_s={int(size): float(rate) for size, rate in rates.items()},
            linear_macs_per_s=float(plain["linear_macs_per_s"]),
            elementwise_per_s=float(plain["elementwise_per_s"]),
            channels=int(plain["channels"]),
            memory_bytes_per_s=float(plain["memory_bytes_per_s"]),
            on_chip_bytes=float(plain["on_chip_bytes"]),
            overhead_us=float(plain["overhead_us"]),
        )

    @property
    def fingerprint(self) -> str:
        """A digest of the parameters. Tables of different parameters are never mixed."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def latency_ms(self, block: Block, batch: int, precision: str) -> float:
        return float(self.terms_ms(block, batch, precision).sum())

    def terms_ms(self, block: Block, batch: int, precision: str) -> FloatArray:
        """Return (4,) parts of the latency in ms, in the order of TERMS. Of each layer only the longer of arithmetic
        and memory counts.
        """
        terms = np.zeros(len(TERMS))
        for layer in layers(block, self.channels):
            arithmetic_s = batch * layer.work / self._rate(layer)
            memory_s = self._moved(layer, batch, PRECISIONS[precision]) / self.memory_bytes_per_s
            of_kind = DENSE if layer.kind in ("dense", "linear") else DEPTHWISE
            terms[MEMORY if memory_s > arithmetic_s else of_kind] += 1e3 * max(arithmetic_s, memory_s)
            terms[OVERHEAD] += self.overhead_us / 1e3
        return terms

    def scaled(self, scales: FloatArray) -> "Engine":
        """Return the engine whose ``terms_ms`` are (4,) ``scales`` times as long, if the same terms dominate."""
        dense, depthwise, memory, overhead = map(float, scales)
        return replace(
            self,
            dense_macs_per_s=self.dense_macs_per_s / dense,
            linear_macs_per_s=self.linear_macs_per_s / dense,
            depthwise_macs_per_s={size: rate / depthwise for size, rate in self.depthwise_macs_per_s.items()},
            elementwise_per_s=self.elementwise_per_s / depthwise,
            memory_bytes_per_s=self.memory_bytes_per_s / memory,
            overhead_us=self.overhead_us * overhead,
        )

    def _rate(self, layer: Layer) -> float:
        if layer.kind == "depthwise":
            nearest = min(self.depthwise_macs_per_s, key=lambda size: (abs(size - layer.kernel_size), -size))
            return self.depthwise_macs_per_s[nearest]
        others = {"dense": self.dense_macs_per_s, "linear": self.linear_macs_per_s}
        return others.get(layer.kind, self.elementwise_per_s)

    def _moved(self, layer: Layer, batch: int, value_bytes: int) -> float:
        """Return the bytes between memory and chip for one inference of the whole batch."""
        activations = layer.inputs + layer.outputs
        fits = (layer.weights + activations) * value_bytes <= self.on_chip_bytes
        return (layer.weights + (0 if fits else batch * activations)) * value_bytes


def layers(block: Block, channels: int = 1) -> Iterator[Layer]:
    """Yield the layers of a block, with the work of channels padded to a multiple of ``channels``."""
    for operator, shape, output in zip(block.operators, block.shapes[:-1], block.shapes[1:], strict=True):
        yield from _layers(operator, shape, output, channels)


def _layers(operator: Operator, shape: Shape, output: Shape, channels: int) -> Iterator[Layer]:
    inputs, outputs = product(shape), product(output)
    weights = sum(parameter.size for parameter in operator.parameters())
    if isinstance(operator, ops.Conv):
        yield _convolution(operator, weights, inputs, outputs, product(output[1:]), channels)
    elif isinstance(operator, ops.Linear):
        work = _padded(operator.in_features, channels) * _padded(operator.out_features, channels)
        yield Layer("linear", work, weights, inputs, outputs)
    elif isinstance(operator, ops.SqueezeExcite):
        pooled = (operator.channels, 1, 1)
        yield Layer("elementwise", inputs, 0, inputs, operator.channels)
        for conv, from_shape in ((operator.reduce, pooled), (operator.expand, (operator.reduced_channels, 1, 1))):
            yield from _layers(conv, from_shape, conv.output_shape(from_shape), channels)
        yield Layer("elementwise", inputs, 0, inputs + operator.channels, outputs)
    elif isinstance(operator, ops.Add):
        yield Layer("elementwise", outputs, 0, 2 * outputs, outputs)
    elif isinstance(operator, ops.MaxPool):
        yield Layer("elementwise", outputs * operator.kernel_size**2, 0, inputs, outputs)
    elif isinstance(operator, ops.Pool | ops.AvgPool):
        yield Layer("elementwise", inputs, 0, inputs, outputs)


def _convolution(conv: ops.Conv, weights: int, inputs: int, outputs: int, pixels: int, channels: int) -> Layer:
    taps = conv.kernel_size**2 * pixels
    if conv.groups == conv.in_channels == conv.out_channels > 1:
        work = taps * _padded(conv.out_channels, channels)
        return Layer("depthwise", work, weights, inputs, outputs, conv.kernel_size)
    of_group = _padded(conv.in_channels // conv.groups, channels) * _padded(conv.out_channels // conv.groups, channels)
    return Layer("dense", taps * conv.groups * of_group, weights, inputs, outputs)


def _padded(count: int, channels: int) -> int:
    return -(-count // channels) * channels
