"""Metrics that a limit can constrain."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ofa_agent.operators import PRECISIONS, Add, AvgPool, Block, Conv, Linear, MaxPool, Pool, Take, product
from ofa_nas.search.neighbours import descend
from ofa_nas.spaces.space import ABSENT, FloatArray, Population, Space
from ofa_tables.errors import EntriesMissing
from ofa_tables.model.latency_model import LatencyModel

MEMORY = "peak memory of activations"
ROUNDING = 1e-9


@dataclass(frozen=True)
class Metric:
    """A metric. Called on a Population, it returns (N,) values in ``unit``. ``flag`` is its command-line option.

    ``figures`` (resolutions, entries) are the values of the entries. The metric is ``constant`` plus their sum, or
    their maximum if ``is_peak``. If it is not ``exact``, the sum is a lower bound of the metric. ``model`` is the
    source of a latency.
    """

    name: str
    unit: str
    flag: str
    price: Callable[[Population], FloatArray]
    figures: FloatArray
    constant: float = 0.0
    is_peak: bool = False
    exact: bool = True
    model: LatencyModel | None = None

    def __call__(self, population: Population) -> FloatArray:
        return self.price(population)

    def bound(self, space: Space, resolutions_px: Iterable[int]) -> float:
        """Return a lower bound of the metric over all networks. It is the minimum if the metric is exact."""
        if self.exact:
            return self.smallest(space, resolutions_px)
        return (1 - ROUNDING) * (self.constant + space.pricer(self.figures).cheapest(resolutions_px)[0])

    def smallest(self, space: Space, resolutions_px: Iterable[int]) -> float:
        """Return the smallest value of any network, or the smallest value found if the metric is not exact."""
        resolutions_px = tuple(resolutions_px)
        if self.is_peak:
            return self._smallest_peak(space, resolutions_px)
        network = space.pricer(self.figures).cheapest(resolutions_px)[1]
        if not self.exact:
            network = descend(space, resolutions_px, network, self.price)
        return float(self(network)[0])

    def largest(self, space: Space, resolutions_px: Iterable[int]) -> float:
        """Return the largest value of any network, or the largest value found if the metric is not exact.

        The metric is a sum, not a peak.
        """
        resolutions_px = tuple(resolutions_px)
        network = space.pricer(-self.figures).cheapest(resolutions_px)[1]
        if not self.exact:
            network = descend(space, resolutions_px, network, lambda population: -self(population))
        return float(self(network)[0])

    def _smallest_peak(self, space: Space, resolutions_px: Sequence[int]) -> float:
        peaks = np.unique(self.figures[space.resolution_indices(resolutions_px)])
        low, high = 0, len(peaks) - 1
        while low < high:
            middle = (low + high) // 2
            over = np.where(self.figures <= peaks[middle], 0.0, 1.0)
            if space.pricer(over).cheapest(resolutions_px)[0] == 0:
                high = middle
            else:
                low = middle + 1
        return float(peaks[low])


def latency_metric(model: LatencyModel, name: str = "latency") -> Metric:
    """Return the latency metric of a table, in ms."""
    base_ms, figures_ms = model.linear
    return Metric(name, "ms", "--max-latency-ms", model.predict, figures_ms, base_ms, exact=model.is_sum, model=model)


def upper_metric(
    model: LatencyModel, confidence: float, resolutions_px: Sequence[int], name: str = "latency"
) -> Metric:
    """Return the upper end of the latency interval, in ms.

    Raises EntriesMissing if an entry at these resolutions has no interval.
    """
    lack = model.lack_of_intervals(resolutions_px)
    if lack:
        raise EntriesMissing(f"--confidence needs intervals: {lack}, or omit --confidence")
    base_ms, figures_ms = model.least_upper(confidence)
    price = partial(model.upper, confidence=confidence)
    name = f"{name}, upper end at {confidence:.1%}"
    return Metric(name, "ms", "--max-latency-ms", price, figures_ms, base_ms, exact=False, model=model)


def energy_metric(model: LatencyModel, resolutions_px: Sequence[int], name: str = "energy") -> Metric:
    """Return the energy of one inference, in mJ. Raises EntriesMissing if the table has no energy of an entry."""
    table, space = model.table, model.space
    entries = [[table.entry(key, px) for key in space.keys(px)] for px in space.resolutions_px]
    figures_mj = np.array(
        [[np.nan if e is None or e.energy_mj is None else e.energy_mj for e in row] for row in entries]
    )
    asked = figures_mj[[space.resolutions_px.index(px) for px in resolutions_px]]
    lacking = int(np.isnan(asked).sum())
    if lacking:
        raise EntriesMissing(
            f"{table.path} has no energy for {lacking} of {asked.size} entries; only boards that report their "
            "power provide it; omit --max-energy-mj"
        )
    rails = {entry.energy_of or "unknown" for row in entries for entry in row if entry and entry.energy_mj}
    if len(rails) > 1:
        raise EntriesMissing(
            f"{table.path} has energies of different power rails ({'; '.join(sorted(rails))}), which cannot be added; "
            "measure all entries again, or omit --max-energy-mj"
        )
    return Metric(name, "mJ", "--max-energy-mj", space.pricer(figures_mj), figures_mj)


def macs_metric(space: Space) -> Metric:
    figures = space.figures(lambda block: block.macs / 1e6)
    return Metric("MACs", "M", "--max-macs-m", space.pricer(figures), figures)


def parameters_metric(space: Space) -> Metric:
    figures = space.figures(lambda block: block.parameters / 1e6)
    return Metric("parameters", "M", "--max-parameters-m", space.pricer(figures), figures)


def memory_metric(space: Space, precision: str = "fp32", batch: int = 1, name: str = MEMORY) -> Metric:
    """Return the peak memory of activations, in MB, when a network runs operator by operator."""
    scale = PRECISIONS[precision] * batch / 1e6
    figures = space.figures(lambda block: peak_values(block) * scale)
    padded = np.concatenate([figures, np.zeros((len(figures), 1))], axis=1)  # ABSENT reads the last column

    def price(population: Population) -> FloatArray:
        indices = space.entry_indices(population)
        assert ABSENT == -1
        peaks: FloatArray = padded[population.genes[-1][None, :], indices].max(axis=0)
        return peaks

    return Metric(name, "MB", "--max-memory-mb", price, figures, is_peak=True)


def peak_values(block: Block) -> int:
    """Return the largest number of values in memory at once.

    These are the input and output of an operator, and values that a later Add needs.

    Activations and additions run in place. The inner values of squeeze-excite, a few per channel, are not counted.
    """
    sizes = [product(shape) for shape in block.shapes]
    last_use = {operator.value: at for at, operator in enumerate(block.operators) if isinstance(operator, Add | Take)}
    most = 0
    for at, operator in enumerate(block.operators):
        written = sizes[at + 1] if isinstance(operator, Conv | Linear | Pool | MaxPool | AvgPool) else 0
        kept = sum(sizes[value] for value, until in last_use.items() if value < at <= until)
        most = max(most, sizes[at] + written + kept)
    return most
