"""The problem of a search: constraints, accuracy model, budget."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ofa_nas.accuracy.model import AccuracyModel, Differentiable
from ofa_nas.errors import LimitUnreachable, NoneFound
from ofa_nas.search.constraints import Metric
from ofa_nas.search.neighbours import descend
from ofa_nas.search.resolutions import LeftOut
from ofa_nas.spaces.space import FloatArray, Population, Space
from ofa_tables.errors import UsageError

# The evaluation cache keeps about 250 bytes for each network.
MOST_EVALUATIONS = 10_000_000

# The effort to find a network within all limits: how often the limits are weighted again, and from how many of the
# closest networks a descent starts.
WEIGHINGS = 200
DESCENTS = 8
ROUNDING = 1e-9


@dataclass(frozen=True)
class Problem:
    """The most accurate network of ``space`` within all limits, at one of ``resolutions_px``.

    ``limits`` has the upper limit of each of ``metrics``. ``left_out`` are resolutions with entries in a table that are
    not searched. ``free`` is the number of leading metrics without a user limit; their limits are the largest possible
    values. Raises UsageError for a limit that is not a positive number.
    """

    space: Space
    accuracy: AccuracyModel
    metrics: tuple[Metric, ...]
    limits: tuple[float, ...]
    resolutions_px: tuple[int, ...]
    left_out: tuple[LeftOut, ...] = ()
    free: int = 0

    def __post_init__(self) -> None:
        for metric, limit in zip(self.metrics, self.limits, strict=True):
            if not (0 < limit < math.inf):
                raise UsageError(f"{metric.flag} takes a positive number of {metric.unit}, not {limit:g}")

    @property
    def simulated(self) -> bool:
        """Whether a table was computed instead of measured."""
        return any(metric.model.simulated for metric in self.metrics if metric.model is not None)

    @property
    def is_additive(self) -> bool:
        """Whether the accuracy model has worths, and every limit is on a sum or on a peak."""
        return isinstance(self.accuracy, Differentiable) and all(each.is_peak or each.exact for each in self.metrics)

    def within(self, *limits: float) -> "Problem":
        """Return the same problem with other limits on the first metrics."""
        return replace(self, limits=(*limits, *self.limits[len(limits) :]))

    def predicted_ms(self, population: Population) -> FloatArray:
        """Return (N,) latencies in ms by the first table, even if the limit is on the upper end of the interval."""
        (model, *_) = (metric.model for metric in self.metrics if metric.model is not None)
        predicted: FloatArray = model.predict(population)
        return predicted

    def prices(self, population: Population) -> FloatArray:
        """Return (metrics, N) values of the metrics."""
        return np.stack([metric(population) for metric in self.metrics])

    def fits(self, prices: FloatArray) -> FloatArray:
        """Return (N,): whether ``prices`` (metrics, N) are within all limits."""
        return within(prices, np.array(self.limits)[:, None])

    def require_reachable(self) -> None:
        """Raise LimitUnreachable if it is proven that no network is within the limits."""
        _ = self._weighed

    def smallest(self) -> Population:
        """Return a network within all limits. With one limit, it has the smallest value of the metric.

        Raises LimitUnreachable if it is proven that there is none, and NoneFound if none was found.
        """
        return self._smallest

    @cached_property
    def _smallest(self) -> Population:
        *_, last = self._weighed
        if not self._excess(last)[0]:
            return last
        nearest = sorted(self._weighed, key=lambda network: float(self._excess(network)[0]))[:DESCENTS]
        ends = []
        for network in nearest:
            ends.append(descend(self.space, self.resolutions_px, network, self._excess, enough=0.0))
            if not self._excess(ends[-1])[0]:
                return ends[-1]
        over = min(float((self.prices(end)[:, 0] / self.limits).max()) for end in ends)
        raise NoneFound(
            f"no network of {self.where} was found within {self.limits_said}; the closest network is at "
            f"{over:.3f} × a limit; a network within the limits may still exist; raise a limit, allow smaller "
            "--resolutions, or, for a small space, try all networks with --method exhaustive"
        )

    def _excess(self, population: Population) -> FloatArray:
        """Return (N,) total excess over all limits, as fractions of the limits; 0 within the limits."""
        limits = np.array(self.limits)[:, None]
        beyond: FloatArray = (np.maximum(self.prices(population) - limits, 0) / limits).sum(axis=0)
        return beyond

    @cached_property
    def _weighed(self) -> list[Population]:
        """Networks that minimise a weighted sum of the metrics, each as a fraction of its limit.

        The weight of an exceeded limit increases for the next minimum. The networks are distinct. The last one is
        within all limits if any is.

        Each minimum is exact. If it is above the sum of the weights, no network meets all limits, and LimitUnreachable
        is raised.
        """
        self._require_each()
        sums = [at for at, metric in enumerate(self.metrics) if not metric.is_peak]
        constants = np.array([self.metrics[at].constant for at in sums])
        limits = np.array([self.limits[at] for at in sums]) - constants
        weights = np.ones(len(sums))
        met: dict[bytes, Population] = {}
        for _ in range(WEIGHINGS if len(sums) > 1 else 1):
            shares = [self.metrics[at].figures * each for at, each in zip(sums, weights / limits, strict=True)]
            least, network = self.space.pricer(np.sum(shares, axis=0) + self._barred).cheapest(self.resolutions_px)
            prices = self.prices(network)
            met.pop(network.genes.tobytes(), None)
            met[network.genes.tobytes()] = network
            if self.fits(prices).all():
                break
            if least > (1 + ROUNDING) * weights.sum():
                raise LimitUnreachable.together(self._limits, float((prices[:, 0] / self.limits).max()), self.where)
            weights = weights * ((prices[sums, 0] - constants) / limits) ** 2
            weights /= weights.max()
        return list(met.values())

    def _require_each(self) -> None:
        for metric, limit in zip(self.metrics, self.limits, strict=True):
            if not metric.bound(self.space, self.resolutions_px) <= limit:
                smallest = metric.smallest(self.space, self.resolutions_px)
                raise LimitUnreachable.alone(metric.name, metric.unit, metric.flag, limit, smallest, self.where)

    @property
    def _barred(self) -> FloatArray:
        """(resolutions, entries): infinite for an entry that exceeds a peak limit."""
        barred = np.zeros_like(self.metrics[0].figures)
        for metric, limit in zip(self.metrics, self.limits, strict=True):
            if metric.is_peak:
                barred[metric.figures > limit] = np.inf
        return barred

    @property
    def _limits(self) -> list[str]:
        limited = list(zip(self.metrics, self.limits, strict=True))[self.free :] or [(self.metrics[0], self.limits[0])]
        return [f"{limit:g} {metric.unit}" for metric, limit in limited]

    @property
    def limits_said(self) -> str:
        """The limits, as text for messages."""
        return " and ".join(self._limits) + (" together" if len(self._limits) > 1 else "")

    @property
    def where(self) -> str:
        """The Space and its resolutions, as text for messages."""
        return f"{self.space.name} at {', '.join(map(str, self.resolutions_px))} px"


def within(prices: FloatArray, limits: FloatArray) -> FloatArray:
    """Return (N,): whether ``prices`` (metrics, N) are within ``limits`` (metrics, N or 1)."""
    fits: FloatArray = np.all(prices <= limits, axis=0)
    return fits


@dataclass(frozen=True)
class Budget:
    """The budget of a search. A method without generations tries the same number of networks.

    ``seconds`` is a time limit. Raises UsageError if the budget exceeds the evaluation cache.
    """

    population: int = 100
    generations: int = 500
    seconds: float = math.inf

    def __post_init__(self) -> None:
        self.of(1)

    @property
    def evaluations(self) -> int:
        return self.population * (self.generations + 1)

    def of(self, limits: int) -> int:
        """Return the evaluations for this number of limits. Raises UsageError if they exceed the evaluation cache."""
        if limits * self.evaluations > MOST_EVALUATIONS:
            searches = f", for each of {limits} limits," if limits > 1 else ""
            raise UsageError(
                f"{self.generations:,} generations of {self.population:,}{searches} are more than the "
                f"{MOST_EVALUATIONS:,} networks that a search can store; use smaller --generations or "
                "--population"
            )
        return limits * self.evaluations
