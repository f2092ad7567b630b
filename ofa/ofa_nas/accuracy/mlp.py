"""An MLP with ReLU, or an ensemble of MLPs, over one-hot choices."""

from collections.abc import Sequence

import numpy as np

from ofa_nas.accuracy.encoding import find_encoder
from ofa_nas.accuracy.layers import Linear, forward, gradient
from ofa_nas.accuracy.relaxation import Most, linear_upper_bound
from ofa_nas.spaces.gathers import Gather
from ofa_nas.spaces.space import FloatArray, Population, Space
from ofa_tables.errors import FileError


class Mlp:
    """Predicts top-1 accuracy, 0…1, of the networks of one Space: the mean over the members.

    The number of inputs determines the encoding. ``name`` is the file name, for messages. Raises FileError if a member
    does not have one output, if members differ in their inputs, or if the Space has no encoding of this size.
    """

    is_accuracy = True
    chunk = 1 << 9  # rows at a time, so that the hidden layers stay in the CPU caches

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

    @property
    def effects(self) -> FloatArray:
        """The weights of the first layers: (units of all members, inputs)."""
        return np.concatenate([layers[0].weight for layers in self.members])

    def upper_worths(self, resolution: int, most: Most) -> tuple[FloatArray, float]:
        """Return (inputs,) worths and a constant, whose sum for a network is at least its accuracy.

        ``resolution`` is the index of the resolution of the networks. ``most`` returns the largest values of linear
        functions (functions, inputs) over these networks.
        """
        inputs = int(self._encoder.hot[-1][2][resolution])
        slopes, constant = np.zeros(self._encoder.inputs), 0.0
        for first, *others in self.members:
            at_resolution = Linear(first.weight, first.bias + first.weight[:, inputs])
            slope, offset = linear_upper_bound([at_resolution, *others], most)
            slopes += slope / len(self.members)
            constant += offset / len(self.members)
        return slopes, constant


def _listed(sizes: set[int]) -> str:
    return " and ".join(map(str, sorted(sizes)))
