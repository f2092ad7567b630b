"""Offspring: new networks from others, many at once, gene by gene."""

import numpy as np

from ofa_nas.search.problem import Problem, within
from ofa_nas.spaces.space import FloatArray, IntArray, Population, Space


class Variation:
    """Of the networks of a Problem, whatever its limits are."""

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        self._problem = problem
        self._space = problem.space
        self._rng = rng
        self._place_of = places(problem.space)
        self._places = int(self._place_of[-1]) + 1
        # The rows of each place, the first one again where it has fewer than others; and what each gene may hold.
        of_each = [np.flatnonzero(self._place_of == place) for place in range(self._places)]
        self._rows_of = np.array([np.resize(rows, max(map(len, of_each))) for rows in of_each]).T
        self._counts = problem.space.radices.copy()
        self._choices = np.tile(np.arange(max(self._counts), dtype=np.uint8), (len(self._counts), 1))
        resolutions = problem.space.resolution_indices(problem.resolutions_px)
        self._counts[-1] = len(resolutions)
        self._choices[-1, : len(resolutions)] = resolutions

    def newcomers(self, count: int) -> Population:
        """From the smallest to the largest networks."""
        return self._space.sample_spread(count, self._rng, self._problem.resolutions_px)

    def neighbours(self, parents: Population) -> Population:
        """One child per parent, redrawn at one place."""
        place = self._rng.integers(self._places, size=len(parents))
        return self._drawn_anew(parents, self._rows_of[:, place], np.arange(len(parents)))

    def mutants(self, parents: Population, chance: float, resolution_chance: float) -> Population:
        """One child per parent, redrawn at each place with this probability."""
        chances = np.full((self._places, 1), chance)
        chances[-1] = resolution_chance
        where = (self._rng.random((self._places, len(parents))) < chances)[self._place_of]
        return self._drawn_anew(parents, *np.nonzero(where))

    def mixed(self, first: Population, second: Population, chances: FloatArray) -> Population:
        """Each place from the second of two parents with the pair's chance (N,), else from the first."""
        where = (self._rng.random((self._places, len(first))) < chances)[self._place_of]
        return Population(np.where(where, second.genes, first.genes))

    def crossovers(self, first: Population, second: Population) -> Population:
        """Each gene from one of two parents."""
        where = self._rng.integers(2, size=first.genes.shape, dtype=bool)
        return Population(np.where(where, first.genes, second.genes))

    def repaired(
        self, children: Population, anchors: Population, limits: FloatArray, last: IntArray | None = None
    ) -> Population:
        """Repair the children that exceed their ``limits`` (metrics, N): they take genes from their feasible anchors
        until they are feasible, in random order, genes for which ``last`` (genes, N) is true last."""
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

    def _drawn_anew(self, parents: Population, rows: IntArray, columns: IntArray) -> Population:
        """Uniform over what the genes at these rows and columns may hold."""
        genes = parents.genes.copy()
        genes[rows, columns] = self._choices[rows, (self._rng.random(rows.shape) * self._counts[rows]).astype(int)]
        return Population(genes)


def places(space: Space) -> IntArray:
    """(genes,) the place at which each gene stands; the resolution has the last one.

    Groups of as many genes share their places: a block's kernel size and expand ratio are drawn together.
    """
    first_of: dict[int, int] = {}
    place_of: list[int] = []
    count = 0
    for group in space.groups[:-1]:
        if group.count not in first_of:
            first_of[group.count] = count
            count += group.count
        place_of += range(first_of[group.count], first_of[group.count] + group.count)
    return np.array([*place_of, count])
