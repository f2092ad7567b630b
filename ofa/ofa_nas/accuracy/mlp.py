"""An MLP with ReLU, or an ensemble of MLPs, over one-hot choices."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ofa_nas.accuracy.encoding import find_encoder
from ofa_nas.accuracy.layers import CHUNK, Linear, forward, gradient
from ofa_nas.accuracy.relaxation import Most, linear_upper_bound
from ofa_nas.spaces.gathers import Gather
from ofa_nas.spaces.space import FloatArray, IntArray, Population, Space
from ofa_tables.errors import FileError


class Mlp:
    """Predicts top-1 accuracy, 0…1, of the networks of one Space: the mean over the members.

    The number of inputs determines the encoding. ``name`` is the file name, for messages. Raises FileError if a member
    does not have one output, if members differ in their inputs, or if the Space has no encoding of this size.
    """

    is_accuracy = True
    chunk = 1 << 12  # rows at a time

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
        self._seen = _Seen(np.empty(0, dtype=np.int64), np.empty(0), [[] for _ in self.members])  # of the last call

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
            self._seen = self._evaluated(population[piece])
            accuracy[piece] = self._seen.accuracy
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
        rows, there = self._seen.find(population)
        others = np.flatnonzero(~there)
        parts = [(np.flatnonzero(there), self._seen, rows[there])]
        for start in range(0, len(others), self.chunk):
            which = others[start : start + self.chunk]
            parts.append((which, self._evaluated(population[which]), np.arange(len(which))))
        for which, seen, own in parts:
            accuracy[which] = seen.accuracy[own]
            for start in range(0, len(which), CHUNK):
                piece, rows = which[start : start + CHUNK], own[start : start + CHUNK]
                for layers, active in zip(self.members, seen.active, strict=True):
                    slopes[piece, :-1] += gradient(layers, [on[rows] for on in active])
        if len(self.members) > 1:
            slopes /= len(self.members)
        return accuracy, slopes

    def _evaluated(self, population: Population) -> "_Seen":
        inputs = self._encoder(population)
        accuracy = np.zeros(len(population), dtype=np.float32)
        units = [[len(layer.bias) for layer in layers[:-1]] for layers in self.members]
        active = [[np.empty((len(population), count), dtype=bool) for count in counts] for counts in units]
        for layers, of_member in zip(self.members, active, strict=True):
            accuracy += forward(layers, inputs, of_member)
        if len(self.members) > 1:
            accuracy /= len(self.members)
        return _Seen(keys_of(population), accuracy, active)

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


@dataclass(frozen=True)
class _Seen:
    """Networks with their accuracies (N,), and which units (N, units) of each hidden layer of each member are active.

    A gradient needs no second forward pass for them. ``keys`` identify the networks.
    """

    keys: IntArray
    accuracy: FloatArray
    active: Sequence[Sequence[IntArray]]

    @cached_property
    def _order(self) -> IntArray:
        return np.argsort(self.keys)

    def find(self, population: Population) -> tuple[IntArray, IntArray]:
        """Return (N,) the rows of these networks, and whether they are there."""
        if not len(self.keys):
            return np.zeros(len(population), dtype=int), np.zeros(len(population), dtype=bool)
        keys = keys_of(population)
        at = np.searchsorted(self.keys, keys, sorter=self._order)
        rows = self._order[np.minimum(at, len(self.keys) - 1)]
        return rows, self.keys[rows] == keys


def keys_of(population: Population) -> IntArray:
    """Return (N,) random numbers, equal for equal genes."""
    halves = _factors(len(population.genes)) @ population.genes.astype(np.float64)  # exact; BLAS has no integers
    low, high = halves.astype(np.int64)
    keys: IntArray = low ^ (high << 22)
    return keys


@lru_cache(maxsize=8)
def _factors(genes: int) -> FloatArray:
    return np.random.default_rng(0).integers(1 << 40, size=(2, genes)).astype(np.float64)


def _listed(sizes: set[int]) -> str:
    return " and ".join(map(str, sorted(sizes)))
