"""What is asked: the most accurate network within limits; and how much may be tried to find it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from ofa_nas.accuracy.model import AccuracyModel, require_resolutions
from ofa_nas.errors import LimitUnreachable
from ofa_nas.search.meters import Meter
from ofa_nas.spaces.space import FloatArray, Population, Space
from ofa_tables.errors import UsageError
from ofa_tables.model import LatencyModel

# The ledger keeps about 250 bytes for each network.
MOST_EVALUATIONS = 10_000_000

# So often are the limits weighed anew before it is said that no network meets all of them.
WEIGHINGS = 200


@dataclass(frozen=True)
class Problem:
    """The most accurate network of ``space`` within all limits, at one of ``resolutions_px``.

    ``meters`` say what the limits are on, ``limits`` how high each may be. Raises UsageError for a limit that is no
    positive number.
    """

    space: Space
    accuracy: AccuracyModel
    meters: tuple[Meter, ...]
    limits: tuple[float, ...]
    resolutions_px: tuple[int, ...]

    def __post_init__(self) -> None:
        for meter, limit in zip(self.meters, self.limits, strict=True):
            if not (0 < limit < math.inf):
                raise UsageError(f"{meter.flag} takes a positive number of {meter.unit}, not {limit:g}")

    def within(self, *limits: float) -> "Problem":
        """The same with other limits on the first meters."""
        return replace(self, limits=(*limits, *self.limits[len(limits) :]))

    def predicted_ms(self, population: Population) -> FloatArray:
        """(N,) latencies by the first table, whether the limit is on them or on their intervals' ends."""
        (model, *_) = (meter.model for meter in self.meters if meter.model is not None)
        predicted: FloatArray = model.predict(population)
        return predicted

    def prices(self, population: Population) -> FloatArray:
        """(meters, N)."""
        return np.stack([meter(population) for meter in self.meters])

    def fits(self, prices: FloatArray) -> FloatArray:
        """(N,): whether ``prices`` (meters, N) are within all limits."""
        return within(prices, np.array(self.limits)[:, None])

    def smallest(self) -> Population:
        """A network within all limits; of one limit, the one with the smallest figure there is.

        Of several, their sum, each in parts of its limit, is minimised exactly; a limit that is not met weighs more
        the next time. Where even the smallest sum is above the weights', no network meets all of them. Raises
        LimitUnreachable.
        """
        for meter, limit in zip(self.meters, self.limits, strict=True):
            smallest = meter.smallest(self.space, self.resolutions_px)
            if not smallest <= limit:
                raise LimitUnreachable.alone(meter.name, meter.unit, meter.flag, limit, smallest, self._where)
        sums = [at for at, meter in enumerate(self.meters) if not meter.is_peak]
        barred = np.zeros_like(self.meters[0].figures)
        for meter, limit in zip(self.meters, self.limits, strict=True):
            if meter.is_peak:
                barred[meter.figures > limit] = np.inf
        limits = np.array([self.limits[at] - self.meters[at].constant for at in sums])
        weights = np.ones(len(sums))
        network = self.space.pricer(barred).cheapest(self.resolutions_px)[1]
        for _ in range(WEIGHINGS if sums else 0):
            shares = [
                self.meters[at].figures * (weight / limit)
                for at, weight, limit in zip(sums, weights, limits, strict=True)
            ]
            least, network = self.space.pricer(np.sum(shares, axis=0) + barred).cheapest(self.resolutions_px)
            prices = self.prices(network)
            if self.fits(prices).all() or least > weights.sum():
                break
            weights = weights * ((prices[sums, 0] - [self.meters[at].constant for at in sums]) / limits) ** 2
            weights /= weights.max()
        prices = self.prices(network)
        if not self.fits(prices).all():
            raise LimitUnreachable.together(
                [f"{limit:g} {meter.unit}" for meter, limit in zip(self.meters, self.limits, strict=True)],
                float((prices[:, 0] / self.limits).max()),
                self._where,
            )
        return network

    @property
    def _where(self) -> str:
        return f"{self.space.name} at {', '.join(map(str, self.resolutions_px))} px"


def within(prices: FloatArray, limits: FloatArray) -> FloatArray:
    """(N,): whether ``prices`` (meters, N) are within ``limits`` (meters, N or 1)."""
    fits: FloatArray = np.all(prices <= limits, axis=0)
    return fits


def usable_resolutions(
    models: Iterable[LatencyModel], accuracy: AccuracyModel, wanted_px: Iterable[int] | None = None
) -> tuple[int, ...]:
    """The wanted resolutions, or all that the tables have whole and the accuracy model knows.

    Raises EntriesMissing where a table lacks entries, UsageError where the accuracy model does not know one.
    """
    models = list(models)
    if wanted_px is not None:
        resolutions_px = tuple(wanted_px)
        for model in models:
            model.require(resolutions_px)
        require_resolutions(accuracy, resolutions_px)
        return resolutions_px
    of_each = [model.require(None) for model in models]
    measured = [px for px in of_each[0] if all(px in others for others in of_each)]
    if not measured:
        raise UsageError(
            "the tables have no resolution in common; "
            + ", ".join(f"{m.table.path} has {', '.join(map(str, px))}" for m, px in zip(models, of_each, strict=True))
        )
    common = tuple(px for px in measured if px in accuracy.resolutions_px)
    if not common:
        require_resolutions(accuracy, measured)
    return common


@dataclass(frozen=True)
class Budget:
    """How much may be tried; a method without generations tries as many networks. Raises UsageError.

    ``seconds``: it ends when they are over.
    """

    population: int = 100
    generations: int = 500
    seconds: float = math.inf

    def __post_init__(self) -> None:
        if self.evaluations > MOST_EVALUATIONS:
            raise UsageError(
                f"{self.generations:,} generations of {self.population:,} are more than the {MOST_EVALUATIONS:,} "
                "networks that a search can remember; choose smaller --generations or --population"
            )

    @property
    def evaluations(self) -> int:
        return self.population * (self.generations + 1)
