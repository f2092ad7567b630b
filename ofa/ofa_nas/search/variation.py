"""Offspring: new networks from others, many at once, gene by gene."""

import numpy as np

from ofa_nas.search.problem import Problem, within
from ofa_nas.spaces.space import FloatArray, IntArray, Population, Space


class Variation:
    """Makes offspring for the space and resolutions of a Problem; only ``repaired`` uses limits."""

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        self._problem = problem
        self._space = problem.space
        self._rng = rng
        self._place_of = places(problem.space)
        self._places = int(self._place_of[-1]) + 1
        # The rows of each place, repeated up to the size of the largest place; and the allowed choices of each gene.
        of_each = [np.flatnonzero(self._place_of == place) for place in range(self._places)]
        self._rows_of = np.array([np.resize(rows, max(map(len, of_each))) for rows in of_each]).T
        self._counts = problem.space.radices.copy()
        self._choices = np.tile(np.arange(max(self._counts), dtype=np.uint8), (len(self._counts), 1))
        resolutions = problem.space.resolution_indices(problem.resolutions_px)
        self._counts[-1] = len(resolutions)
        self._choices[-1, : len(resolutions)] = resolutions

    def newcomers(self, count: int) -> Population:
        """Draw random networks, from the smallest to the largest."""
        return self._space.sample_spread(count, self._rng, self._problem.resolutions_px)

    def neighbours(self, parents: Population) -> Population:
        """Make one child per parent, redrawn at one place."""
        place = self._rng.integers(self._places, size=len(parents))
        return self._redrawn(parents, self._rows_of[:, place], np.arange(len(parents)))

    def mutants(self, parents: Population, chance: float, resolution_chance: float) -> Population:
        """Make one child per parent, redrawn at each place with probability ``chance``."""
        chances = np.full((self._places, 1), chance)
        chances[-1] = resolution_chance
        where = (self._rng.random((self._places, len(parents))) < chances)[self._place_of]
        return self._redrawn(parents, *np.nonzero(where))

    def mixed(self, first: Population, second: Population, chances: FloatArray) -> Population:
        """Combine pairs: a place is from the second parent with probability ``chances`` (N,), else from the first."""
        where = (self._rng.random((self._places, len(first))) < chances)[self._place_of]
        return Population(np.where(where, second.genes, first.genes))

    def crossovers(self, first: Population, second: Population) -> Population:
        """Take each gene from either parent at random."""
        where = self._rng.integers(2, size=first.genes.shape, dtype=bool)
        return Population(np.where(where, first.genes, second.genes))

    def repaired(
        self, children: Population, anchors: Population, limits: FloatArray, last: IntArray | None = None
    ) -> Population:
        """Repair the children that exceed their ``limits`` (metrics, N).

        They take genes from their feasible anchors, in random order, until they are feasible. Genes for which ``last``
        (genes, N) is true come last.
        """
        beyond = np.flatnonzero(~within(self._problem.prices(children), limits))
        if not len(beyond):
            return children
        genes, others, limits = children.genes[:, beyond], anchors.genes[:, beyond], limits[:, beyond]
        differs = genes != others
        turn = self._rng.random(genes.shape) + 2.0 * ~differs
        if last is not None:
            turn += last[:, beyond]
        order = np.argsort(turn, axis=0)
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(len(genes))[:, None], axis=0)
        few, enough = np.zeros(len(beyond), dtype=int), differs.sum(axis=0)
        while (enough - few > 1).any():
            half = (few + enough) // 2
            fits = within(self._problem.prices(Population(np.where(rank < half, others, genes))), limits)
            few, enough = np.where(fits, few, half), np.where(fits, half, enough)
        whole = children.genes.copy()
        whole[:, beyond] = np.where(rank < enough, others, genes)
        return Population(whole)

    def _redrawn(self, parents: Population, rows: IntArray, columns: IntArray) -> Population:
        """Redraw the genes at these rows and columns, uniformly over their allowed choices."""
        genes = parents.genes.copy()
        genes[rows, columns] = self._choices[rows, (self._rng.random(rows.shape) * self._counts[rows]).astype(int)]
        return Population(genes)


def places(space: Space) -> IntArray:
    """Return (genes,) the place of each gene. The last place is the resolution.

    Groups of the same blocks share places: kernel size and expand ratio of a block are drawn together.
    """
    first_of: dict[int | str, int] = {}
    place_of: list[int] = []
    count = 0
    for group in space.groups[:-1]:
        shared = group.count if space.groups_share_blocks else group.name
        if shared not in first_of:
            first_of[shared] = count
            count += group.count
        place_of += range(first_of[shared], first_of[shared] + group.count)
    return np.array([*place_of, count])
