"""Speed correction: the device speed during each trial, and latencies at the common speed of the table.

A device that others share, or that heats up, takes more for everything for a while. How much more is known from the
reference Job around each trial, and from the other Blocks that were timed in the same trial: the logarithm of a latency
is its entry's figure plus its trial's speed (a two-way fit, Tukey 1977, "Exploratory Data Analysis", ch. 11, with
Huber's weights). A Block has no say in the speed that it is itself corrected by, so that its trials keep their spread.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ofa_tables.store.measurement import NETWORK, Measurement

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int_]]

# What the reference says of a trial counts as much as so many Blocks that were timed in it.
REFERENCE_WEIGHT = 2.0
# Jobs slow down as the reference does, until readings whose squared logarithms add up to this say otherwise.
ELASTICITY_WEIGHT = 0.05
# Long Jobs slow down as short ones do, until that much says otherwise.
SIZE_WEIGHT = 0.5
# A Block slows down as those of its length do, until as much is known of it alone. A whole network does always: its
# Trials may all come from times that were far from the table's speed.
OWN_WEIGHT = 0.1
# What ties a table to its speed differs from one run to the next by about this much for all its entries together: no
# trial of one run shows it (docs/measuring.md has the tables that do).
BETWEEN_RUNS = 0.016
# Up to here other Jobs slow down with the reference, near enough; beyond, their own shares of what disturbs show.
OFF_SPEED = 0.4
HUBER = 1.345
ITERATIONS = 12


def usual_reference_ms(measurements: Sequence[Measurement]) -> float | None:
    """The table's speed: how long the reference Job took while its Blocks were measured, in the median."""
    readings = [
        measurement.reference_ms
        for measurement in measurements
        if measurement.reference_ms is not None and not measurement.key.startswith(NETWORK)
    ]
    return float(np.median(readings)) if readings else None


def at_table_speed(measurements: Sequence[Measurement], reference_ms: float | None) -> list[Measurement]:
    """What each would have been where the reference Job takes ``reference_ms``; raw samples stay as they are.

    Blocks and whole networks follow the reference each in their own way, and are looked at apart.
    """
    scaled = list(measurements)
    if reference_ms is None:
        return scaled
    for whole in (False, True):
        rows = [
            row
            for row, measurement in enumerate(measurements)
            if measurement.ok
            and measurement.median_ms
            and measurement.median_ms > 0
            and measurement.reference_ms is not None
            and measurement.key.startswith(NETWORK) == whole
        ]
        if rows:
            group = [measurements[row] for row in rows]
            slowdowns = np.exp(_log_slowdowns(group, reference_ms, own_elasticity=not whole))
            for row, slowdown in zip(rows, slowdowns, strict=True):
                scaled[row] = _scaled(measurements[row], 1 / float(slowdown))
    return scaled


class SpeedErrors:
    """How far off the speed may be that trials were brought to: a standard error, relative to their latencies.

    Networks that begin alike, at one resolution, have most of their entries in common; what ties these to the other
    resolutions is the reference alone. What it misses of a trial's speed averages out over their trials; what it misses
    of the whole run's does not.
    """

    def __init__(self, measurements: Sequence[Measurement], scaled: Sequence[Measurement]) -> None:
        logs: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._beginnings: dict[str, str] = {}
        for trial, at_table in zip(measurements, scaled, strict=True):
            inside = trial.taken_with != trial.trial_id
            if inside and trial.median_ms and at_table.median_ms and trial.reference_ms:
                slowdown = float(np.log(trial.median_ms / at_table.median_ms))
                logs[trial.taken_with].append((slowdown, float(np.log(trial.reference_ms))))
                if trial.trial_id.endswith("/0"):
                    self._beginnings[trial.taken_with] = trial.key
        self._counts = Counter(self._beginnings.values())
        self._spread = 0.0
        if len(logs) > 2:
            slowdowns, references = np.array([np.mean(of_trial, axis=0) for of_trial in logs.values()]).T
            rows = np.stack([references, np.ones(len(references))], axis=1)
            self._spread = float(np.std(slowdowns - rows @ np.linalg.lstsq(rows, slowdowns, rcond=None)[0]))

    def __call__(self, trials: Sequence[Measurement]) -> float:
        beginnings = {self._beginnings[v.taken_with] for v in trials if v.taken_with in self._beginnings}
        count = sum(self._counts[beginning] for beginning in beginnings)
        return float(np.hypot(self._spread / np.sqrt(count), BETWEEN_RUNS)) if count else 0.0


def _log_slowdowns(group: Sequence[Measurement], reference_ms: float, own_elasticity: bool) -> FloatArray:
    trials = _numbered([measurement.taken_with for measurement in group])
    keys = _numbered([measurement.key for measurement in group])
    logs = np.log(np.array([measurement.median_ms for measurement in group], dtype=float))
    references = np.log(np.array([measurement.reference_ms for measurement in group], dtype=float) / reference_ms)
    weights, in_trial = np.ones(len(group)), np.zeros(len(group))
    for _ in range(ITERATIONS):
        elasticities = _elasticities(keys, logs - in_trial, references, weights, own_elasticity)
        expected = elasticities[keys] * references
        figures = _medians(keys, logs - expected - in_trial)
        left = logs - figures[keys] - expected
        off = np.abs(left - in_trial)
        usual = max(float(np.median(off)) / 0.6745, 1e-9)  # a normal distribution's standard deviation
        weights = np.minimum(1.0, HUBER * usual / np.maximum(off, 1e-12))
        # What the trial's other Blocks took beyond what the reference says, in the mean, drawn towards nothing.
        others = np.bincount(trials, weights * left)[trials] - weights * left
        readings = np.bincount(trials, weights)[trials] - weights
        in_trial = others / (readings + REFERENCE_WEIGHT)
    return np.asarray(expected + in_trial)


def _elasticities(
    keys: IntArray, logs: FloatArray, references: FloatArray, weights: FloatArray, own: bool
) -> FloatArray:
    """(keys,): by how many percent a latency changes where the reference changes by one.

    The slope within the trials of all keys, drawn towards 1, and how it changes with the logarithm of their latency,
    drawn towards 0; ``own``: within each key's trials, drawn towards that.
    """
    of_key = np.bincount(keys, weights)

    def centred(values: FloatArray) -> FloatArray:
        return values - (np.bincount(keys, weights * values) / of_key)[keys]

    across, up = centred(references), centred(logs)
    both, square = np.bincount(keys, weights * across * up), np.bincount(keys, weights * across**2)
    sizes = np.bincount(keys, weights * logs) / of_key
    sizes -= np.average(sizes, weights=of_key)
    rows = np.stack([np.ones(len(sizes)), sizes], axis=1)
    drawn = np.diag([ELASTICITY_WEIGHT, SIZE_WEIGHT])
    of_all = rows @ np.linalg.solve((rows.T * square) @ rows + drawn, rows.T @ both + drawn[:, 0])
    return (both + of_all * OWN_WEIGHT) / (square + OWN_WEIGHT) if own else np.asarray(of_all)


def _medians(groups: IntArray, values: FloatArray) -> FloatArray:
    """The median of each group's values."""
    ordered = values[np.lexsort((values, groups))]
    counts = np.bincount(groups)
    starts = np.cumsum(counts) - counts
    return (ordered[starts + (counts - 1) // 2] + ordered[starts + counts // 2]) / 2


def _numbered(names: Sequence[str]) -> IntArray:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def _scaled(measurement: Measurement, factor: float) -> Measurement:
    scaled = {
        name: factor * value
        for name in ("median_ms", "mean_ms", "std_ms")
        if (value := getattr(measurement, name)) is not None
    }
    return replace(measurement, **scaled)


def off_speed(took_ms: float | None, usual_ms: float | None) -> bool:
    """Whether it took so much more or less than it usually does that the device was another one."""
    if not took_ms or not usual_ms:
        return False
    return max(took_ms, usual_ms) > (1 + OFF_SPEED) * min(took_ms, usual_ms)


def interrupted(mean_ms: float | None, usual_ms: float | None) -> bool:
    """Whether the reference's runs took so much more in the mean that others had the processor in between."""
    return bool(mean_ms and usual_ms and mean_ms > (1 + OFF_SPEED) * usual_ms)
