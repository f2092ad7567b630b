"""What can go wrong in a search, besides what ``ofa_tables.errors`` draws.

OfaError
└── LimitUnreachable        no network is fast enough; says the smallest latency that there is
"""

import math

from ofa_tables.errors import OfaError


class LimitUnreachable(OfaError):
    def __init__(self, limit_ms: float, smallest_ms: float, where: str) -> None:
        self.smallest_ms = smallest_ms
        rounded_up = math.ceil(smallest_ms * 1e4) / 1e4  # as a limit, the figure that people read must be met
        super().__init__(
            f"no network of {where} is within {limit_ms:g} ms; the smallest latency there is {rounded_up:.4f} ms: "
            "raise --max-latency-ms, or allow smaller --resolutions"
        )
