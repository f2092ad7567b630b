"""The Pareto front of latency and accuracy.

One search per limit, from the tightest to the loosest, all with one evaluation cache: each search starts from what the
search before it found.
"""

import numpy as np

from ofa_nas.search.evaluation_cache import Evaluated
from ofa_nas.spaces.space import FloatArray, IntArray

LEVELS = 24


def levels(smallest: float, largest: float) -> list[float]:
    """Return limits at equal ratios, from just above ``smallest`` to ``largest``."""
    return [float(level) for level in np.geomspace(smallest, largest, LEVELS + 1)[1:]]


def front(known: Evaluated) -> Evaluated:
    """Return the networks that no other network dominates in the first metric and in accuracy, smallest first."""
    return known[undominated(known.prices[0], known.accuracy)]


def undominated(price: FloatArray, accuracy: FloatArray) -> IntArray:
    """Return the columns that are more accurate than every cheaper column, cheapest first."""
    order = np.lexsort((-accuracy, price))
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], accuracy[order][:-1]]))
    return order[accuracy[order] > best_before]
