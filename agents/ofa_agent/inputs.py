"""The inputs of a model file: what they are, and random values for them."""

from typing import Any, NamedTuple, Sequence

import numpy as np

from ofa_agent.operators import MAX_VALUES, PIECE, InvalidBlock, Shape, product

# Types of values, as numpy names them.
FLOATS = ("float32", "float16", "float64")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
KINDS = FLOATS + INTEGERS + ("bool",)

MAX_INPUTS = 256
BELOW = 2  # integers are 0 or 1 unless the job says that more are safe: as a mask, and as an index of any table


class ModelInput(NamedTuple):
    """One input: ``kind`` is one of KINDS; integers are random from 0 to ``below`` - 1, or BELOW - 1 if it is 0."""

    name: str
    kind: str
    shape: Shape
    below: int = 0

    def __str__(self) -> str:
        return "%s %s %s" % (self.name, self.kind, "×".join(map(str, self.shape)) or "scalar")


def check_inputs(key: str, inputs: Sequence[ModelInput]) -> None:
    """Check that the inputs can be made within the limits. Raises InvalidBlock."""
    if len(inputs) > MAX_INPUTS:
        raise InvalidBlock("%s has %d inputs; the limit is %d" % (key, len(inputs), MAX_INPUTS))
    for each in inputs:
        if each.kind not in KINDS:
            raise InvalidBlock("input %s of %s has values of type %r; update the agent" % (each.name, key, each.kind))
        if any(size < 1 for size in each.shape) or product(each.shape) > MAX_VALUES:
            raise InvalidBlock("input %s of %s has the shape %s, which exceeds the limits" % (each[0], key, each.shape))


def random_values(each: ModelInput, seed: int) -> "np.ndarray[Any, Any]":
    """Return values of an input: normally distributed floats, integers in the safe range, or random bools."""
    generator = np.random.default_rng(seed)
    if each.kind in FLOATS:
        values = np.empty(product(each.shape), each.kind)
        for start in range(0, len(values), PIECE):  # the generator draws float64
            values[start : start + PIECE] = generator.standard_normal(min(PIECE, len(values) - start))
        return values.reshape(each.shape)
    if each.kind == "bool":
        return generator.integers(0, 2, each.shape).astype("bool")
    below = min(each.below or BELOW, int(np.iinfo(each.kind).max) + 1)
    return generator.integers(0, below, each.shape).astype(each.kind)
