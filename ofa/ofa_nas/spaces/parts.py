"""Parts that are shared by several families of networks."""

from collections.abc import Callable, Sequence

import numpy as np

from ofa_agent import keys
from ofa_agent import operators as ops
from ofa_agent.operators import Block, Operator, Shape
from ofa_nas.spaces.space import ABSENT, Position

IMAGE_CHANNELS = 3


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of ``divisor``, half up, but not below 0.9 of the value (the rule of MobileNetV2)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def keyed(shape: Shape, operators: Sequence[Operator], key: Callable[[Shape, Shape], str]) -> Block:
    """Return a Block. ``key`` makes its key from the input and output shapes."""
    return Block(key(shape, ops.shapes(operators, shape)[-1]), shape, tuple(operators))


def classifier(features: Shape, classes: int) -> Block:
    return Block(keys.classifier_key(features, classes), features, (ops.Linear(features[0], classes),))


def with_classes(last: Block, classes: int) -> Block:
    """Return the last Block of a network with another number of classes."""
    return classifier(last.input_shape, classes)


def fixed(stage: int, entry: int) -> Position:
    """Return a Position with the same entry in every network."""
    none = np.array([ABSENT])
    return Position(stage, (), (), np.array([entry]), none, none)


def inverted_residual_key(
    input_shape: Shape,
    output_shape: Shape,
    mid_channels: int,
    kernel_size: int,
    stride: int,
    skip: bool,
    squeeze_excite: bool,
    activation: str,
) -> str:
    """Return the published key. Published tables have relu and hard_swish; other activations are added."""
    hard_swish = activation == "hard_swish"
    key = keys.expanded_conv_key(
        input_shape, output_shape, mid_channels, kernel_size, stride, skip, squeeze_excite, hard_swish
    )
    return keys.with_activation(key, activation, "hard_swish" if hard_swish else "relu")


def inverted_residual(
    in_channels: int,
    mid_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    activation: str,
    squeeze: ops.SqueezeExcite | None,
) -> list[Operator]:
    """Return the operators of an inverted residual (Sandler et al., CVPR 2018).

    These are a 1×1 convolution to ``mid_channels`` if they differ from ``in_channels``, a depthwise convolution,
    squeeze-excite, and a 1×1 convolution. The input is added if the shapes match.
    """
    act = ops.Activation(activation)
    operators: list[Operator] = []
    if mid_channels != in_channels:
        operators += [ops.Conv(in_channels, mid_channels, 1), act]
    operators += [ops.Conv(mid_channels, mid_channels, kernel_size, stride=stride, groups=mid_channels), act]
    if squeeze is not None:
        operators.append(squeeze)
    operators.append(ops.Conv(mid_channels, out_channels, 1))
    if stride == 1 and in_channels == out_channels:
        operators.append(ops.Add(0))
    return operators
