"""Linear layers with ReLU between them: values and gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa_nas.spaces.space import FloatArray


@dataclass(frozen=True)
class Linear:
    """A linear layer, x ↦ x · weightᵀ + bias: ``weight`` (outputs, inputs) and ``bias`` (outputs,), float32."""

    weight: FloatArray
    bias: FloatArray


def gradient(layers: Sequence[Linear], inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (N,) values as ``forward`` does, and (N, inputs) gradients."""
    *hidden, last = layers
    values, active = inputs, []
    with np.errstate(over="ignore", invalid="ignore"):  # the caller checks the values
        for layer in hidden:
            values = values @ layer.weight.T
            values += layer.bias
            np.maximum(values, 0, out=values)
            active.append(values > 0)
        slopes = np.broadcast_to(last.weight[0], (len(inputs), last.weight.shape[1]))
        for layer, on in zip(reversed(hidden), reversed(active), strict=True):
            slopes = (slopes * on) @ layer.weight
        return (values @ last.weight[0]) + last.bias[0], slopes


def forward(layers: Sequence[Linear], inputs: FloatArray) -> FloatArray:
    """Return (N,) values of the first output of the last layer, from inputs (N, inputs)."""
    *hidden, last = layers
    values = inputs
    with np.errstate(over="ignore", invalid="ignore"):  # the caller checks for it
        for layer in hidden:
            values = values @ layer.weight.T
            values += layer.bias
            np.maximum(values, 0, out=values)
        return (values @ last.weight[0]) + last.bias[0]
