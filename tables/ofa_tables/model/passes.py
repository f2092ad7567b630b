"""Passes: each whole network is measured twice, independently, and the difference of the two is the measurement noise.

Trials alternate between the two, round by round, so that a slow drift meets both alike.
"""

from collections.abc import Sequence

import numpy as np

from ofa_tables.store.measurement import Measurement
from ofa_tables.table import LatencyTable

PASSES = 2
FEWEST_TRIALS = 3  # of a pass: disturbed ones do not count


def network_passes_ms(table: LatencyTable, key: str, first_round: int = 0) -> tuple[float, float] | None:
    """Of one network, from a round on, at the table's speed; None where it was not measured in both. Disturbed trials
    count where there are too few others."""
    trials = [trial for trial in table.trials.get((key, None), []) if trial.round >= first_round]
    return passes_ms(table.steady(trials)) or passes_ms(trials)


def passes_ms(trials: Sequence[Measurement]) -> tuple[float, float] | None:
    """The two independent passes of one network: each the median of the medians of its rounds."""
    medians: list[list[float]] = [[], []]
    for trial in trials:
        if trial.ok and trial.median_ms is not None:
            medians[trial.round % PASSES].append(trial.median_ms)
    if not all(len(one_pass) >= FEWEST_TRIALS for one_pass in medians):
        return None
    return float(np.median(medians[0])), float(np.median(medians[1]))
