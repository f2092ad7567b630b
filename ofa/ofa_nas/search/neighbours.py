"""Networks that differ in one or two genes, and descent among them."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from ofa_nas.spaces.space import FloatArray, IntArray, Population, Space


def changes(space: Space, resolutions_px: Sequence[int], genes: IntArray) -> tuple[IntArray, IntArray]:
    """Return (changes,) rows of genes, and the other value that each can take."""
    rows = np.repeat(np.arange(len(space.radices)), space.radices)
    values = np.concatenate([np.arange(radix) for radix in space.radices])
    allowed = np.isin(values, space.resolution_indices(resolutions_px)) | (rows < len(space.radices) - 1)
    other = allowed & (values != genes[rows])
    return rows[other], values[other]


@lru_cache(maxsize=8)
def pairs(count: int) -> tuple[IntArray, IntArray]:
    """Return (pairs,) first and second indices of all pairs of ``count`` changes."""
    first, second = np.triu_indices(count, 1)
    return first, second


def changed(network: Population, rows: IntArray, values: IntArray) -> Population:
    """Apply each row of changes, (networks, changed genes), to the network."""
    genes = np.repeat(network.genes, len(rows), axis=1)
    genes[rows, np.arange(len(rows))[:, None]] = values
    return Population(genes)


def descend(
    space: Space,
    resolutions_px: Sequence[int],
    network: Population,
    cost: Callable[[Population], FloatArray],
    enough: float = -np.inf,
) -> Population:
    """Descend to a network that no change of one or two genes improves.

    Stops early at the first network with a cost of at most ``enough``.
    """
    least = float(cost(network)[0])
    while least > enough:
        rows, values = changes(space, resolutions_px, network.genes[:, 0])
        there, costs = _least(changed(network, rows[:, None], values[:, None]), cost)
        if not costs < least:
            both = np.stack(pairs(len(rows)), axis=1)
            both = both[rows[both[:, 0]] != rows[both[:, 1]]]
            there, costs = _least(changed(network, rows[both], values[both]), cost)
        if not costs < least:
            break
        network, least = there, costs
    return network


def _least(networks: Population, cost: Callable[[Population], FloatArray]) -> tuple[Population, float]:
    if not len(networks):
        return networks, np.inf
    costs = cost(networks)
    at = int(np.argmin(costs))
    return networks[[at]], float(costs[at])
