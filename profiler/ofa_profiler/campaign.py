"""A campaign: what is still to be measured, in shuffled rounds, until done.

Blocks and whole networks alike are Tasks. A Task is complete when each of its rounds has one Measurement that
succeeded; what the table holds already counts, so that a campaign which was cut short goes on where it stopped.
"""

import random
import socket
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ofa_agent import wire
from ofa_agent.operators import Block
from ofa_agent.timing import Budget
from ofa_profiler.client import Lease
from ofa_profiler.connections import Connection
from ofa_profiler.lowering import Model, lower
from ofa_tables.errors import AgentLost
from ofa_tables.measurement import RETRIED, Measurement, statistics
from ofa_tables.table import Identity, LatencyTable

# Inside a network a Block finds its weights cold: the others' have passed through the caches since its last run. Timed
# over and over alone, it finds them warm, and a sum of such times is wrong by as much as weights differ (measured in
# docs/measuring.md). So much clears the caches that a core has to itself, and leaves the shared ones as they are.
OTHERS_BYTES = 4 << 20

VISIT_TIMEOUT_S = 120.0
RETRIES = 2  # of one Visit, before the campaign goes on without it
RESTARTS = 3  # of the agent, without a single Measurement in between
RESTART_PAUSE_S = 1.0


@dataclass(frozen=True)
class Task:
    """A Block, or a whole network as one, to be visited once in each round.

    ``others_bytes`` are moved through the caches before each run: see OTHERS_BYTES.
    """

    block: Block
    model: Model
    others_bytes: int = 0


@dataclass(frozen=True)
class Visit:
    visit_id: str
    task: Task
    round: int
    attempt: int = 0


class Progress(Protocol):
    """What a campaign tells while it runs."""

    def begin(self, visits: int) -> None: ...

    def measured(self, measurement: Measurement, visits_left: int) -> None: ...

    def say(self, text: str) -> None: ...


@dataclass
class Outcome:
    """What one run of a campaign did: keys by what became of them, and where the time went."""

    measured: int = 0
    reused: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    visits: int = 0
    timed_seconds: float = 0.0


def lower_tasks(blocks: Sequence[Block], runtime: str, batch: int, others_bytes: int = 0) -> list[Task]:
    """One Task a key; everything is lowered before the first Visit, for the host may be the device too."""
    distinct = {block.key: block for block in blocks}.values()
    return [Task(block, lower(runtime, block, batch), others_bytes) for block in distinct]


class Campaign:
    def __init__(
        self,
        table: LatencyTable,
        tasks: Sequence[Task],
        rounds: int,
        budget: Budget,
        progress: Progress,
        purpose: str,
    ) -> None:
        self._table = table
        self._tasks = {task.block.key: task for task in tasks}
        self._models = {task.model.model_id: task.model for task in tasks}
        self._rounds = rounds
        self._budget = budget
        self._progress = progress
        self._purpose = purpose
        self._settings = _settings_message(table.identity)
        # The same after a crash, so that the host gets its own lease back; another for a copy of the table.
        self._lease_id = f"{table.id}@{socket.gethostname()}:{table.path.absolute()}"
        self._outcome = Outcome()

    def run(self, connection: Connection) -> Outcome:
        """Measures what is missing. The agent may be lost and started again on the way; what came back is kept."""
        reused = set(self._tasks) - {visit.task.block.key for visit in self._plan()}
        losses, last_visits = 0, 0
        if self._plan():
            self._progress.begin(len(self._plan()))
        while self._plan():
            try:
                with connection.agent.lease(self._lease_id, self._purpose) as lease:
                    self._measure(lease)
            except AgentLost as lost:
                losses = losses + 1 if self._outcome.visits == last_visits else 1
                last_visits = self._outcome.visits
                if losses > RESTARTS:
                    raise
                self._progress.say(f"{lost}; going on with a new connection ({losses} of {RESTARTS})")
                time.sleep(RESTART_PAUSE_S * losses)
                connection.reopen()
        self._outcome.reused = len(reused)
        self._outcome.measured = len(self._tasks) - len(reused) - len(self._outcome.failures)
        return self._outcome

    def _plan(self) -> list[Visit]:
        """The Visits still to be taken: round after round, shuffled within each, always in the same order."""
        done: dict[str, set[int]] = defaultdict(set)
        for measurement in self._table.measurements:
            if measurement.ok:
                done[measurement.key].add(measurement.round)
        visits = []
        for number in range(self._rounds):
            keys = [key for key in self._tasks if number not in done[key] and key not in self._outcome.failures]
            random.Random(number).shuffle(keys)
            visits += [Visit(uuid.uuid4().hex, self._tasks[key], number) for key in keys]
        return visits

    def _measure(self, lease: Lease) -> None:
        waiting = self._plan()[::-1]
        under_way: dict[str, Visit] = {}

        def next_visit() -> Any:
            while waiting:
                visit = waiting.pop()
                if visit.task.block.key not in self._outcome.failures:
                    under_way[visit.visit_id] = visit
                    return self._message(visit)
            return None

        for message in lease.measure(next_visit, self._models):
            visit = under_way.pop(message.visit_id, None) or self._adopt(message, waiting)
            if visit is None:
                lease.acknowledge([message.visit_id])
                continue
            measurement = _measurement(message, visit.round)
            self._table.add([measurement])
            lease.acknowledge([message.visit_id])
            self._outcome.visits += 1
            self._outcome.timed_seconds += measurement.timed_ns / 1e9
            if not measurement.ok:
                self._retry(visit, measurement, waiting)
            self._progress.measured(measurement, len(waiting) + len(under_way))

    def _adopt(self, message: Any, waiting: list[Visit]) -> Visit | None:
        """A Measurement from before the link was lost takes the place of a Visit that still waits, if it is new."""
        if any(measurement.visit_id == message.visit_id for measurement in self._table.measurements):
            return None
        for visit in reversed(waiting):
            if visit.task.block.key == message.key:
                waiting.remove(visit)
                return visit
        return None

    def _retry(self, visit: Visit, measurement: Measurement, waiting: list[Visit]) -> None:
        """At the end of the run, when what disturbed it may have passed."""
        if measurement.status in RETRIED and visit.attempt < RETRIES:
            waiting.insert(0, replace(visit, visit_id=uuid.uuid4().hex, attempt=visit.attempt + 1))
            return
        self._outcome.failures[measurement.key] = f"{measurement.status}: {measurement.error}"

    def _message(self, visit: Visit) -> Any:
        task = visit.task
        job = wire.job_message(task.block, self._settings, task.model.model_id, task.others_bytes)
        message = wire.Visit(visit_id=visit.visit_id, job=job)
        wire.set_budget(message.budget, self._budget, VISIT_TIMEOUT_S)
        return message


def _settings_message(identity: Identity) -> Any:
    settings = identity.settings
    return wire.Settings(
        runtime=identity.runtime, precision=settings.precision, threads=settings.threads, batch=settings.batch
    )


def _measurement(message: Any, number: int) -> Measurement:
    measurement = Measurement(
        visit_id=message.visit_id,
        key=message.key,
        status=message.status,
        error=message.error,
        round=number,
        warmup_runs=message.warmup_runs,
        first_ns=message.first_ns,
        timed_ns=message.timed_ns,
        load_ns=message.load_ns,
        warm=message.warm,
        narrow=message.narrow,
        started_at=message.started_at,
    )
    if message.status != "ok":
        return measurement
    return replace(measurement, **statistics(message.samples_ns))
