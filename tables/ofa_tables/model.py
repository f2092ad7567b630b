"""LatencyModel: a table's figures for a Space, and the Calibration that whole networks taught it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ofa_tables.errors import EntriesMissing
from ofa_tables.table import IMPORTED, Entry, LatencyTable, students_t

CALIBRATIONS = "calibration/"  # names in the store begin so

# A sum over many entries knows its spread well, whatever each of them does.
FIGURES_FREEDOM = 100.0

# What a Calibration expects before it has seen a network: how far one lies off the line, and what the line's constant
# is of a typical latency. Their ratio is the weight that draws the constant towards 0.
NETWORK_ERROR = 0.03
EXPECTED_BASE = 0.2
HUBER = 1.345  # as efficient as least squares to 95 % where errors are normal
REWEIGHTINGS = 30
PARAMETERS = 2
FEWEST_FREE = 3


class Population(Protocol):
    """``genes[-1]`` is each network's resolution, as an index into the Space's."""

    @property
    def genes(self) -> Any: ...

    def __len__(self) -> int: ...


class Pricer(Protocol):
    """Sums a figure of each entry over a whole Population."""

    def __call__(self, population: Any) -> np.ndarray: ...

    def cheapest(self, resolutions_px: Iterable[int] | None = None) -> tuple[float, Any]: ...


class Space(Protocol):
    """What the model asks of a Space."""

    name: str

    @property
    def resolutions_px(self) -> tuple[int, ...]: ...

    def keys(self, resolution_px: int) -> list[str]: ...

    def entry_indices(self, population: Any) -> np.ndarray: ...

    def pricer(self, figures: np.ndarray) -> Pricer: ...


SpaceT = TypeVar("SpaceT", bound=Space)


@dataclass(frozen=True)
class Calibration:
    """What whole networks taught: latency = ``base_ms`` + ``scale`` · summed prediction.

    It takes up what the Blocks of a network have of each other: beside large ones each finds the caches emptier than
    its figure says, beside small ones fuller. Two parameters, for K networks are few. ``error`` is how far the networks
    that taught lie off the line, as a standard deviation relative to their latency; None where they are too few to say.
    """

    scale: float
    networks: int
    base_ms: float = 0.0
    error: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of one more network's latency, relative to it; None where nothing tells of it."""
        if self.error is None:
            return None
        freedom = self.networks - PARAMETERS
        return students_t(freedom) * self.error * float(np.sqrt(1 + 1 / self.networks))

    def __call__(self, latency_ms: Any) -> Any:
        return self.base_ms + self.scale * latency_ms

    def __str__(self) -> str:
        base = f" {'+' if self.base_ms > 0 else '−'} {abs(self.base_ms):.3f} ms" if self.base_ms else ""
        return f"× {self.scale:.4f}{base}"

    @classmethod
    def fit(cls, predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> "Calibration":
        """Least squares of the relative error, robust (Huber's weights: one disturbed network among the K moves it
        little). ``base_ms`` is drawn towards 0, so that few networks, or networks that are all alike, teach the scale
        alone. So they do where larger sums would else be predicted to be faster."""
        predicted, measured = np.asarray(predicted_ms, dtype=float), np.asarray(measured_ms, dtype=float)
        typical_ms = float(np.median(measured))
        rows = np.stack([predicted / measured, typical_ms / measured], axis=1)
        line = np.array([np.median(measured / predicted), 0.0])
        for _ in range(REWEIGHTINGS):
            off = np.abs(rows @ line - 1)
            usual = max(float(np.median(off)) / 0.6745, 1e-9)  # a normal distribution's standard deviation
            weights = np.sqrt(np.minimum(1.0, HUBER * usual / np.maximum(off, 1e-12)))
            weighted = np.vstack([rows * weights[:, None], [0.0, NETWORK_ERROR / EXPECTED_BASE]])
            line = np.linalg.lstsq(weighted, np.append(weights, 0.0), rcond=None)[0]
        scale, base = line
        freedom = len(measured) - PARAMETERS
        off = np.minimum(np.abs(rows @ line - 1), 3 * usual)  # one disturbed network does not widen it without bound
        error = float(np.sqrt((off**2).sum() / freedom)) if freedom >= FEWEST_FREE else None
        if scale <= 0 or base * typical_ms + scale * predicted.min() <= 0:
            return cls(float(np.median(measured / predicted)), len(measured))
        return cls(float(scale), len(measured), float(base * typical_ms), error)


class LatencyModel:
    """Prices a Population at once: ``predict`` with the table's Calibration, ``raw`` without."""

    def __init__(self, table: LatencyTable, space: Space, calibration: Calibration | None = None) -> None:
        self.table = table
        self.space = space
        self.calibration = calibration
        self.figures_ms = np.array([table.figures_ms(space.keys(px), px) for px in space.resolutions_px])
        self._pricer = space.pricer(self.figures_ms)

    @classmethod
    def calibrated(cls, table: LatencyTable, space: Space) -> "LatencyModel":
        """With the table's Calibration for this Space, where it has one."""
        return cls(table, space, read_calibration(table, space))

    @property
    def resolutions_px(self) -> list[int]:
        """The resolutions at which no entry is missing."""
        complete = ~np.isnan(self.figures_ms).any(axis=1)
        return [px for px, whole in zip(self.space.resolutions_px, complete, strict=True) if whole]

    def require(self, resolutions_px: Iterable[int] | None = None) -> list[int]:
        """The given resolutions, or all that are complete. Raises EntriesMissing: how many of how many, and which."""
        if resolutions_px is None:
            if self.resolutions_px:
                return self.resolutions_px
            lacking = np.isnan(self.figures_ms).sum(axis=1)
            wanted = [self.space.resolutions_px[int(np.argmin(lacking))]]
        else:
            wanted = list(resolutions_px)
        for px in wanted:
            keys = self.space.keys(px)
            row = self.figures_ms[self.space.resolutions_px.index(px)]
            missing = [key for key, figure in zip(keys, row, strict=True) if np.isnan(figure)]
            if len(missing) == len(keys) and not self.resolutions_px:
                raise EntriesMissing(
                    f"{self.table.path} lacks {len(missing)} of {len(keys)} entries of {self.space.name} at {px} px: "
                    f"it is of another space or resolution; ofa-table show {self.table.path} says of which"
                )
            if missing:
                raise EntriesMissing(
                    f"{self.table.path} lacks {len(missing)} of {len(keys)} entries of {self.space.name} at {px} px "
                    f"(the first is {missing[0]}); {self._mend(px)}"
                )
        return wanted

    def _mend(self, resolution_px: int) -> str:
        if self.table.identity.runtime == IMPORTED:
            return f"import a file that has them, or choose another resolution than {resolution_px}"
        return f"measure them with {self.table.profile_command(self.space.name, resolution_px)}"

    def raw(self, population: Population) -> np.ndarray:
        """(N,) summed latencies in ms; NaN at a resolution that the table lacks."""
        return self._pricer(population)

    def predict(self, population: Population) -> np.ndarray:
        """(N,) latencies in ms, calibrated where the model has a Calibration."""
        return self._calibrate(self.raw(population))

    def half_widths(self, population: Population) -> np.ndarray | None:
        """(N,) half the 95 % interval of each prediction, relative to it; None where the table has no intervals.

        What the Visits leave open of each figure adds up over a network's entries (of an entry that stands there
        several times, as often); what the networks that taught were off by is wider, where there is a Calibration.
        """
        errors_ms = self._standard_errors_ms(population)
        if errors_ms is None:
            return None
        from_figures = students_t(FIGURES_FREEDOM) * errors_ms / self.raw(population)
        if self.calibration is None or self.calibration.half_width is None:
            return from_figures
        return np.maximum(from_figures, self.calibration.half_width)

    def _standard_errors_ms(self, population: Population) -> np.ndarray | None:
        table_errors = np.array(
            [
                [np.nan if (entry := self.table.entry(key, px)) is None else _error_ms(entry) for key in keys]
                for px, keys in ((px, self.space.keys(px)) for px in self.space.resolutions_px)
            ]
        )
        indices = self.space.entry_indices(population)  # (positions, N), negative where nothing stands
        errors = np.where(indices < 0, 0.0, table_errors[population.genes[-1][None, :], indices])
        if np.isnan(errors).any():
            return None
        same = indices[:, None, :] == indices[None, :, :]
        return np.sqrt((errors[:, None, :] * errors[None, :, :] * same).sum(axis=(0, 1)))

    def cheapest(self, resolutions_px: Iterable[int] | None = None) -> tuple[float, Any]:
        """The smallest predicted latency there is in ms, and a network that has it."""
        smallest, population = self._pricer.cheapest(self.require(resolutions_px))
        return float(self._calibrate(smallest)), population

    def dearest(self, resolutions_px: Iterable[int] | None = None) -> tuple[float, Any]:
        """The largest predicted latency there is in ms, and a network that has it."""
        wanted = self.require(resolutions_px)
        largest, population = self.space.pricer(-self.figures_ms).cheapest(wanted)
        return float(self._calibrate(-largest)), population

    @property
    def _calibrate(self) -> Callable[[Any], Any]:
        return self.calibration or (lambda latency_ms: latency_ms)


def _error_ms(entry: Entry) -> float:
    return np.nan if entry.standard_error is None else entry.standard_error * entry.latency_ms


def fullest_space(table: LatencyTable, spaces: Sequence[SpaceT]) -> SpaceT:
    """The Space with most entries among those that the table has whole at some resolution; the first of equals.

    So a Space is preferred to those that are made of its Blocks. Where none is whole, the one that lacks least.
    """
    keys = {entry.key for entry in table.entries if not entry.failure}

    def fullness(space: SpaceT) -> tuple[bool, int, int]:
        whole = LatencyModel(table, space).resolutions_px
        have = max(len(keys.intersection(space.keys(px))) for px in space.resolutions_px)
        return bool(whole), len(space.keys(whole[0])) if whole else have, len(whole)

    return max(spaces, key=fullness)


def read_calibration(table: LatencyTable, space: Space) -> Calibration | None:
    return calibrations(table).get(space.name)


def calibrations(table: LatencyTable) -> dict[str, Calibration]:
    """By the name of the Space whose networks taught them."""
    return {
        name.removeprefix(CALIBRATIONS): Calibration(**table.store.get(name))
        for name in table.store.names(CALIBRATIONS)
    }


def write_calibration(table: LatencyTable, space: Space, calibration: Calibration | None) -> None:
    """In place of the one before; None where nothing teaches one any more."""
    name = f"{CALIBRATIONS}{space.name}"
    if calibration is None:
        table.store.remove(name)
    else:
        table.store.put(name, asdict(calibration))
