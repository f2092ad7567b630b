"""Linear layers with ReLU between them: values and gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa_nas.spaces.space import FloatArray, IntArray

CHUNK = 256  # rows at a time, so that the hidden layers stay in the CPU caches


@dataclass(frozen=True)
class Linear:
    """A linear layer, x ↦ x · weightᵀ + bias: ``weight`` (outputs, inputs) and ``bias`` (outputs,), float32."""

    weight: FloatArray
    bias: FloatArray


def gradient(layers: Sequence[Linear], active: Sequence[IntArray]) -> FloatArray:
    """Return (N, inputs) gradients where these units (N, units) of each hidden layer are ``active``."""
    *hidden, last = layers
    slopes = np.broadcast_to(last.weight[0], (len(active[0]) if active else 1, last.weight.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):  # the caller checks the values
        for layer, on in zip(reversed(hidden), reversed(active), strict=True):
            slopes = (slopes * on) @ layer.weight
    return slopes


def forward(layers: Sequence[Linear], inputs: FloatArray, active: Sequence[IntArray] | None = None) -> FloatArray:
    """Return (N,) values of the first output of the last layer, from inputs (N, inputs).

    Sets which units (N, units) of each hidden layer are ``active``.
    """
    *hidden, last = layers
    found = np.empty(len(inputs), dtype=np.result_type(inputs, last.weight))
    rows = min(CHUNK, len(inputs))
    spaces = [np.empty((rows, len(layer.bias)), dtype=found.dtype) for layer in hidden]
    with np.errstate(over="ignore", invalid="ignore"):  # the caller checks for it
        for start in range(0, len(inputs), CHUNK):
            values = inputs[start : start + CHUNK]
            for at, (layer, space) in enumerate(zip(hidden, spaces, strict=True)):
                values = np.matmul(values, layer.weight.T, out=space[: len(values)])
                values += layer.bias
                np.maximum(values, 0, out=values)
                if active is not None:
                    np.greater(values, 0, out=active[at][start : start + CHUNK])
            found[start : start + CHUNK] = values @ last.weight[0]
        found += last.bias[0]
    return found
