"""Errors of search and training, in addition to ``ofa_tables.errors``.

OfaError
├── LimitUnreachable        no network is within the limits; says the smallest figure that there is
├── NoneFound               none within them was found; that there is none is not proven
└── DataError               images to train with: none, of one class, broken …
"""

import math
from collections.abc import Sequence

from ofa_tables.errors import OfaError


class DataError(OfaError):
    pass


class NoneFound(OfaError):
    pass


class LimitUnreachable(OfaError):
    @classmethod
    def alone(cls, meter: str, unit: str, flag: str, limit: float, smallest: float, where: str) -> "LimitUnreachable":
        rounded_up = math.ceil(smallest * 1e4) / 1e4  # as a limit, the figure that people read must be met
        return cls(
            f"no network of {where} is within {limit:g} {unit}; the smallest {meter} there is {rounded_up:.4f} {unit}: "
            f"raise {flag}, or allow smaller --resolutions"
        )

    @classmethod
    def together(cls, limits: Sequence[str], over: float, where: str) -> "LimitUnreachable":
        """``over`` is how many times its limit the worst figure is of the network that comes nearest."""
        return cls(
            f"no network of {where} is within {' and '.join(limits)} together, though each alone can be met; the one "
            f"that comes nearest is {over:.3f} × over one of them: raise one, or allow smaller --resolutions"
        )
