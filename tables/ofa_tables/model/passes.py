"""Passes: two independent measurements of each whole network. Their difference is the measurement noise.

Rounds alternate between the passes, so that a slow drift affects both equally.
"""

from collections.abc import Sequence

import numpy as np

from ofa_tables.store.measurement import Measurement
from ofa_tables.table import LatencyTable

PASSES = 2
FEWEST_TRIALS = 3  # undisturbed trials per pass


def network_passes_ms(table: LatencyTable, key: str, first_round: int = 0) -> tuple[float, float] | None:
    """Return both passes of a network in ms, from ``first_round`` on, at the device speed of the table.

    None if a pass has too few trials. Disturbed trials count only if there are too few others.
    """
    trials = [trial for trial in table.measured.trials.get((key, None), []) if trial.round >= first_round]
    return passes_ms(table.measured.steady(trials)) or passes_ms(trials)


def passes_ms(trials: Sequence[Measurement]) -> tuple[float, float] | None:
    """Return both passes in ms, each the median of the medians of its rounds; None if a pass has too few trials."""
    medians: list[list[float]] = [[], []]
    for trial in trials:
        if trial.ok and trial.median_ms is not None:
            medians[trial.round % PASSES].append(trial.median_ms)
    if not all(len(one_pass) >= FEWEST_TRIALS for one_pass in medians):
        return None
    return float(np.median(medians[0])), float(np.median(medians[1]))
