"""Linear upper bounds of an MLP with ReLU over a set of inputs (CROWN: Zhang et al., NeurIPS 2018).

Over an interval of its input, a ReLU is at most the chord and at least a line through 0. With these lines, an output is
at most a linear function of the inputs. The intervals of the hidden units follow in the same way, layer by layer.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ofa_nas.accuracy.layers import Linear
from ofa_nas.spaces.space import FloatArray

# Returns the largest value over the set of each of some linear functions: (functions, inputs) to (functions,).
Most = Callable[[FloatArray], FloatArray]


def linear_upper_bound(layers: Sequence[Linear], most: Most) -> tuple[FloatArray, float]:
    """Return (inputs,) slopes and a constant: the first output is at most slopes · inputs + constant in the set.

    The slopes are float64. The bound holds up to rounding.
    """
    lines: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    for at, layer in enumerate(layers[:-1]):
        weight, bias = layer.weight.astype(np.float64), layer.bias.astype(np.float64)
        both = np.concatenate([weight, -weight]), np.concatenate([bias, -bias])
        slopes, constants = _to_inputs(*both, layers[:at], lines)
        high, low = np.split(most(slopes) + constants, 2)
        lines.append(_lines(-low, high))
    last = layers[-1]
    slopes, constants = _to_inputs(
        last.weight[:1].astype(np.float64), last.bias[:1].astype(np.float64), layers[:-1], lines
    )
    return slopes[0], float(constants[0])


def _to_inputs(
    weights: FloatArray,
    constants: FloatArray,
    layers: Sequence[Linear],
    lines: Sequence[tuple[FloatArray, FloatArray, FloatArray]],
) -> tuple[FloatArray, FloatArray]:
    """Return upper bounds of functions of the outputs of the last of ``layers``, as functions of the inputs."""
    for layer, (upper, offset, lower) in zip(reversed(layers), reversed(lines), strict=True):
        positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
        constants = constants + positive @ offset
        weights = positive * upper + negative * lower
        constants = constants + weights @ layer.bias.astype(np.float64)
        weights = weights @ layer.weight.astype(np.float64)
    return weights, constants


def _lines(low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return slope and offset of the upper line, and the slope of the lower line, for inputs between the two."""
    high = np.maximum(high, low)
    crosses = (low < 0) & (high > 0)
    upper = np.where(crosses, high / np.where(crosses, high - low, 1.0), np.where(low >= 0, 1.0, 0.0))
    offset = np.where(crosses, -upper * low, 0.0)
    lower = np.where(crosses, np.where(high > -low, 1.0, 0.0), upper)
    return upper, offset, lower
