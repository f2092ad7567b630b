"""LatencyModel: predicts the latency of networks from a table and its calibration."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ofa_tables.errors import EntriesMissing, TableMismatch
from ofa_tables.estimates.entry import Entry, students_t
from ofa_tables.estimates.estimates import PREDICTED
from ofa_tables.estimates.keys import some
from ofa_tables.identity import IMPORTED
from ofa_tables.model.calibration import LAUNCH_BOUND, SUM, Calibration
from ofa_tables.model.launch_bound import LaunchBound
from ofa_tables.model.network_errors import NetworkErrors
from ofa_tables.model.space import Population, Pricer, Space, SpaceT
from ofa_tables.table import LatencyTable

CALIBRATIONS = "calibration/"  # prefix of names in the store
MADE_FOR = "made_for"

# Degrees of freedom of a sum over many entries, for Student's t.
FIGURES_FREEDOM = 100.0


class LatencyModel:
    """Predicts the latencies of a whole population: ``predict``; ``raw`` only sums its entries.

    ``kind``: SUM over the entries; or LAUNCH_BOUND, for a table with the times of blocks on a GPU and on its host.
    The calibration says which of the two predicts better; without one it is LAUNCH_BOUND where the table has the times.
    """

    def __init__(self, table: LatencyTable, space: Space, calibration: Calibration | None = None) -> None:
        self.table = table
        self.space = space
        self.calibration = calibration
        if table.needs_blocks:
            table.expect(block for px in space.resolutions_px for block in space.blocks(px))
        self._estimates = table.estimates  # read now, because the table may be closed later
        self._common_error = table.measured.common_error if self._estimates is not None else 0.0
        self.simulated = table.simulated
        self.figures_ms = np.array([table.figures_ms(space.keys(px), px) for px in space.resolutions_px])
        self._pricer = space.pricer(self.figures_ms)
        self._queue = self._launch_bound()
        kind = LAUNCH_BOUND if calibration is None else calibration.kind
        self.kind = kind if self._queue is not None else SUM

    @classmethod
    def calibrated(cls, table: LatencyTable, space: Space) -> "LatencyModel":
        """The model with the table's calibration for this space, if it has one."""
        return cls(table, space, read_calibration(table, space))

    @classmethod
    def read(cls, path: Path, space: Space) -> "LatencyModel":
        """Read the calibrated model from a table file. Raises TableError."""
        with LatencyTable.read(path) as table:
            return cls.calibrated(table, space)

    @property
    def resolutions_px(self) -> list[int]:
        """The resolutions at which no entry is missing."""
        complete = ~np.isnan(self.figures_ms).any(axis=1)
        return [px for px, whole in zip(self.space.resolutions_px, complete, strict=True) if whole]

    def predicted(self) -> list[Entry]:
        """Return the entries of the complete resolutions that were not measured but predicted, each once."""
        if self._estimates is None:
            return []
        keys = dict.fromkeys(key for px in self.resolutions_px for key in self.space.keys(px))
        entries = (self.table.entry(key) for key in keys)
        return [entry for entry in entries if entry is not None and PREDICTED in entry.flags]

    def predicted_blocks(self, population: Population) -> np.ndarray:
        """Return (N,) counts of the blocks in each network that were not measured but predicted."""
        keys = {entry.key for entry in self.predicted()}
        there = np.array([[key in keys for key in self.space.keys(px)] for px in self.space.resolutions_px])
        indices = self.space.entry_indices(population)
        counts: np.ndarray = (there[population.genes[-1][None, :], indices] & (indices >= 0)).sum(axis=0)
        return counts

    def require(self, resolutions_px: Iterable[int] | None = None) -> list[int]:
        """Return the given resolutions, or all complete ones. Raises EntriesMissing if entries are missing."""
        if resolutions_px is None:
            if self.resolutions_px:
                return self.resolutions_px
            lacking = np.isnan(self.figures_ms).sum(axis=1)
            wanted = [self.space.resolutions_px[int(np.argmin(lacking))]]
        else:
            wanted = list(resolutions_px)
        for px in wanted:
            keys, missing = self.space.keys(px), self.missing(px)
            if len(missing) == len(keys) and not self.resolutions_px:
                raise EntriesMissing(
                    f"{self.table.path} lacks {len(missing)} of {len(keys)} entries of {self.space.name} at {px} px: "
                    f"it has another space or resolution; ofa-table show {self.table.path} prints which"
                )
            if missing:
                raise EntriesMissing(
                    f"{self.table.path} lacks {len(missing)} of {len(keys)} entries of {self.space.name} at {px} px "
                    f"({some(missing)}); {self.fix(px)}"
                )
        return wanted

    def missing(self, resolution_px: int) -> list[str]:
        """Return the keys of the missing entries at a resolution."""
        row = self.figures_ms[self.space.resolutions_px.index(resolution_px)]
        return [
            key for key, latency_ms in zip(self.space.keys(resolution_px), row, strict=True) if np.isnan(latency_ms)
        ]

    def fix(self, resolution_px: int) -> str:
        """Describe how to get the missing entries at a resolution."""
        if self.table.identity.runtime == IMPORTED:
            return f"import a file that has them, or choose a resolution other than {resolution_px}"
        how = "compute" if self.simulated else "measure"
        return f"{how} them with {self.table.profile_command(self.space.given_as, resolution_px)}"

    def _launch_bound(self) -> LaunchBound | None:
        """The queue of a GPU and its host; None unless every entry of the complete resolutions has both times."""
        if all(entry.device_ms is None for entry in self.table.entries):
            return None
        rows = ((px, self.space.keys(px)) for px in self.space.resolutions_px)
        entries = [[self.table.entry(key, px) for key in keys] for px, keys in rows]
        device_ms, launch_ms = (
            np.array([[np.nan if entry is None else getattr(entry, name) for entry in row] for row in entries], float)
            for name in ("device_ms", "launch_ms")
        )
        known = ~np.isnan(device_ms + launch_ms)
        if not known.any() or (~known & ~np.isnan(self.figures_ms)).any():
            return None
        return LaunchBound(self.space, device_ms, launch_ms)

    @property
    def _in_queue(self) -> LaunchBound | None:
        return self._queue if self.kind == LAUNCH_BOUND else None

    @property
    def is_sum(self) -> bool:
        """Whether ``linear`` is the prediction; otherwise it is a lower bound."""
        return self.kind == SUM

    def raw(self, population: Population) -> np.ndarray:
        """Sum the latencies of the entries: (N,) in ms; NaN if entries are missing. Whatever the kind is."""
        return self._pricer(population)

    def predict(self, population: Population) -> np.ndarray:
        """Predict latencies: (N,) in ms, calibrated if the model has a calibration."""
        return self._calibrate(self.summed(population))

    def summed(self, population: Population) -> np.ndarray:
        """Return (N,) latencies in ms before the line of the calibration, but after its shifts."""
        return self._calibrated_pricer(population) if self._in_queue is None else self._in_queue(population)

    @cached_property
    def _shifted_ms(self) -> np.ndarray:
        """``figures_ms`` (resolutions, entries) after the shifts of the calibration."""
        if self.calibration is None or not self.calibration.shifts:
            return self.figures_ms
        shifted = self.figures_ms.copy()
        for row, px in enumerate(self.space.resolutions_px):
            shifted[row] *= self.calibration.factors(self.space.keys(px))
        return shifted

    @cached_property
    def _calibrated_pricer(self) -> Pricer:
        return self.space.pricer(self._shifted_ms)

    def fit_calibration(self, population: Population, measured_ms: Sequence[float]) -> Calibration:
        """Fit a calibration to whole networks and their measured latencies in ms.

        If the table has the times of a GPU and its host, the kind of model with the lower error is kept.
        """
        keys = dict.fromkeys(key for px in self.space.resolutions_px for key in self.space.keys(px))
        column = {key: number for number, key in enumerate(keys)}
        parts_ms = np.zeros((len(population), len(keys)))
        for network, (px_index, indices) in enumerate(
            zip(population.genes[-1], self.space.entry_indices(population).T, strict=True)
        ):
            px = self.space.resolutions_px[px_index]
            for index in indices[indices >= 0]:
                parts_ms[network, column[self.space.keys(px)[index]]] += self.figures_ms[px_index, index]
        standing = np.flatnonzero(parts_ms.any(axis=0))
        of_sum = Calibration.calibrate([list(keys)[index] for index in standing], parts_ms[:, standing], measured_ms)
        if self._queue is None:
            return of_sum
        of_queue = replace(Calibration.fit(self._queue(population), measured_ms), kind=LAUNCH_BOUND)
        return of_sum if (of_sum.error or np.inf) < (of_queue.error or np.inf) else of_queue

    @property
    def linear(self) -> tuple[float, np.ndarray]:
        """(base in ms, (resolutions, entries) in ms): a prediction is the base plus the sum over its entries.

        If the kind is LAUNCH_BOUND, it is at least that.
        """
        scale = 1.0 if self.calibration is None else self.calibration.scale
        queue = self._in_queue
        figures_ms = self._shifted_ms if queue is None else queue.lower_bound(self.resolutions_px)
        return float(self._calibrate(0.0)), scale * figures_ms

    def upper(self, population: Population, confidence: float) -> np.ndarray:
        """Return (N,) upper ends in ms of the intervals with this confidence; NaN if unknown."""
        return self.predict(population) * (1 + self.half_widths(population, confidence))

    def least_upper(self, confidence: float) -> tuple[float, np.ndarray]:
        """Return a lower bound of ``upper`` for every network, in the form of ``linear``."""
        base_ms, figures_ms = self.linear
        if self.calibration is None:
            # For a given sum, the sum of squares is smallest if all errors are equal (Cauchy-Schwarz). Errors that
            # entries have in common may cancel each other; the own errors do not.
            least = students_t(FIGURES_FREEDOM, confidence) / np.sqrt(len(self.space.positions))
            return base_ms, figures_ms + least * self._errors.own_ms
        wider = 1 + (self.calibration.half_width_at(confidence) or 0.0)
        return base_ms * wider, figures_ms * wider

    def half_widths(self, population: Population, confidence: float = 0.95) -> np.ndarray:
        """Return (N,) half the interval of each prediction, relative to it; NaN if an entry has no interval.

        Entries that were estimated together have errors in common; the others are independent. An entry that a network
        uses several times has the same error each time. The error that all entries of the table have in common is part
        of it unless the model has a calibration, which removes that error. With a calibration, the interval is at least
        that of the calibration.
        """
        errors = self._errors(population) / self.raw(population)
        quantile = students_t(FIGURES_FREEDOM, confidence)
        if self.calibration is None or (of_networks := self.calibration.half_width_at(confidence)) is None:
            return np.asarray(quantile * np.hypot(errors, self._common_error))
        return np.maximum(quantile * errors, of_networks)

    def without_interval(self, resolutions_px: Iterable[int]) -> list[str]:
        """Return the keys of the entries without an interval at these resolutions, each once."""
        rows = [(self.space.keys(px), self.errors_ms[self.space.resolutions_px.index(px)]) for px in resolutions_px]
        lacking = (key for keys, errors in rows for key, error in zip(keys, errors, strict=True) if np.isnan(error))
        return list(dict.fromkeys(lacking))

    def lack_of_intervals(self, resolutions_px: Sequence[int]) -> str:
        """Describe how many entries have no interval and how to get one; empty if all have one."""
        lacking = self.without_interval(resolutions_px)
        if not lacking:
            return ""
        count = len({key for px in resolutions_px for key in self.space.keys(px)})
        if self.table.identity.runtime == IMPORTED:
            return f"{self.table.path} has no intervals because it was imported; measure the device with ofa-profile"
        if self.simulated:
            return f"{self.table.path} has no intervals because it is simulated; measure a device with ofa-profile"
        needed, left = [], set(lacking)
        for px in resolutions_px:
            if not left.isdisjoint(self.space.keys(px)):
                needed.append(px)
                left.difference_update(self.space.keys(px))
        return (
            f"{self.table.path} has no interval for {len(lacking)} of {count} entries ({some(lacking)}), because "
            "they have fewer than two undisturbed trials; measure more with "
            f"{self.table.profile_command(self.space.given_as, *needed)} --effort thorough"
        )

    @cached_property
    def errors_ms(self) -> np.ndarray:
        """(resolutions, entries) standard errors of the entries in ms; NaN if unknown."""
        return np.array(
            [
                [np.nan if (entry := self.table.entry(key, px)) is None else _error_ms(entry) for key in keys]
                for px, keys in ((px, self.space.keys(px)) for px in self.space.resolutions_px)
            ]
        )

    @cached_property
    def _errors(self) -> NetworkErrors:
        return NetworkErrors(self.space, self.figures_ms, self.errors_ms, self._estimates)

    def cheapest(self, resolutions_px: Iterable[int] | None = None) -> tuple[float, Any]:
        """Return the lowest predicted latency in ms (LAUNCH_BOUND: of a few candidates), and a network that has it."""
        wanted = self.require(resolutions_px)
        if self._in_queue is not None:
            smallest, population = self._in_queue.extreme(wanted)
        else:
            smallest, population = self._calibrated_pricer.cheapest(wanted)
        return float(self._calibrate(smallest)), population

    def dearest(self, resolutions_px: Iterable[int] | None = None) -> tuple[float, Any]:
        """Return the highest predicted latency in ms (LAUNCH_BOUND: of a few candidates), and a network that has it."""
        wanted = self.require(resolutions_px)
        if self._in_queue is not None:
            largest, population = self._in_queue.extreme(wanted, largest=True)
            return float(self._calibrate(largest)), population
        largest, population = self.space.pricer(-self._shifted_ms).cheapest(wanted)
        return float(self._calibrate(-largest)), population

    @property
    def _calibrate(self) -> Callable[[Any], Any]:
        return self.calibration or (lambda latency_ms: latency_ms)


def _error_ms(entry: Entry) -> float:
    return np.nan if entry.standard_error is None else entry.standard_error * entry.latency_ms


def fullest_space(table: LatencyTable, spaces: Sequence[SpaceT]) -> SpaceT:
    """Return the largest space that is complete at some resolution; the first one among equals.

    A space is thus preferred to its subspaces. If no space is complete, return the one with the most entries.
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
    """Return the calibrations by name of the space. Raises TableMismatch if one was made with other settings."""
    found = {}
    for name in table.store.names(CALIBRATIONS):
        value = table.store.get(name)
        made_for, space = value.pop(MADE_FOR, None), name.removeprefix(CALIBRATIONS)
        if made_for not in (None, _made_for(table)):
            raise TableMismatch(
                f"the calibration for {space} in {table.path} was made for {made_for}, but the table for "
                f"{_made_for(table)}; calibrate again with ofa-compare --calibrate, or predict with --raw"
            )
        found[space] = Calibration(**value)
    return found


def write_calibration(table: LatencyTable, space: Space, calibration: Calibration | None) -> None:
    """Replace the calibration; None removes it."""
    name = f"{CALIBRATIONS}{space.name}"
    if calibration is None:
        table.store.remove(name)
    else:
        table.store.put(name, {**asdict(calibration), MADE_FOR: _made_for(table)})


def _made_for(table: LatencyTable) -> str:
    identity = table.identity
    return f"{identity.runtime} {identity.runtime_version}, {identity.settings}"
