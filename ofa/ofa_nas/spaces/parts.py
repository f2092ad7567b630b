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
