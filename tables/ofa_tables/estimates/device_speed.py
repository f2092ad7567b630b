"""Speed correction: the device speed during each trial, and latencies at the common speed of the table.

A device that is shared or that heats up is slower for some time. Two observations show how much slower: the latency of
the reference job around each trial, and the latencies of the other blocks that were timed in the same trial. The model:

    log latency(key, trial) = log latency(key) + slowdown(key, trial)
    slowdown(key, trial)    = elasticity(key) · log(reference(trial) / reference of the table) + residual(trial)

``slowdown`` is the logarithm of the device speed of the trial relative to the table. ``elasticity`` is the relative
change of a latency per relative change of the reference. ``residual`` is common to all blocks of a trial. This is a
two-way fit (Tukey 1977, "Exploratory Data Analysis", chapter 11) with Huber weights. The residual for one block is
estimated from the other blocks only, so that the correction does not hide the spread between the trials of a block.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ofa_tables.store.measurement import NETWORK, Measurement

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int_]]

# The weight of the reference job in the residual of a trial, in blocks.
REFERENCE_WEIGHT = 2.0
# The weight of the prior "the elasticity is 1", as a sum of squared log references.
ELASTICITY_WEIGHT = 0.05
# The weight of the prior "the elasticity does not depend on the latency".
SIZE_WEIGHT = 0.5
# The weight of the prior "a block has the elasticity of blocks with its latency". Whole networks always use that
# elasticity, because all their trials may come from times with an unusual device speed.
OWN_WEIGHT = 0.1
# The relative error that all entries of a run have in common. Trials of one run do not show it; docs/measuring.md
# compares runs.
BETWEEN_RUNS = 0.016
# The largest relative difference from the usual device speed at which the correction holds for all jobs.
OFF_SPEED = 0.4
HUBER = 1.345
ITERATIONS = 12


def usual_reference_ms(measurements: Sequence[Measurement]) -> float | None:
    """Return the device speed of the table: the median latency of the reference job in ms, over trials of blocks.

    In a table without blocks, it is that over whole networks.
    """
    blocks = [measurement for measurement in measurements if not measurement.key.startswith(NETWORK)]
    readings = [each.reference_ms for each in blocks or measurements if each.reference_ms is not None]
    return float(np.median(readings)) if readings else None


def at_table_speed(measurements: Sequence[Measurement], reference_ms: float | None) -> list[Measurement]:
    """Correct measurements to the device speed at which the reference job takes ``reference_ms``.

    Blocks and whole networks have different elasticities and are fitted separately. Raw samples do not change.
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
                scaled[row] = measurements[row].scaled(1 / float(slowdown))
    return scaled


class SpeedErrors:
    """The standard error of the speed correction, relative to the latencies.

    Profiled networks with the same first block, at one resolution, share most of their entries. Only the reference job
    links these entries to those of other resolutions. Its error for one trial averages out over the trials of such
    networks. Its error for the whole run (``BETWEEN_RUNS``) does not.
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

    @property
    def common(self) -> float:
        """The relative error that all entries have in common."""
        return BETWEEN_RUNS if self._counts else 0.0

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
        levels = _medians(keys, logs - expected - in_trial)
        left = logs - levels[keys] - expected
        off = np.abs(left - in_trial)
        usual = max(float(np.median(off)) / 0.6745, 1e-9)  # standard deviation of a normal distribution
        weights = np.minimum(1.0, HUBER * usual / np.maximum(off, 1e-12))
        # The mean residual of the other blocks of the trial, shrunk towards 0.
        others = np.bincount(trials, weights * left)[trials] - weights * left
        readings = np.bincount(trials, weights)[trials] - weights
        in_trial = others / (readings + REFERENCE_WEIGHT)
    return np.asarray(expected + in_trial)


def _elasticities(
    keys: IntArray, logs: FloatArray, references: FloatArray, weights: FloatArray, own: bool
) -> FloatArray:
    """Return (keys,) elasticities: the slope of the log latency over the log reference, within the trials of a key.

    elasticity = a + b · log latency, fitted to all keys, with a shrunk towards 1 and b towards 0. If ``own`` is set,
    each key has its own slope, shrunk towards that line.
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
    """Return the median of the values of each group."""
    ordered = values[np.lexsort((values, groups))]
    counts = np.bincount(groups)
    starts = np.cumsum(counts) - counts
    return (ordered[starts + (counts - 1) // 2] + ordered[starts + counts // 2]) / 2


def _numbered(names: Sequence[str]) -> IntArray:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def off_speed(took_ms: float | None, usual_ms: float | None) -> bool:
    """Return whether a latency differs from the usual one by more than OFF_SPEED."""
    if not took_ms or not usual_ms:
        return False
    return max(took_ms, usual_ms) > (1 + OFF_SPEED) * min(took_ms, usual_ms)


def interrupted(mean_ms: float | None, usual_ms: float | None) -> bool:
    """Return whether the mean latency of the reference job shows that other processes interrupted it."""
    return bool(mean_ms and usual_ms and mean_ms > (1 + OFF_SPEED) * usual_ms)
