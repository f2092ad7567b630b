"""MACs as a stand-in for accuracy."""

from functools import cached_property

import numpy as np

from ofa_nas.accuracy.relaxation import Most
from ofa_nas.spaces.gathers import Gather
from ofa_nas.spaces.space import FloatArray, Population, Space


class MacsStandIn:
    """Ranks networks by MACs. MACs are not an accuracy: more MACs are often, but not always, better."""

    name = "macs (a stand-in: ranks by multiply-accumulates, does not predict accuracy)"
    is_accuracy = False

    def __init__(self, space: Space) -> None:
        self.space = space

    @property
    def resolutions_px(self) -> tuple[int, ...]:
        return self.space.resolutions_px

    def __call__(self, population: Population) -> FloatArray:
        """Return (N,) MACs of one inference."""
        return self.space.macs(population)

    @property
    def features(self) -> tuple[Gather, ...]:
        """The features are the entries of the space."""
        return tuple((place.genes, place.radices, place.entries) for place in self.space.positions if place.genes)

    def worths(self, population: Population) -> tuple[FloatArray, FloatArray]:
        """Return (N,) MACs of the networks, and (N, entries + 1) MACs of the entries at their resolutions."""
        return self.space.macs(population), self._padded[population.genes[-1]]

    @cached_property
    def _padded(self) -> FloatArray:
        figures = self.space.figures(lambda block: block.macs)
        return np.concatenate([figures, np.zeros((len(figures), 1))], axis=1)

    @property
    def effects(self) -> FloatArray:
        """(1, entries): the entries differ by their MACs."""
        return self._padded[-1:, :-1]

    def upper_worths(self, resolution: int, most: Most) -> tuple[FloatArray, float]:
        """Return (entries,) worths and a constant, whose sum for a network at this resolution is its MACs."""
        worths = self._padded[resolution, :-1]
        return worths, float(sum(worths[place.entries[0]] for place in self.space.positions if not place.genes))
