"""Find the exact minimum of a sum of functions of few genes each, by variable elimination."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

IntArray = np.ndarray[Any, np.dtype[Any]]
FloatArray = np.ndarray[Any, np.dtype[Any]]
Factor = tuple[tuple[int, ...], FloatArray]


def least_sums(factors: Sequence[Factor]) -> tuple[FloatArray, dict[int, IntArray]]:
    """Minimise the sum of ``factors`` for every resolution. Returns the minima, and the choice of each gene.

    Each factor is (genes, table). The table has one axis for the resolutions, then one axis per gene for its choices.
    The genes are eliminated one by one (nonserial dynamic programming: Bertelè and Brioschi, 1972).
    """
    left, eliminated = list(factors), []
    radix_of = {row: radix for rows, grid in factors for row, radix in zip(rows, grid.shape[1:], strict=True)}
    for row, beside in _elimination(tuple(rows for rows, _ in factors), tuple(radix_of.items())):
        rows = (*beside, row)
        joined: Any = 0.0
        for own, grid in left:
            if row in own:
                order = [1 + own.index(each) for each in rows if each in own]
                shape = [radix_of[each] if each in own else 1 for each in rows]
                joined = joined + grid.transpose(0, *order).reshape(len(grid), *shape)
        left = [(own, grid) for own, grid in left if row not in own]
        left.append((beside, joined.min(axis=-1)))
        eliminated.append((row, beside, joined.argmin(axis=-1)))
    choice: dict[int, IntArray] = {}
    for row, beside, best in reversed(eliminated):
        choice[row] = best[(np.arange(len(best)), *(choice[other] for other in beside))]
    return sum((grid for _, grid in left), np.zeros(1)), choice


@lru_cache(maxsize=64)
def _elimination(
    factors: tuple[tuple[int, ...], ...], radices: tuple[tuple[int, int], ...]
) -> list[tuple[int, tuple[int, ...]]]:
    """Return the order of elimination, and the genes of the grid that each step leaves.

    The order is greedy: the next gene is the one with the smallest grid.
    """
    radix_of, left, order = dict(radices), [frozenset(rows) for rows in factors], []
    while any(left):
        beside = {row: frozenset().union(*(rows for rows in left if row in rows)) - {row} for row in radix_of}
        row = min(radix_of, key=lambda row: (math.prod(radix_of[other] for other in beside[row]), row))
        left = [rows for rows in left if row not in rows] + [beside[row]]
        order.append((row, tuple(sorted(beside[row]))))
        del radix_of[row]
    return order
