"""Exchanges: changes of one option of a network, or of one shared gene with the options that depend on it.

The worths of a network predict what an exchange adds to its accuracy. Its score is this gain, less the price of what it
takes of the limits. Exchanges are drawn with probability ∝ exp(score / temperature). These are locally informed
proposals (Zanella, Journal of the American Statistical Association 2020; by gradients: Grathwohl et al., ICML 2021).
Further exchanges compensate for one that exceeds a limit.
"""

from dataclasses import dataclass, fields

import numpy as np

from ofa_nas.search.knapsack import Knapsacks, joined
from ofa_nas.search.options import IMPOSSIBLE, picked
from ofa_nas.spaces.space import FloatArray, IntArray, Population

COMPENSATIONS = 3
ROUNDING = 1e-6
LARGEST_EXPONENT = 80.0  # of float32


@dataclass(frozen=True)
class Guide:
    """What N networks know: worths (options, N), and for the limits, prices (N,) and ratios (limits, N) of prices.

    ``limits`` is (metrics, N).
    """

    worths: FloatArray
    limits: FloatArray
    prices: FloatArray
    ratios: FloatArray

    def __getitem__(self, which: IntArray) -> "Guide":
        return Guide(*(getattr(self, each.name).take(which, axis=-1) for each in fields(self)))


@dataclass(frozen=True)
class Exchanges:
    """The exchanges of N networks.

    ``weights`` (exchanges, N) are proportional to their probabilities, ``cumulated`` (exchanges, N) their sums, and
    ``none`` (N,) is the weight of no exchange. ``costs`` (limits, exchanges, N) are parts of the limits, ``slack``
    (limits, N) what is left of them. ``chosen`` (slots, N) are the options, ``best`` (sets, N) the best ones of sets.
    """

    weights: FloatArray
    cumulated: FloatArray
    none: FloatArray
    costs: FloatArray
    slack: FloatArray
    chosen: IntArray
    best: IntArray

    def replace(self, which: IntArray, others: "Exchanges") -> None:
        """Replace the exchanges of these networks, in place."""
        for each in fields(self):
            getattr(self, each.name)[..., which] = getattr(others, each.name)


class Exchanger:
    """Computes, draws and applies exchanges."""

    def __init__(self, knapsacks: Knapsacks, rng: np.random.Generator) -> None:
        self._knapsacks = knapsacks
        self._rng = rng
        self._options = options = knapsacks.options
        touched = np.zeros((len(options) + len(options.choices), options.slots), dtype=np.float32)
        touched[np.arange(len(options)), options.slot_of] = 1
        touched[len(options) :] = options.touched.reshape(-1, options.slots)
        self._conflicts: IntArray = touched @ touched.T > 0

    def typical_score(self, population: Population, guide: Guide) -> float:
        """Return the median of the absolute scores."""
        scores = np.abs(self._scored(population, guide)[0])
        real = scores[(scores > 0) & (scores < -IMPOSSIBLE / 2)]
        return float(np.median(real)) if len(real) else 0.0

    def of(self, population: Population, guide: Guide, temperature: float) -> Exchanges:
        """Return the exchanges of networks, to be drawn at this temperature, in the unit of the accuracy."""
        scores, costs, slack, chosen, best = self._scored(population, guide)
        most = scores.max(axis=0)
        scores -= most
        scores /= np.float32(temperature)
        weights = np.exp(scores, out=scores)
        none = np.exp(np.minimum(-most / temperature, LARGEST_EXPONENT)).astype(np.float32)
        return Exchanges(weights, weights.cumsum(axis=0), none, costs, slack, chosen, best)

    def proposed(self, exchanges: Exchanges, population: Population) -> Population:
        """Draw an exchange for each network, and others that compensate for it. Limits may still be exceeded."""
        networks = np.arange(len(population))
        first, _ = self._draw(exchanges.cumulated, np.zeros(len(population), dtype=np.float32))
        drawn = [(networks, first)]
        used = exchanges.costs[:, first, networks]
        blocked = self._conflicts[:, first]
        slack = exchanges.slack + ROUNDING
        which = networks  # any exchange may be followed by a second one
        for _ in range(COMPENSATIONS):
            weights, costs, none = exchanges.weights, exchanges.costs, exchanges.none
            if len(which) < len(networks):
                weights, costs, none = weights[:, which], costs[:, :, which], none[which]
            left = slack[:, which] - used[:, which]
            over = (left < 0).any(axis=0)
            free = weights * ~blocked[:, which]
            fitting = free * (costs <= left[:, None]).all(axis=0)
            stuck = np.flatnonzero(over & ~fitting.any(axis=0))
            if len(stuck):  # no exchange is enough; take one that helps
                fitting[:, stuck] = free[:, stuck] * (costs[:, :, stuck].sum(axis=0) < 0)
            other, is_none = self._draw(fitting.cumsum(axis=0), np.where(over, np.float32(0), none))
            taken = np.flatnonzero(~is_none)
            at, other = which[taken], other[taken]
            drawn.append((at, other))
            used[:, at] += exchanges.costs[:, other, at]
            which = at[(used[:, at] > slack[:, at]).any(axis=0)]
            if not len(which):
                break
            blocked[:, which] |= self._conflicts[:, other[np.isin(at, which)]]
        return self.applied(exchanges, population, drawn)

    def applied(
        self, exchanges: Exchanges, population: Population, drawn: list[tuple[IntArray, IntArray]]
    ) -> Population:
        """Apply ``drawn`` exchanges one after the other: indices of networks, and of an exchange for each."""
        options = self._options
        chosen, shared = exchanges.chosen.copy(), population.genes[options.shared].copy()
        for networks, rows in drawn:
            of_shared = rows >= len(options)
            at = networks[of_shared]
            if len(at):
                gene, value = options.choices[rows[of_shared] - len(options)].T
                shared[gene, at] = value
                sets = options.sets_at(shared[:, at])
                own = chosen[:, at]
                chosen[:, at] = np.where(sets != options.set_of_option[own], picked(exchanges.best[:, at], sets), own)
            at, rows = networks[~of_shared], rows[~of_shared]
            chosen[options.slot_of[rows], at] = rows
        return options.networks(chosen, shared, population.genes[-1])

    def _scored(
        self, population: Population, guide: Guide
    ) -> tuple[FloatArray, FloatArray, FloatArray, IntArray, IntArray]:
        """Return scores (exchanges, N), and the costs, slack, chosen and best options of ``Exchanges``."""
        options, networks, slot_of = self._options, np.arange(len(population)), self._options.slot_of
        chosen, resolutions = options.chosen(population), population.genes[-1]
        all_costs = self._knapsacks.relative(resolutions, guide.limits)
        own_costs = np.stack([picked(cost, chosen) for cost in all_costs])
        scores = joined(all_costs, guide.ratios)
        scores *= guide.prices.astype(np.float32)
        np.subtract(guide.worths, scores, out=scores)
        barred = self._knapsacks.barred(resolutions)
        if barred is not None:
            scores += barred
        own_scores, sets = picked(scores, chosen), options.set_of_option[chosen]
        best_scores, best = options.best_in_sets(scores)
        best_costs = [picked(cost, best) for cost in all_costs]
        of_shared, *costs_of_shared = options.added(
            population.genes[options.shared], [best_scores, *best_costs], [own_scores, *own_costs]
        )
        scores -= own_scores[slot_of]
        scores[sets[slot_of] != options.set_of_option[:, None]] = IMPOSSIBLE
        scores[chosen, networks] = IMPOSSIBLE
        all_costs -= own_costs[:, slot_of]
        return (
            np.concatenate([scores, of_shared]),
            np.concatenate([all_costs, np.stack(costs_of_shared)], axis=1),
            1 - own_costs.sum(axis=1),
            chosen,
            best,
        )

    def _draw(self, cumulated: FloatArray, none: FloatArray) -> tuple[IntArray, IntArray]:
        """Return (N,) rows, drawn by ``cumulated`` weights (rows, N), and whether none was, by the weights ``none``."""
        total = cumulated[-1]
        at = self._rng.random(len(total), dtype=np.float32) * (total + none)
        rows = np.count_nonzero(cumulated <= at, axis=0)
        return np.minimum(rows, len(cumulated) - 1), at >= total
