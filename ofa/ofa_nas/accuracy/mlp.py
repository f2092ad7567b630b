"""An MLP with ReLU, or an ensemble of MLPs, over one-hot choices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa_nas.accuracy.encoding import find_encoder
from ofa_nas.spaces.gathers import Gather
from ofa_nas.spaces.space import FloatArray, Population, Space
from ofa_tables.errors import FileError


@dataclass(frozen=True)
class Linear:
    """A linear layer, x ↦ x · weightᵀ + bias: ``weight`` (outputs, inputs) and ``bias`` (outputs,), float32."""

    weight: FloatArray
    bias: FloatArray


class Mlp:
    """Predicts top-1 accuracy, 0…1, of the networks of one Space: the mean over the members.

    The number of inputs determines the encoding. ``name`` is the file name, for messages. Raises FileError if a member
    does not have one output, if members differ in their inputs, or if the Space has no encoding of this size.
    """

    is_accuracy = True
    chunk = 1 << 11  # rows at a time, so that the hidden layers stay in the CPU caches

    def __init__(self, space: Space, members: Sequence[Sequence[Linear]], name: str) -> None:
        inputs = {layers[0].weight.shape[1] for layers in members}
        outputs = {layers[-1].weight.shape[0] for layers in members}
        if outputs != {1} or len(inputs) != 1:
            raise FileError(
                f"{name} has {_listed(inputs)} inputs and {_listed(outputs)} outputs; all members of an accuracy model "
                "need the same number of inputs, and 1 output"
            )
        self.name = name
        self.members = tuple(tuple(layers) for layers in members)
        self._encoder = find_encoder(space, inputs.pop(), name)

    @property
    def resolutions_px(self) -> tuple[int, ...]:
        return self._encoder.resolutions_px

    def by_member(self, population: Population) -> FloatArray:
        """Return (members, N) accuracies, 0…1."""
        inputs = self._encoder(population)
        return np.array([forward(layers, inputs) for layers in self.members])

    def __call__(self, population: Population) -> FloatArray:
        """Return (N,) float32 accuracies, 0…1. Raises FileError if one is not finite."""
        accuracy = np.zeros(len(population), dtype=np.float32)
        for start in range(0, len(population), self.chunk):
            piece = slice(start, start + self.chunk)
            inputs = self._encoder(population[piece])
            for layers in self.members:
                accuracy[piece] += forward(layers, inputs)
        if len(self.members) > 1:
            accuracy /= len(self.members)
        if not np.isfinite(accuracy).all():
            raise FileError(f"{self.name} predicts an accuracy that is not finite; its weights are not usable")
        return accuracy

    @property
    def features(self) -> tuple[Gather, ...]:
        """The features are the inputs."""
        return self._encoder.hot

    def worths(self, population: Population) -> tuple[FloatArray, FloatArray]:
        """Return (N,) accuracies, and (N, inputs + 1) gradients with respect to the inputs; the last is 0."""
        accuracy = np.zeros(len(population), dtype=np.float32)
        slopes = np.zeros((len(population), self._encoder.inputs + 1), dtype=np.float32)
        for start in range(0, len(population), self.chunk):
            piece = slice(start, start + self.chunk)
            inputs = self._encoder(population[piece])
            for layers in self.members:
                value, slope = gradient(layers, inputs)
                accuracy[piece] += value / len(self.members)
                slopes[piece, :-1] += slope / len(self.members)
        return accuracy, slopes


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


def _listed(sizes: set[int]) -> str:
    return " and ".join(map(str, sorted(sizes)))
