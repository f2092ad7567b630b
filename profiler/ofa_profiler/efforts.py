"""Efforts: how many Visits, and how long each burst may take.

Many short Visits beat few long ones: a burst agrees with itself, but devices change their pace from second to second.
"""

from dataclasses import dataclass

from ofa_agent.timing import Budget


@dataclass(frozen=True)
class Effort:
    """``rounds`` is in how many rounds each Block is visited; ``budget`` is for a Block alone."""

    rounds: int
    budget: Budget


# Of a whole network: even one that takes long is run several times.
NETWORK_BUDGET = Budget(warmup_s=1.0, window_s=0.0, burst_min_s=0.0, burst_max_s=0.03)

BUDGET = Budget(warmup_s=0.5, window_s=0.004, burst_min_s=0.015, burst_max_s=0.025)

EFFORTS = {
    "quick": Effort(3, BUDGET._replace(burst_min_s=0.005, burst_max_s=0.01)),
    "standard": Effort(6, BUDGET),
    "thorough": Effort(21, BUDGET),
}
