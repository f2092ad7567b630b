"""Whether the devices that share a campaign are alike: first they all take the same Visits, and only then is kept what
they brought."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ofa_profiler.campaign.decoding import latency_ms
from ofa_profiler.campaign.device_pool import Hand
from ofa_profiler.campaign.jobs import Visit

# Each device takes so many of a campaign's Visits.
COMPARED_TASKS = 6
COMPARED_ROUNDS = 2
# Devices of one kind that lie further apart are not of one kind: one of them is hot, worn, or saves power.
APART = 0.12


class Trial:
    """``shared`` are those of the ``waiting`` Visits that each of the devices takes; what any Visit brings meanwhile is
    ``held``, with the device that took it."""

    def __init__(self, waiting: Sequence[Visit], devices: Sequence[str]) -> None:
        rounds = sorted({visit.round for visit in waiting})[:COMPARED_ROUNDS]
        first = [visit for visit in waiting if visit.round in rounds]
        tasks = {visit.task.block.key: visit.task for visit in first}
        chosen = spread(list(tasks.values()), COMPARED_TASKS, lambda task: task.block.macs)
        keys = {task.block.key for task in chosen}
        self.shared = [visit for visit in first if visit.task.block.key in keys]
        self.held: list[tuple[Hand, Any, Visit]] = []
        self._own = {
            device: [replace(visit, visit_id=uuid.uuid4().hex, compared=True) for visit in self.shared]
            for device in devices
        }

    @property
    def devices(self) -> int:
        """So many take part in it."""
        return len(self._own)

    def waiting_for(self, device: str) -> list[Visit]:
        """What it has still to take; the next one is the last."""
        return self._own.get(device, [])

    def leave(self, device: str) -> None:
        """One that was lost takes no further part in it."""
        self._own.pop(device, None)

    def is_over(self, working: Sequence[Hand]) -> bool:
        """Whether all that take part have taken theirs, and nothing is on its way."""
        under_way = (visit for hand in working for visit in hand.under_way.values())
        return not any(self._own.values()) and not any(visit.compared for visit in under_way)

    def agreement(self) -> "Agreement":
        """By what all of them took."""
        agreement = Agreement()
        for hand, message, visit in self.held:
            if visit.compared and message.status == "ok":
                agreement.add(hand.name, message.key, latency_ms(message))
        return agreement

    def left(self) -> list[Visit]:
        """The shared ones that only devices took which are out by now, or were lost over it."""
        kept = {(visit.task.block.key, visit.round) for hand, _, visit in self.held if not hand.out}
        return [visit for visit in self.shared if (visit.task.block.key, visit.round) not in kept]


@dataclass
class Agreement:
    """How far devices of one kind lie apart, by what the same Jobs take on each; in ms by device, then key."""

    _latencies_ms: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, device: str, key: str, latency_ms: float) -> None:
        self._latencies_ms.setdefault(device, {}).setdefault(key, []).append(latency_ms)

    def factors(self) -> dict[str, float]:
        """What each takes over what they take in the median, in the median over the keys that all have run."""
        if not self._latencies_ms:
            return {}
        common = sorted(set.intersection(*(set(of_device) for of_device in self._latencies_ms.values())))
        if not common:
            return {}
        taken = np.array([[np.median(by[key]) for key in common] for by in self._latencies_ms.values()])
        over = np.median(taken / np.median(taken, axis=0), axis=1)
        return dict(zip(self._latencies_ms, map(float, over), strict=True))

    def off(self) -> dict[str, float]:
        """Those that are not like the others, and how they stand to them. Of two, the slower one: none is faster than
        it can be."""
        factors = self.factors()
        usual = min(factors.values(), default=1.0) if len(factors) < 3 else 1.0
        return {device: factor / usual for device, factor in factors.items() if abs(factor / usual - 1) > APART}


def spread(tasks: Sequence[Any], count: int, size: Callable[[Any], float]) -> list[Any]:
    """``count`` of the tasks, evenly from the smallest to the largest."""
    ordered = sorted(tasks, key=size)
    chosen = np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int))
    return [ordered[index] for index in chosen]
