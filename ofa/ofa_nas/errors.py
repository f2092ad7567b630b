"""Errors of search and training, in addition to ``ofa_tables.errors``.

OfaError
├── LimitUnreachable        no network is within the limits (proven); the message has the smallest value
├── NoneFound               no network within the limits was found (not proven)
├── FunctionFailed          the user's function that evaluates networks; ``done`` has what it evaluated before
└── DataError               unusable training images: none, only one class, broken …
"""

import math
from collections.abc import Sequence

import numpy as np

from ofa_tables.errors import OfaError


class DataError(OfaError):
    pass


class FunctionFailed(OfaError):
    """``done`` are the accuracies of the first networks of the call."""

    def __init__(self, message: str, done: Sequence[float] = ()) -> None:
        super().__init__(message)
        self.done = np.asarray(done, dtype=np.float64)

    def __reduce__(self) -> tuple[type["FunctionFailed"], tuple[str]]:
        return FunctionFailed, (str(self),)


class FunctionInterrupted(KeyboardInterrupt):
    """An interrupt while the user's function ran. ``done`` are the accuracies of the first networks of the call."""

    def __init__(self, done: Sequence[float]) -> None:
        super().__init__()
        self.done = np.asarray(done, dtype=np.float64)


class NoneFound(OfaError):
    pass


class LimitUnreachable(OfaError):
    @classmethod
    def alone(cls, metric: str, unit: str, flag: str, limit: float, smallest: float, where: str) -> "LimitUnreachable":
        rounded_up = math.ceil(smallest * 1e4) / 1e4  # the printed value must work as a limit
        return cls(
            f"no network of {where} is within {limit:g} {unit}; the smallest {metric} is {rounded_up:.4f} {unit}; "
            f"raise {flag}, or allow smaller --resolutions"
        )

    @classmethod
    def together(cls, limits: Sequence[str], over: float, where: str) -> "LimitUnreachable":
        """``over``: the largest ratio of a metric to its limit, for the closest network."""
        return cls(
            f"no network of {where} is within {' and '.join(limits)} together, although each limit can be met "
            f"separately; the closest network is at {over:.3f} × a limit; raise a limit, or allow smaller --resolutions"
        )
