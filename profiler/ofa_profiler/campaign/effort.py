"""Effort levels: the number of rounds and the duration of a burst.

Many short trials beat few long ones: a burst agrees with itself, but devices change their speed from second to second.
"""

from dataclasses import dataclass

from ofa_agent.measuring.timing import REFERENCE_RUNS, REFERENCE_S, WINDOW_RUNS, Budget
from ofa_agent.operators import Block


@dataclass(frozen=True)
class Effort:
    """``rounds`` is how often each block is timed, if all are; ``budget`` is for a block timed alone.

    ``error`` is the wanted half of the 95 % interval of networks if only some blocks are timed.
    """

    rounds: int
    budget: Budget
    error: float


# For a whole network: even a slow one runs several times.
NETWORK_BUDGET = Budget(warmup_s=1.0, window_s=0.0, burst_min_s=0.0, burst_max_s=0.03)

BUDGET = Budget(warmup_s=0.5, window_s=0.004, burst_min_s=0.015, burst_max_s=0.025)

EFFORTS = {
    "quick": Effort(4, BUDGET._replace(burst_min_s=0.005, burst_max_s=0.01), 0.03),
    "standard": Effort(8, BUDGET, 0.02),
    "thorough": Effort(24, BUDGET, 0.01),
}


@dataclass(frozen=True)
class Probe:
    """One trial of the reference job, from which the duration of other trials is estimated.

    ``untimed_s`` is the part of its trial outside timed iterations, ``latency_s`` the duration of one iteration.
    """

    network: Block
    untimed_s: float
    latency_s: float

    def expected_s(self, job: Block, budget: Budget, bursts: int) -> float:
        """The approximate duration of one trial in s: latency scales with MACs, loading with weights."""
        latency_s = self.latency_s * job.macs / self.network.macs
        burst_s = (1 + 2 * WINDOW_RUNS) * latency_s + max(budget.burst_max_s, budget.min_runs * latency_s)
        reference_s = self.latency_s + max(REFERENCE_S, REFERENCE_RUNS * self.latency_s)  # one accompanies each burst
        return self.untimed_s * max(0.2, job.parameters / self.network.parameters) + bursts * (burst_s + reference_s)
