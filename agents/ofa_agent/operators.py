"""Operators, blocks, shapes, MACs and seeded weights, shared by agent, tables, spaces and host.

Shapes are ``(channels, height, width)``, or ``(features,)`` after a Linear, without the batch.
MACs are multiply-accumulates of one inference at batch 1. Requires only Python 3.6 and numpy.

    InvalidBlock        operators that do not fit together or exceed the limits below
"""

import math
import zlib
from functools import lru_cache
from typing import Any, Iterator, List, NamedTuple, Sequence, Tuple, Union

import numpy as np

Shape = Tuple[int, ...]

ACTIVATIONS = ("relu", "relu6", "hard_swish", "hard_sigmoid", "swish", "sigmoid")

# Limits for blocks that arrive over the network, checked before anything is allocated.
MAX_OPERATORS = 4096
MAX_DIMENSION = 1 << 16
MAX_VALUES = 1 << 28

BIAS_SCALE = 0.1
PIECE = 1 << 20  # values that are drawn at a time

# Precisions of a job, and the bytes of a value. tf32 rounds values of fp32 to 10 bits of mantissa before it multiplies.
PRECISIONS = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1}

# Formats of seeded weights. Each row of an int8 matrix has its own scale.
INT8_BY_ROW = "int8-by-row"
INT8_FORMS = ("int8", INT8_BY_ROW)
FORMS = {"": "<f4", "float32": "<f4", "float16": "<f2", "int8": "i1", INT8_BY_ROW: "i1"}


class InvalidBlock(ValueError):
    """Operators that cannot run one after the other; the message names the operator and the reason."""


class Parameter(NamedTuple):
    """A weight tensor of an operator: part (``weight``, ``bias``, …), shape, and standard deviation."""

    part: str
    shape: Shape
    scale: float

    @property
    def size(self) -> int:
        return product(self.shape)


class Conv(NamedTuple):
    """A 2-D convolution with folded batch norm; padding ``kernel_size // 2``, weights ``[out, in / groups, k, k]``."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    groups: int = 1
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        _expect(len(shape) == 3 and shape[0] == self.in_channels, self, shape)
        _expect(min(self.groups, self.stride, self.out_channels) >= 1 and self.kernel_size % 2 == 1, self, shape)
        _expect(self.in_channels % self.groups == 0 and self.out_channels % self.groups == 0, self, shape)
        return (self.out_channels, (shape[1] - 1) // self.stride + 1, (shape[2] - 1) // self.stride + 1)

    def parameters(self) -> List[Parameter]:
        fan_in = self.in_channels // self.groups * self.kernel_size**2
        shape = (self.out_channels, self.in_channels // self.groups, self.kernel_size, self.kernel_size)
        return _weight_and_bias(shape, fan_in, self.bias)

    def macs(self, shape: Shape) -> int:
        _, height, width = self.output_shape(shape)
        return self.parameters()[0].size * height * width


class Activation(NamedTuple):
    """An elementwise function, one of ACTIVATIONS."""

    function: str

    def output_shape(self, shape: Shape) -> Shape:
        _expect(self.function in ACTIVATIONS, self, shape)
        return shape

    def parameters(self) -> List[Parameter]:
        return []

    def macs(self, shape: Shape) -> int:
        return 0


class Pool(NamedTuple):
    """Global average pooling, ``(c, h, w)`` to ``(c, 1, 1)``."""

    function: str = "global_average"

    def output_shape(self, shape: Shape) -> Shape:
        _expect(self.function == "global_average" and len(shape) == 3, self, shape)
        return (shape[0], 1, 1)

    def parameters(self) -> List[Parameter]:
        return []

    def macs(self, shape: Shape) -> int:
        return 0


class MaxPool(NamedTuple):
    """Maximum over windows; padding ``kernel_size // 2``, which never counts as the maximum."""

    kernel_size: int
    stride: int

    def output_shape(self, shape: Shape) -> Shape:
        _expect(len(shape) == 3 and self.stride >= 1 and self.kernel_size % 2 == 1, self, shape)
        _expect(1 <= self.kernel_size <= MAX_DIMENSION, self, shape)
        return (shape[0], (shape[1] - 1) // self.stride + 1, (shape[2] - 1) // self.stride + 1)

    def parameters(self) -> List[Parameter]:
        return []

    def macs(self, shape: Shape) -> int:
        return 0


class AvgPool(NamedTuple):
    """Average over adjacent windows of ``size`` × ``size``; incomplete windows at the edges average fewer values."""

    size: int

    def output_shape(self, shape: Shape) -> Shape:
        _expect(len(shape) == 3 and 1 <= self.size <= MAX_DIMENSION, self, shape)
        return (shape[0], (shape[1] - 1) // self.size + 1, (shape[2] - 1) // self.size + 1)

    def parameters(self) -> List[Parameter]:
        return []

    def macs(self, shape: Shape) -> int:
        return 0


class Linear(NamedTuple):
    """A flatten and a fully connected layer, weights ``[out, in]``."""

    in_features: int
    out_features: int
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        _expect(product(shape) == self.in_features and self.out_features >= 1, self, shape)
        return (self.out_features,)

    def parameters(self) -> List[Parameter]:
        return _weight_and_bias((self.out_features, self.in_features), self.in_features, self.bias)

    def macs(self, shape: Shape) -> int:
        return self.in_features * self.out_features


class SqueezeExcite(NamedTuple):
    """Squeeze-and-excite: global average pool, 1×1 reduce, activation, 1×1 expand, gate, multiply.

    Both convolutions have a bias. ``activation`` and ``gate`` are in ACTIVATIONS; the defaults are MobileNetV3's.
    """

    channels: int
    reduced_channels: int
    activation: str = "relu"
    gate: str = "hard_sigmoid"

    def output_shape(self, shape: Shape) -> Shape:
        _expect(len(shape) == 3 and shape[0] == self.channels and self.reduced_channels >= 1, self, shape)
        _expect(self.activation in ACTIVATIONS and self.gate in ACTIVATIONS, self, shape)
        return shape

    @property
    def reduce(self) -> Conv:
        return Conv(self.channels, self.reduced_channels, 1)

    @property
    def expand(self) -> Conv:
        return Conv(self.reduced_channels, self.channels, 1)

    def parameters(self) -> List[Parameter]:
        return [
            parameter._replace(part="%s.%s" % (name, parameter.part))
            for name, conv in (("reduce", self.reduce), ("expand", self.expand))
            for parameter in conv.parameters()
        ]

    def macs(self, shape: Shape) -> int:
        return 2 * self.channels * self.reduced_channels


class Add(NamedTuple):
    """Addition of an earlier value of the same shape: 0 is the input of the block, i the output of operator i."""

    value: int

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def parameters(self) -> List[Parameter]:
        return []

    def macs(self, shape: Shape) -> int:
        return 0


class Take(NamedTuple):
    """A branch from an earlier value: 0 is the input of the block, i the output of operator i, counted from 1."""

    value: int

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def parameters(self) -> List[Parameter]:
        return []

    def macs(self, shape: Shape) -> int:
        return 0


Operator = Union[Conv, Activation, Pool, MaxPool, AvgPool, Linear, SqueezeExcite, Add, Take]


class Block(NamedTuple):
    """A short list of operators at one input size: one entry of a table.

    ``key`` is its name in tables, identical to the key in the published tables.
    """

    key: str
    input_shape: Shape
    operators: Tuple[Operator, ...]

    @property
    def shapes(self) -> List[Shape]:
        """The shape of every value: the input, then the output of each operator."""
        return shapes(self.operators, self.input_shape)

    @property
    def output_shape(self) -> Shape:
        return self.shapes[-1]

    @property
    def macs(self) -> int:
        return sum(operator.macs(shape) for operator, shape in zip(self.operators, self.shapes))

    @property
    def parameters(self) -> int:
        """The number of weights, including the biases that come from folded batch norms."""
        return sum(parameter.size for operator in self.operators for parameter in operator.parameters())

    @property
    def seed(self) -> int:
        return zlib.crc32(self.key.encode())


def shapes(operators: Sequence[Operator], input_shape: Shape) -> List[Shape]:
    """Return the shape of every value: the input, then the output of each operator. Raises InvalidBlock."""
    if not 1 <= len(operators) <= MAX_OPERATORS:
        raise InvalidBlock("%d operators; the allowed number is 1 to %d" % (len(operators), MAX_OPERATORS))
    values = [_bounded(tuple(input_shape), "the input")]
    for operator in operators:
        shape = values[-1]
        if isinstance(operator, (Add, Take)):
            _expect(0 <= operator.value < len(values), operator, shape)
            earlier = values[operator.value]
            _expect(isinstance(operator, Take) or earlier == shape, operator, shape)
            shape = earlier
        values.append(_bounded(operator.output_shape(shape), operator))
        _check_parameters(operator)
    return values


@lru_cache(maxsize=4096, typed=True)  # the blocks of a space have the same operators at every resolution
def _check_parameters(operator: Operator) -> None:
    for parameter in operator.parameters():
        _bounded(parameter.shape, operator)


def concatenate(key: str, blocks: Sequence[Block]) -> Block:
    """Join the blocks of a network into one block. Raises InvalidBlock if they do not fit together."""
    operators: List[Operator] = []
    shape = blocks[0].input_shape
    for block in blocks:
        if block.input_shape != shape:
            raise InvalidBlock("%s takes the shape %s, but its input has %s" % (block.key, block.input_shape, shape))
        start = len(operators)
        operators.extend(
            op._replace(value=op.value + start) if isinstance(op, (Add, Take)) else op for op in block.operators
        )
        shape = block.output_shape
    return Block(key, blocks[0].input_shape, tuple(operators))


def tensor_seed(block_seed: int, index: int) -> int:
    """Return the seed of weight tensor ``index`` of a block."""
    return block_seed << 16 | index


def seeded(seed: int, length: int, scale: float, rows: int = 0, form: str = "") -> "np.ndarray[Any, Any]":
    """Return ``length`` normally distributed values, little-endian; the same bytes with every numpy since 1.19.

    ``rows`` reshapes them into a matrix with that number of rows, written column by column: the layout of depthwise
    weights in channels-last models. ``form`` is one of FORMS. Raises ValueError.
    """
    check_seeded(length, rows, form)
    return laid_out(drawn(seed, length, scale), rows, form)


def drawn(seed: int, length: int, scale: float) -> "np.ndarray[Any, Any]":
    """Return ``length`` normally distributed values, float32."""
    values = np.empty(length, "<f4")
    at = 0
    for piece in drawn_pieces(seed, length, scale):
        values[at : at + len(piece)] = piece
        at += len(piece)
    return values


def drawn_pieces(seed: int, length: int, scale: float) -> "Iterator[np.ndarray[Any, Any]]":
    """Yield the values of ``drawn`` in pieces: the generator draws float64, which needs twice the memory."""
    generator = np.random.default_rng(seed)
    for start in range(0, length, PIECE):
        yield (generator.standard_normal(min(PIECE, length - start)) * scale).astype("<f4")


def laid_out(values: "np.ndarray[Any, Any]", rows: int, form: str) -> "np.ndarray[Any, Any]":
    """Return the values in the layout and format of a model file; see ``seeded``."""
    if not rows and not form:
        return values
    matrix = values.reshape(rows or 1, -1)
    matrix = to_int8(matrix, int8_scales(matrix)) if form in INT8_FORMS else matrix.astype(FORMS[form])
    return (matrix if form == INT8_BY_ROW else matrix.T).ravel()


def check_seeded(length: int, rows: int, form: str) -> None:
    """Check the arguments of ``seeded``. Raises ValueError."""
    if form not in FORMS:
        raise ValueError("unknown weight format %r; update the agent" % form)
    if length > MAX_VALUES:
        raise ValueError("a tensor of %d values is larger than the limit of %d values" % (length, MAX_VALUES))
    if rows and length % rows:
        raise ValueError("%d values do not form a matrix of %d rows" % (length, rows))


def int8_scales(matrix: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Return the int8 scale of each row: symmetric, 127 steps for the greatest magnitude of the row."""
    scales = np.abs(matrix).max(axis=1) / np.float32(127)
    return np.where(scales > 0, scales, np.float32(1))


def to_int8(matrix: "np.ndarray[Any, Any]", scales: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return np.rint(matrix / scales[:, np.newaxis]).astype("i1")


def product(shape: Sequence[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def _weight_and_bias(shape: Shape, fan_in: int, bias: bool) -> List[Parameter]:
    weight = Parameter("weight", shape, math.sqrt(2.0 / fan_in))  # He et al. 2015: keeps the variance of activations
    return [weight, Parameter("bias", shape[:1], BIAS_SCALE)] if bias else [weight]


def _expect(condition: bool, operator: Operator, shape: Shape) -> None:
    if not condition:
        raise InvalidBlock("%s cannot take a value of shape %s" % (operator, shape))


def _bounded(shape: Shape, what: object) -> Shape:
    if not shape or min(shape) < 1 or max(shape) > MAX_DIMENSION or product(shape) > MAX_VALUES:
        raise InvalidBlock("%s has the shape %s, which exceeds the limits" % (what, shape))
    return shape
