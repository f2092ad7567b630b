"""The exact solution of one knapsack, by dynamic programming over undominated sums.

Slots that share genes form a part. The undominated (cost, worth) pairs of each part are combined one part after the
other. A pair is dropped if a cheaper one is worth more, or if even the bound of the remaining parts at a given price
does not reach a known solution (Pisinger, European Journal of Operational Research 1995).
"""

import math
from dataclasses import dataclass

import numpy as np

from ofa_nas.search.options import Options
from ofa_nas.spaces.space import FloatArray, IntArray, Population

MOST_PAIRS = 300_000
ROUNDING = 1e-12


@dataclass(frozen=True)
class _Pairs:
    """Undominated costs and worths, each with the index of the pair before it and of the pair of the own part."""

    costs: FloatArray
    worths: FloatArray
    before: IntArray
    own: IntArray

    def __getitem__(self, which: IntArray) -> "_Pairs":
        return _Pairs(self.costs[which], self.worths[which], self.before[which], self.own[which])


def solve_exactly(
    options: Options, worths: FloatArray, costs: FloatArray, room: float, resolution: int, price: float, known: float
) -> tuple[float, Population] | None:
    """Return the largest sum of ``worths`` (options,) whose costs are at most ``room``, and a network that has it.

    ``price`` is worth per cost; any price is valid, a good one makes it fast. Only sums of at least ``known`` are
    searched. Returns (−∞, no network) if there is none, and None if there are too many pairs.
    """
    parts = [_undominated_of(options, slots, shared, worths, costs) for slots, shared in options.parts()]
    if any(part is None for part in parts):
        return None
    tables = [part for part in parts if part is not None]
    rest = np.cumsum([float((table.worths - price * table.costs).max()) for table, _ in reversed(tables)])[::-1]
    least = np.cumsum([float(table.costs.min()) for table, _ in reversed(tables)])[::-1]
    slack = ROUNDING * (1 + abs(known))
    states, last = [], _Pairs(np.zeros(1), np.zeros(1), np.zeros(1, dtype=int), np.zeros(1, dtype=int))
    for at, (table, _) in enumerate(tables):
        if len(last.costs) * len(table.costs) > 20 * MOST_PAIRS:
            return None
        before, own = (each.ravel() for each in np.indices((len(last.costs), len(table.costs))))
        both = _Pairs(last.costs[before] + table.costs[own], last.worths[before] + table.worths[own], before, own)
        is_last = at + 1 == len(tables)
        bound = both.worths + (0.0 if is_last else rest[at + 1] + price * (room - both.costs))
        cheapest = both.costs + (0.0 if is_last else least[at + 1])
        last = _undominated(both[np.flatnonzero((bound >= known - slack) & (cheapest <= room))])
        if not len(last.costs):
            return -math.inf, Population(np.zeros((len(options.space.radices), 0), dtype=np.uint8))
        if len(last.costs) > MOST_PAIRS:
            return None
        states.append(last)
    at = int(last.worths.argmax())
    chosen, shared = np.zeros((options.slots, 1), dtype=int), np.zeros((len(options.shared), 1), dtype=int)
    value = float(last.worths[at])
    for (slots, rows), (_, picks), state in zip(
        reversed(list(options.parts())), reversed(tables), reversed(states), strict=True
    ):
        pick = picks[int(state.own[at])]
        chosen[slots, 0] = pick[len(rows) :]
        shared[[options.shared.index(row) for row in rows], 0] = pick[: len(rows)]
        at = int(state.before[at])
    return value, options.networks(chosen, shared, np.array([resolution]))


def _undominated_of(
    options: Options, slots: list[int], shared: tuple[int, ...], worths: FloatArray, costs: FloatArray
) -> tuple[_Pairs, IntArray] | None:
    """Return the undominated pairs of a part, and for each its shared genes and options; None if there are too many."""
    found: list[tuple[_Pairs, IntArray]] = []
    for choice, sets in options.sets_of(slots, shared):
        if len(found) > MOST_PAIRS or math.prod(map(len, sets)) > MOST_PAIRS:
            return None
        combined = np.stack([each.ravel() for each in np.meshgrid(*sets, indexing="ij")])
        pairs = _Pairs(costs[combined].sum(axis=0), worths[combined].sum(axis=0), *[np.arange(combined.shape[1])] * 2)
        kept = _undominated(pairs)
        picks = np.vstack(
            [np.repeat(np.array(choice, dtype=int)[:, None], len(kept.own), axis=1), combined[:, kept.own]]
        )
        found.append((kept, picks))
    costs, worths = (np.concatenate([getattr(pairs, name) for pairs, _ in found]) for name in ("costs", "worths"))
    whole = _undominated(_Pairs(costs, worths, *[np.arange(len(costs))] * 2))
    return whole, np.concatenate([picks for _, picks in found], axis=1).T[whole.own]


def _undominated(pairs: _Pairs) -> _Pairs:
    order = np.lexsort((-pairs.worths, pairs.costs))
    worths = pairs.worths[order]
    before = np.maximum.accumulate(np.concatenate([[-np.inf], worths[:-1]]))
    return pairs[order[worths > before]]
