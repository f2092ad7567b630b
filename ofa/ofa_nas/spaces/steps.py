"""Operators as a space file writes them: relative to the place of the network at which they stand.

A *step* becomes an operator for a given input. Its channels may be those of the input or output of the place, and its
stride that of the place. Values are referred to by labels, and the input of the block by "input".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ofa_agent import operators as ops
from ofa_agent.operators import ACTIVATIONS, Operator, Shape
from ofa_nas.spaces.fields import Fields
from ofa_nas.spaces.parts import make_divisible

INPUT = "input"
STRIDE = "stride"  # that of the place
MOST_STEPS = 256
MOST_CHANNELS, LARGEST_KERNEL, MOST_STRIDE, LONGEST_LABEL = 1 << 14, 15, 8, 40
_RELATIVE = re.compile(r"(?:(\d{1,3}(?:\.\d{1,3})?)\*)?(in|out)")
_OPERATORS = (
    "conv",
    "depthwise",
    "activation",
    *ACTIVATIONS,
    "squeeze_excite",
    "max_pool",
    "avg_pool",
    "pool",
    "linear",
    "add",
    "take",
)


@dataclass(frozen=True)
class Place:
    """Where a block stands: its output channels (None: any), its stride, and the activation of its stage."""

    channels: int | None
    stride: int
    activation: str
    classes: int


@dataclass(frozen=True)
class Step:
    """One operator: its name in the file, and its checked values."""

    op: str
    values: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    def operator(self, shape: Shape, block_input: Shape, place: Place, labels: Mapping[str, int]) -> Operator:
        """Return the operator for an input of this shape. ``labels`` are the indices of earlier values."""
        values = self.values
        if self.op in ("add", "take"):
            return (ops.Add if self.op == "add" else ops.Take)(labels[values["value"]])
        if self.op == "linear":
            features = place.classes if values["features"] == "classes" else values["features"]
            return ops.Linear(ops.product(shape), features, values["bias"])
        stride = place.stride if values.get("stride") == STRIDE else values.get("stride", 1)
        if self.op == "conv":
            out = _channels(values["channels"], block_input[0], place)
            return ops.Conv(shape[0], out, values["kernel"], stride, values["groups"], values["bias"])
        if self.op == "depthwise":
            return ops.Conv(shape[0], shape[0], values["kernel"], stride, shape[0], values["bias"])
        if self.op == "squeeze_excite":
            reduced = max(1, make_divisible(shape[0] * values["ratio"]))
            return ops.SqueezeExcite(shape[0], reduced, values["activation"], values["gate"])
        if self.op == "max_pool":
            return ops.MaxPool(values["kernel"], stride)
        if self.op == "avg_pool":
            return ops.AvgPool(place.stride if values["size"] == STRIDE else values["size"])
        if self.op == "pool":
            return ops.Pool()
        return ops.Activation(place.activation if self.op == "activation" else self.op)


def read_steps(fields: Fields, name: str) -> tuple[Step, ...]:
    """Read a list of operators. Raises FileError."""
    labels = [INPUT]
    steps = []
    for each in fields.tables(name, MOST_STEPS, lambda number: f"{fields.place}: operator {number}"):
        step = _step(each, labels)
        if step.label:
            labels.append(step.label)
        each.done()
        steps.append(step)
    return tuple(steps)


def operators_of(steps: Sequence[Step], shape: Shape, place: Place) -> tuple[Operator, ...]:
    """Return the operators of a block with this input. Raises InvalidBlock if one cannot take its input."""
    operators: list[Operator] = []
    shapes, labels = [shape], {INPUT: 0}
    for number, step in enumerate(steps, start=1):
        operator = step.operator(shapes[-1], shape, place, labels)
        operators.append(operator)
        if isinstance(operator, ops.Add | ops.Take):
            shapes.append(shapes[operator.value])
        else:
            shapes.append(ops.shapes((operator,), shapes[-1])[-1])
        if step.label:
            labels[step.label] = number
    return tuple(operators)


def _step(fields: Fields, labels: Sequence[str]) -> Step:
    op = fields.one_of("op", _OPERATORS)
    values: dict[str, Any] = {}
    if op == "conv":
        values["channels"] = _read_channels(fields)
        values["groups"] = fields.whole("groups", 1, MOST_CHANNELS, 1)
    if op in ("conv", "depthwise", "max_pool"):
        values["kernel"] = fields.one_of("kernel", range(1, LARGEST_KERNEL + 1, 2), 1 if op == "conv" else 3)
        values["stride"] = fields.one_of("stride", (*range(1, MOST_STRIDE + 1), STRIDE), 1)
    if op in ("conv", "depthwise", "linear"):
        values["bias"] = fields.flag("bias", True)
    if op == "squeeze_excite":
        values["ratio"] = fields.number("ratio", 0.001, 4, 0.25)
        values["activation"] = fields.one_of("activation", ACTIVATIONS, "relu")
        values["gate"] = fields.one_of("gate", ACTIVATIONS, "hard_sigmoid")
    if op == "avg_pool":
        values["size"] = fields.one_of("size", (*range(1, MOST_STRIDE + 1), STRIDE))
    if op == "linear":
        classes = fields.raw("features") == "classes"
        values["features"] = "classes" if classes else fields.whole("features", 1, MOST_CHANNELS)
    if op in ("add", "take"):
        values["value"] = fields.one_of("to" if op == "add" else "from", labels)
    label = fields.text("as", LONGEST_LABEL, "")
    if label in labels:
        fields.fail(f"as is {label!r}, which an earlier value has; choose another label")
    return Step(op, values, label)


def _read_channels(fields: Fields) -> int | str:
    value = fields.raw("channels")
    if isinstance(value, str):
        if not _RELATIVE.fullmatch(value):
            fields.fail(f'channels is {value[:40]!r}; it must be a number, "in", "out", or a multiple such as "6*in"')
        return value
    return fields.whole("channels", 1, MOST_CHANNELS)


def _channels(value: int | str, block_input: int, place: Place) -> int:
    if isinstance(value, int):
        return value
    found = _RELATIVE.fullmatch(value)
    assert found is not None
    factor, which = found.groups()
    if which == "out" and place.channels is None:
        raise ops.InvalidBlock('it uses the channels "out", but the position has no channels; add channels to it')
    channels = block_input if which == "in" else int(place.channels or 0)
    return channels if factor is None else make_divisible(channels * float(factor))
