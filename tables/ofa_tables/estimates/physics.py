"""The work of operators: what the cost model knows about a block besides its measurements.

A name says nothing about the latency of a new block; its operators and shapes do. ``Works`` lists the distinct
operators of many blocks, what each has to do (``COSTS``), and where it lies among others of its kind (coordinates).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ofa_agent import operators as ops
from ofa_agent.operators import Block, Operator, Shape

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

# What operators spend time on: the unit of each, and a typical cost of one unit in ns on one core of a mobile
# processor. Only the ratios matter, because the speed of the device is free.
COSTS = {
    "MACs of convolutions and linear layers": 0.1,
    "MACs of depthwise convolutions": 0.3,
    "outputs of depthwise convolutions": 0.5,
    "bytes of activations": 0.05,
    "bytes of weights": 0.1,
    "operators": 3000.0,
    "values of elementwise operators and pools": 0.5,
    "values of squeeze-and-excite": 1.0,
}
_MACS, _DEPTHWISE, _OUTPUTS, _ACTIVATIONS, _WEIGHTS, _OPERATORS, _VALUES, _EXCITED = range(len(COSTS))
_BYTES = 4  # of a value; other precisions only change the costs

# Runtimes compute these as part of the preceding operator.
FREE_ACTIVATIONS = ("relu", "relu6")


class Work(NamedTuple):
    """The work of one operator: its kind, its coordinates among operators of that kind, and (costs,) units.

    ``variant`` is its kind and kernel size: runtimes have separate code for some kernel sizes.
    """

    kind: str
    coordinates: tuple[float, ...]
    units: tuple[float, ...]
    variant: str


# The coordinates of each kind of operator, and thereby their length scales; logarithms.
COORDINATES = {
    "dense": ("channels", "channels", "pixels", "kernel", "stride"),
    "grouped": ("channels", "channels", "pixels", "kernel", "stride", "groups"),
    "depthwise": ("channels", "pixels", "kernel", "stride"),
    "excite": ("channels", "pixels"),
    "elementwise": ("values",),
    "pool": ("values",),
}


@dataclass(frozen=True)
class Works:
    """The work of blocks. ``counts`` (blocks, operators) says how often each distinct operator occurs in each block.

    ``units`` (operators, costs); ``members`` lists by kind the operators and their coordinates. ``variants`` has the
    names of the variants, and ``variant_of`` (operators,) the number of the variant of each operator.
    """

    counts: FloatArray
    units: FloatArray
    members: dict[str, tuple[np.ndarray[Any, Any], FloatArray]]
    variants: tuple[str, ...]
    variant_of: np.ndarray[Any, np.dtype[np.int_]]

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> "Works":
        numbers: dict[Work, int] = {}
        places = [
            (row, numbers.setdefault(work, len(numbers))) for row, block in enumerate(blocks) for work in works(block)
        ]
        counts = np.zeros((len(blocks), len(numbers)))
        np.add.at(counts, tuple(np.array(places, dtype=int).reshape(-1, 2).T), 1.0)
        kinds: dict[str, list[int]] = defaultdict(list)
        for number, work in enumerate(numbers):
            kinds[work.kind].append(number)
        distinct = list(numbers)
        members = {
            kind: (np.array(of_kind), np.array([distinct[number].coordinates for number in of_kind]))
            for kind, of_kind in kinds.items()
        }
        variants = tuple(dict.fromkeys(work.variant for work in distinct))
        return cls(
            counts,
            np.array([work.units for work in distinct]).reshape(-1, len(COSTS)),
            members,
            variants,
            np.array([variants.index(work.variant) for work in distinct], dtype=int),
        )


def works(block: Block) -> Iterator[Work]:
    """Yield the work of each operator of a block; operators that cost nothing are left out."""
    values = block.shapes
    for operator, shape, output in zip(block.operators, values, values[1:], strict=False):
        if isinstance(operator, ops.Take) or (
            isinstance(operator, ops.Activation) and operator.function in FREE_ACTIVATIONS
        ):
            continue
        yield _work(operator, shape, output)


def _work(operator: Operator, shape: Shape, output: Shape) -> Work:
    units = [0.0] * len(COSTS)
    size, output_size = ops.product(shape), ops.product(output)
    if isinstance(operator, ops.Conv | ops.Linear | ops.SqueezeExcite):
        units[_OPERATORS] = 1.0
        units[_WEIGHTS] = float(_BYTES * sum(parameter.size for parameter in operator.parameters()))
    if isinstance(operator, ops.Linear):
        units[_MACS] = float(operator.macs(shape))
        return _named("dense", (operator.in_features, operator.out_features, 1, 1, 1), units, "linear")
    if isinstance(operator, ops.SqueezeExcite):
        units[_EXCITED], units[_OPERATORS] = float(size), 2.0
        return _named("excite", (operator.channels, _pixels(shape)), units)
    if not isinstance(operator, ops.Conv):
        units[_VALUES] = float(max(size, output_size))
        pools = isinstance(operator, ops.Pool | ops.MaxPool | ops.AvgPool)
        units[_OPERATORS] = float(pools)
        return _named("pool" if pools else "elementwise", (max(size, output_size),), units)
    where = (operator.in_channels, operator.out_channels, _pixels(output), operator.kernel_size, operator.stride)
    if operator.groups == operator.in_channels > 1:
        units[_DEPTHWISE], units[_OUTPUTS] = float(operator.macs(shape)), float(output_size)
        return _named("depthwise", where[1:], units, f"depthwise {operator.kernel_size}×{operator.kernel_size}")
    units[_MACS], units[_ACTIVATIONS] = float(operator.macs(shape)), float(_BYTES * (size + output_size))
    kind, sizes = ("grouped", (*where, operator.groups)) if operator.groups > 1 else ("dense", where)
    return _named(kind, sizes, units, f"{kind} {operator.kernel_size}×{operator.kernel_size}")


def _named(kind: str, sizes: Sequence[int], units: Sequence[float], variant: str = "") -> Work:
    return Work(kind, tuple(float(np.log(size)) for size in sizes), tuple(units), variant or kind)


def _pixels(shape: Shape) -> int:
    return ops.product(shape[1:])
