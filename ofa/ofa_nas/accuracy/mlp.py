"""An accuracy predictor: Linear layers with ReLU between them, over the published encoding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa_nas.accuracy.encoding import INPUTS, Encoder
from ofa_nas.spaces.space import FloatArray, Population, Space
from ofa_tables.errors import FileError


@dataclass(frozen=True)
class Linear:
    """x ↦ x · weightᵀ + bias: ``weight`` (outputs, inputs) and ``bias`` (outputs,), float32."""

    weight: FloatArray
    bias: FloatArray


class Mlp:
    """Predicts top-1 accuracy, 0…1, of the networks of one Space.

    Raises FileError where the layers do not lead from the encoding's inputs to one output, UsageError where the
    encoding is not made for the Space. ``name`` is the file's, for messages.
    """

    is_accuracy = True
    chunk = 1 << 12  # rows at a time: bounds what the hidden layers take

    def __init__(self, space: Space, layers: Sequence[Linear], name: str) -> None:
        inputs, outputs = layers[0].weight.shape[1], layers[-1].weight.shape[0]
        if (inputs, outputs) != (INPUTS, 1):
            raise FileError(
                f"{name} has {inputs} inputs and {outputs} outputs; an accuracy model for the MobileNetV3 spaces has "
                f"{INPUTS} and 1"
            )
        self.name = name
        self.layers = tuple(layers)
        self._encoder = Encoder(space)

    @property
    def resolutions_px(self) -> tuple[int, ...]:
        return self._encoder.resolutions_px

    def __call__(self, population: Population) -> FloatArray:
        """(N,) float32 accuracies, 0…1. Raises FileError where one is not finite."""
        accuracy = np.empty(len(population), dtype=np.float32)
        for start in range(0, len(population), self.chunk):
            piece = slice(start, start + self.chunk)
            accuracy[piece] = forward(self.layers, self._encoder(population[piece]))
        if not np.isfinite(accuracy).all():
            raise FileError(f"{self.name} predicts an accuracy that is not finite; its weights are not usable")
        return accuracy


def forward(layers: Sequence[Linear], inputs: FloatArray) -> FloatArray:
    """(N,) of the last layer's first output, from inputs (N, inputs)."""
    *hidden, last = layers
    values = inputs
    with np.errstate(over="ignore", invalid="ignore"):  # the caller says it in words
        for layer in hidden:
            values = values @ layer.weight.T
            values += layer.bias
            np.maximum(values, 0, out=values)
        return (values @ last.weight.T + last.bias)[:, 0]
