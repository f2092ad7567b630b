"""Rank correlation."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

FloatArray = np.ndarray[Any, np.dtype[Any]]


def kendall_tau(x: Sequence[float] | FloatArray, y: Sequence[float] | FloatArray) -> float | None:
    """Compute Kendall's tau-b over all pairs; None if all values of one side are equal or a value is not finite."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    concordance = untied_x = untied_y = 0
    for at in range(1, len(x)):  # one row at a time: the matrix of all pairs would not fit into memory
        order_x, order_y = np.sign(x[at] - x[:at]), np.sign(y[at] - y[:at])
        concordance += int(order_x @ order_y)
        untied_x += int(np.count_nonzero(order_x))
        untied_y += int(np.count_nonzero(order_y))
    return concordance / math.sqrt(untied_x * untied_y) if untied_x and untied_y else None
