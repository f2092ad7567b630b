"""Check that devices of one model agree: every device first runs the same trials, and results are kept only if they
agree."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ofa_profiler.campaign.decoding import latency_ms
from ofa_profiler.campaign.device_pool import DeviceWorker
from ofa_profiler.campaign.jobs import Trial

# The number of jobs and rounds that every device runs.
COMPARED_JOBS = 6
COMPARED_ROUNDS = 2
# Devices of one model that differ by more than this do not agree: one is hot, worn, or saves power.
APART = 0.12


class AgreementCheck:
    """Every device runs the ``shared`` trials, chosen from those that wait. Results that arrive meanwhile are ``held``,
    with the device.
    """

    def __init__(self, waiting: Sequence[Trial], devices: Sequence[str]) -> None:
        rounds = sorted({trial.round for trial in waiting})[:COMPARED_ROUNDS]
        first = [trial for trial in waiting if trial.round in rounds]
        jobs = {trial.job.key: trial.job for trial in first}
        chosen = spread(list(jobs.values()), COMPARED_JOBS, lambda job: job.size)
        keys = {job.key for job in chosen}
        self.shared = [trial for trial in first if trial.job.key in keys]
        self.held: list[tuple[DeviceWorker, Any, Trial]] = []
        self._own = {
            device: [replace(trial, trial_id=uuid.uuid4().hex, compared=True) for trial in self.shared]
            for device in devices
        }

    @property
    def devices(self) -> int:
        """How many devices take part."""
        return len(self._own)

    def waiting_for(self, device: str) -> list[Trial]:
        """The trials that a device has still to run; the next one is last."""
        return self._own.get(device, [])

    def leave(self, device: str) -> None:
        """Remove a device that was lost."""
        self._own.pop(device, None)

    def is_over(self, working: Sequence[DeviceWorker]) -> bool:
        """Whether every device has run its trials and none is under way."""
        under_way = (trial for worker in working for trial in worker.under_way.values())
        return not any(self._own.values()) and not any(trial.compared for trial in under_way)

    def agreement(self) -> "Agreement":
        """The agreement of all devices that took part."""
        agreement = Agreement()
        for worker, message, trial in self.held:
            if trial.compared and message.status == "ok":
                agreement.add(worker.name, message.key, latency_ms(message))
        return agreement

    def left(self) -> list[Trial]:
        """The shared trials without a result from a device that is still in the pool."""
        kept = {(trial.job.key, trial.round) for worker, _, trial in self.held if not worker.out}
        return [trial for trial in self.shared if (trial.job.key, trial.round) not in kept]


@dataclass
class Agreement:
    """How much devices of one kind differ: latencies of the same jobs in ms, by device, then key."""

    _latencies_ms: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, device: str, key: str, latency_ms: float) -> None:
        self._latencies_ms.setdefault(device, {}).setdefault(key, []).append(latency_ms)

    def factors(self) -> dict[str, float]:
        """The latency of each device relative to the median device: the median over the keys that all have run."""
        if not self._latencies_ms:
            return {}
        common = sorted(set.intersection(*(set(of_device) for of_device in self._latencies_ms.values())))
        if not common:
            return {}
        taken = np.array([[np.median(by[key]) for key in common] for by in self._latencies_ms.values()])
        over = np.median(taken / np.median(taken, axis=0), axis=1)
        return dict(zip(self._latencies_ms, map(float, over), strict=True))

    def off(self) -> dict[str, float]:
        """The devices that differ from the others, with their factors. Of two devices it is the slower one, since no
        device runs faster than it can.
        """
        factors = self.factors()
        usual = min(factors.values(), default=1.0) if len(factors) < 3 else 1.0
        return {device: factor / usual for device, factor in factors.items() if abs(factor / usual - 1) > APART}


def spread(jobs: Sequence[Any], count: int, size: Callable[[Any], float]) -> list[Any]:
    """``count`` of the jobs, evenly from the smallest to the largest."""
    ordered = sorted(jobs, key=size)
    chosen = np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int))
    return [ordered[index] for index in chosen]
