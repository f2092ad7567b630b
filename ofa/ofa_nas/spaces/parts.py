"""Parts that several families of networks share."""

from collections.abc import Callable, Sequence

import numpy as np

from ofa_agent import keys
from ofa_agent import operators as ops
from ofa_agent.operators import Block, Operator, Shape
from ofa_nas.spaces.space import ABSENT, Position

IMAGE_CHANNELS = 3


def make_divisible(value: float, divisor: int = 8) -> int:
    """Rounded to a multiple of ``divisor``, half up, never below 0.9 of the value (MobileNetV2's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def keyed(shape: Shape, operators: Sequence[Operator], key: Callable[[Shape, Shape], str]) -> Block:
    """The Block whose key its input and output give."""
    return Block(key(shape, ops.shapes(operators, shape)[-1]), shape, tuple(operators))


def classifier(features: Shape, classes: int) -> Block:
    return Block(keys.classifier_key(features, classes), features, (ops.Linear(features[0], classes),))


def with_classes(last: Block, classes: int) -> Block:
    """The last Block of a network for another number of classes."""
    return classifier(last.input_shape, classes)


def fixed(stage: int, entry: int) -> Position:
    """Where one entry stands in every network."""
    none = np.array([ABSENT])
    return Position(stage, (), (), np.array([entry]), none, none)
