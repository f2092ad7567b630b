"""Efforts: how many Visits, and how long each burst may take."""

from dataclasses import dataclass

from ofa_agent.timing import Budget


@dataclass(frozen=True)
class Effort:
    rounds: int
    budget: Budget


EFFORTS = {
    "quick": Effort(3, Budget(warmup_s=0.3, burst_min_s=0.02, burst_max_s=0.06)),
    "standard": Effort(3, Budget(warmup_s=0.5, burst_min_s=0.04, burst_max_s=0.12)),
    "thorough": Effort(7, Budget(warmup_s=1.0, burst_min_s=0.1, burst_max_s=0.3, half_width=0.003)),
}
