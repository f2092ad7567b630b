"""From all trials of a table to its measured entries: corrected to one device speed, without disturbed trials."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ofa_tables.estimates.device_speed import SpeedErrors, at_table_speed, interrupted, off_speed, usual_reference_ms
from ofa_tables.estimates.entry import FEW_SAMPLES, FEWEST_TRIALS, Entry, derive_entry, with_standard_errors
from ofa_tables.estimates.keys import kind_and_size
from ofa_tables.identity import IMPORTED
from ofa_tables.store.measurement import NETWORK, SIMULATED, Measurement


class Measured:
    """What follows from ``measurements``; ``runtime`` is that of the table. Everything is computed when asked for."""

    def __init__(self, measurements: Sequence[Measurement], runtime: str) -> None:
        self.measurements = measurements
        self._runtime = runtime

    @cached_property
    def entries(self) -> dict[tuple[str, int | None], Entry]:
        """The entries by key and resolution; those of whole networks, too."""
        steady = {place: self.steady(trials) for place, trials in self.trials.items()}
        entries = {place: derive_entry(place[0], trials) for place, trials in steady.items()}
        for place, trials in steady.items():
            if all(self._disturbed(trial) for trial in trials):
                entries[place] = entries[place].flagged("disturbed")
            if 0 < entries[place].trials < FEWEST_TRIALS and self._runtime not in (IMPORTED, SIMULATED):
                entries[place] = entries[place].flagged(FEW_SAMPLES)
        profiled_networks = {trial.trial_id: trial.key for trial in self.measurements if trial.key.startswith(NETWORK)}
        return with_standard_errors(entries, steady, profiled_networks, self._speed_errors)

    @property
    def of_blocks(self) -> list[Entry]:
        """The entries of blocks, in the order of their first measurement."""
        return [entry for (key, _), entry in self.entries.items() if not key.startswith(NETWORK)]

    @cached_property
    def sizes(self) -> dict[str, set[int]]:
        """The map sizes of the measured blocks of each kind (``keys.kind_and_size``)."""
        sizes: dict[str, set[int]] = defaultdict(set)
        for entry in self.of_blocks:
            if not entry.failure and (place := kind_and_size(entry.key)):
                sizes[place[0]].add(place[1])
        return dict(sizes)

    @property
    def common_error(self) -> float:
        """The relative error that all entries have in common."""
        return self._speed_errors.common

    @cached_property
    def _speed_errors(self) -> SpeedErrors:
        return SpeedErrors(self.measurements, self._at_table_speed)

    @cached_property
    def reference_ms(self) -> float | None:
        """The device speed of the table: the latency of the reference job in ms."""
        return usual_reference_ms(self.measurements)

    @cached_property
    def trials(self) -> dict[tuple[str, int | None], list[Measurement]]:
        """Trials by key and resolution, corrected to the device speed of the table."""
        trials: dict[tuple[str, int | None], list[Measurement]] = defaultdict(list)
        for measurement in self._at_table_speed:
            trials[measurement.key, measurement.resolution_px].append(measurement)
        return dict(trials)

    @cached_property
    def _at_table_speed(self) -> list[Measurement]:
        return at_table_speed(self.measurements, self.reference_ms)

    @cached_property
    def _far(self) -> set[str]:
        """The ids of trials with a device speed far from that of the table."""
        both = zip(self.measurements, self._at_table_speed, strict=True)
        return {trial.trial_id for trial, scaled in both if off_speed(trial.median_ms, scaled.median_ms)}

    @cached_property
    def _interrupted(self) -> set[str]:
        """The ids of trials that other processes interrupted more than usual.

        Profiled networks have their own usual value, so that networks measured later do not change the entries.
        """
        with_blocks = {trial.taken_with for trial in self.measurements if not trial.key.startswith(NETWORK)}
        means_ms: tuple[dict[str, float], dict[str, float]] = ({}, {})
        for trial in self.measurements:
            if trial.taken_with == trial.trial_id and (mean_ms := trial.reference_mean_ms):
                means_ms[trial.trial_id in with_blocks][trial.trial_id] = mean_ms
        found = set()
        for of_kind in filter(None, means_ms):
            usual_ms = float(np.median(list(of_kind.values())))
            found |= {trial_id for trial_id, mean_ms in of_kind.items() if interrupted(mean_ms, usual_ms)}
        return found

    def steady(self, trials: Sequence[Measurement]) -> list[Measurement]:
        """Return the undisturbed trials, or all trials if none of the undisturbed ones succeeded.

        A trial is disturbed if the device speed changed, if it was far from that of the table, or if other processes
        interrupted the trial.
        """
        kept = [trial for trial in trials if not self._disturbed(trial)]
        return kept if any(trial.ok for trial in kept) else list(trials)

    def _disturbed(self, trial: Measurement) -> bool:
        return trial.disturbed or trial.trial_id in self._far or trial.taken_with in self._interrupted
