"""Entries: the latency of one key, its interval, and its evidence."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from ofa_tables.store.measurement import HOT, LAYER, SIMULATED, THROTTLED, Measurement

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

FEWEST_TRIALS = 3  # needed to estimate a spread

# Flags of entries whose trials determine the latency poorly.
UNSTABLE = "unstable"
FEW_SAMPLES = "few-samples"

# Entries are flagged as unstable if half their 95 % interval is wider than this, relative to the latency.
UNSTABLE_HALF_WIDTH = 0.10

# The weight of the typical variance of the table, in trials.
USUAL_WEIGHT = 4
# The standard error of the median over that of the mean, for normally distributed values: √(π/2).
MEDIAN_TO_MEAN = 1.2533


@dataclass(frozen=True)
class Entry:
    """The latency of one key and its evidence.

    ``measured_ms`` is the median of the medians of the trials, each corrected to the speed of the table; None without
    trials. ``latency_ms`` is the same, or what ``estimates.py`` makes of it. ``spread`` is the interquartile range of
    the trials, relative to their median. ``mean_ms`` and ``std_ms`` are taken over all samples. ``standard_error`` is
    the standard error of ``latency_ms``, relative to it; None if the trials do not determine it. ``trial_error`` is the
    part of it that comes from the trials of this entry alone. ``failure`` is the error of the last failed trial if none
    succeeded. ``resolution_px`` is set only if a published file gave the latency for one resolution. ``energy_mj`` is
    the energy of one inference, the median over the trials, if the board reports its power. ``energy_of`` names the
    power rails that it was measured on (empty if unknown), ``energy_trials`` is the number of trials that it is of.
    ``device_ms`` and ``launch_ms`` are how long a GPU executes the kernels and how long the host launches them, medians
    over the trials; None unless all trials have them.
    """

    key: str
    latency_ms: float
    mean_ms: float
    std_ms: float
    spread: float
    trials: int
    samples: int
    flags: tuple[str, ...] = ()
    failure: str = ""
    resolution_px: int | None = None
    standard_error: float | None = None
    degrees_of_freedom: float = 0.0
    measured_ms: float | None = None
    trial_error: float | None = None
    energy_mj: float | None = None
    energy_standard_error: float | None = None
    energy_of: str = ""
    energy_trials: int = 0
    device_ms: float | None = None
    launch_ms: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of ``latency_ms``, relative to it; None if unknown."""
        if self.standard_error is None:
            return None
        return students_t(self.degrees_of_freedom) * self.standard_error

    @property
    def energy_half_width(self) -> float | None:
        """Half the 95 % interval of ``energy_mj``, relative to it; None with fewer than two trials."""
        if self.energy_standard_error is None:
            return None
        return students_t(max(1, self.energy_trials - 1)) * self.energy_standard_error

    @property
    def simulated(self) -> bool:
        """Whether the latency was computed, at least in part, instead of measured."""
        return SIMULATED in self.flags

    def flagged(self, flag: str) -> "Entry":
        return replace(self, flags=(*self.flags, flag))


def derive_entry(key: str, trials: Sequence[Measurement]) -> Entry:
    """Compute the entry of one key (at one resolution) from its trials; latencies are NaN if no trial succeeded."""
    good = [trial for trial in trials if trial.ok and trial.median_ms is not None]
    px = trials[0].resolution_px
    if not good:
        nan = float("nan")
        failure = f"{trials[-1].status}: {trials[-1].error}"
        return Entry(key, nan, nan, nan, 0.0, 0, 0, ("failed",), failure, px)
    medians = np.array([trial.median_ms for trial in good], dtype=float)
    latency = float(np.median(medians))
    low, high = np.quantile(medians, (0.25, 0.75))
    spread = float((high - low) / latency) if latency > 0 else 0.0
    counts = np.array([trial.count for trial in good], dtype=float)
    means = np.array([trial.mean_ms for trial in good], dtype=float)
    stds = np.array([trial.std_ms for trial in good], dtype=float)
    weights = counts / counts.sum() if counts.sum() else np.full(len(good), 1 / len(good))
    mean = float(weights @ means)
    std = float(np.sqrt(max(0.0, weights @ (stds**2 + (means - mean) ** 2))))
    total = int(counts.sum())
    entry = Entry(key, latency, mean, std, spread, len(good), total, _flags(good), "", px, measured_ms=latency)
    return _with_gpu_times(_with_energy(entry, good), good)


def _with_gpu_times(entry: Entry, trials: Sequence[Measurement]) -> Entry:
    times = [(trial.device_ms, trial.launch_ms) for trial in trials]
    if any(device is None or launch is None for device, launch in times):
        return entry
    device_ms, launch_ms = np.median(np.array(times, dtype=float), axis=0)
    return replace(entry, device_ms=float(device_ms), launch_ms=float(launch_ms))


def _with_energy(entry: Entry, trials: Sequence[Measurement]) -> Entry:
    """Add the energy. If the trials measured different power rails, only those of the most frequent rails count."""
    by_rails: dict[str, list[float]] = {}
    for trial in trials:
        if energy := trial.energy_mj:
            by_rails.setdefault(trial.energy_of, []).append(energy)
    if not by_rails:
        return entry
    rails = max(by_rails, key=lambda rails: (bool(rails), len(by_rails[rails])))
    energies = np.array(by_rails[rails])
    error = MEDIAN_TO_MEAN * np.std(np.log(energies), ddof=1) / np.sqrt(len(energies)) if len(energies) > 1 else None
    return replace(
        entry,
        energy_mj=float(np.median(energies)),
        energy_standard_error=None if error is None else float(error),
        energy_of=rails,
        energy_trials=len(energies),
    )


def with_standard_errors(
    entries: dict[tuple[str, int | None], Entry],
    trials: Mapping[tuple[str, int | None], Sequence[Measurement]],
    profiled_networks: Mapping[str, str],
    speed_error: Callable[[Sequence[Measurement]], float],
) -> dict[tuple[str, int | None], Entry]:
    """Add standard errors to the entries.

    The variance between the trials of an entry is shrunk towards the typical variance of the table (Smyth 2004,
    "Linear models and empirical Bayes", with a fixed prior weight).

    Trials of one profiled network count as one, because the block has the same neighbours in each. A layer of a model
    file always has the same neighbours, so that each of its trials counts.
    ``profiled_networks`` maps a trial to its network. ``speed_error`` gives the error of the speed correction.
    """
    logs = {place: _independent_logs(group, profiled_networks) for place, group in trials.items()}
    variances = {place: float(np.var(of_key, ddof=1)) for place, of_key in logs.items() if len(of_key) > 1}
    if not variances:
        return entries
    # A robust mean: the median of the variances, each divided by the median of χ²/ν (Wilson-Hilferty).
    usual = float(
        np.median([variance / (1 - 2 / (9 * (len(logs[place]) - 1))) ** 3 for place, variance in variances.items()])
    )
    errors = {}
    for place, of_key in logs.items():
        if not len(of_key):
            continue
        variance = variances.get(place, 0.0)  # trials of only one profiled network: use the typical variance
        trials_less_one = len(of_key) - 1
        freedom = trials_less_one + USUAL_WEIGHT
        pooled = (trials_less_one * variance + USUAL_WEIGHT * usual) / freedom
        of_trials = float(MEDIAN_TO_MEAN * np.sqrt(pooled / len(of_key)))
        entry = replace(entries[place], trial_error=of_trials)
        if entry.trials >= 2:
            error = float(np.hypot(of_trials, speed_error(trials[place])))
            entry = replace(entry, standard_error=error, degrees_of_freedom=float(freedom))
        unstable = entry.half_width is not None and entry.half_width > UNSTABLE_HALF_WIDTH
        errors[place] = entry.flagged(UNSTABLE) if unstable else entry
    return {**entries, **errors}


def students_t(degrees_of_freedom: float, confidence: float = 0.95) -> float:
    """Compute the two-sided quantile of Student's t, in standard errors (Cornish-Fisher expansion).

    At 95 % confidence the error is below 1 % from 4 degrees of freedom on.
    """
    z, nu = NormalDist().inv_cdf((1 + confidence) / 2), degrees_of_freedom
    return z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)


def _independent_logs(trials: Sequence[Measurement], profiled_networks: Mapping[str, str]) -> FloatArray:
    logs: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.ok and trial.median_ms and trial.median_ms > 0:
            alone = trial.taken_with == trial.trial_id or trial.key.startswith(LAYER)
            logs[trial.trial_id if alone else profiled_networks.get(trial.taken_with, trial.taken_with)].append(
                float(np.log(trial.median_ms))
            )
    return np.array([np.mean(of_one) for of_one in logs.values()])


def _flags(trials: Sequence[Measurement]) -> tuple[str, ...]:
    flags = [mark for mark in (SIMULATED, HOT, THROTTLED) if any(trial.was(mark) for trial in trials)]
    return (*flags, *([] if all(trial.warm for trial in trials) else ["cold"]))
