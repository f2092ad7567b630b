"""A campaign: what is still to be measured, in shuffled rounds, until done.

Blocks and whole networks alike are Tasks. A Task is complete when each round that it is in has a Measurement of it that
succeeded; what the table holds already counts, so that a campaign which was cut short goes on where it stopped.
"""

import itertools
import random
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ofa_agent.measuring.timing import Budget
from ofa_agent.protocol import messages as wire
from ofa_profiler.campaign.decoding import latency_ms, measurement_of, parts_of
from ofa_profiler.campaign.device_agreement import Trial
from ofa_profiler.campaign.device_pool import RESTARTS, Crew, Event, Hand
from ofa_profiler.campaign.disturbance import Drift
from ofa_profiler.campaign.effort import Probe
from ofa_profiler.campaign.jobs import Task, Visit, reference_task
from ofa_profiler.connections import Connection
from ofa_tables.errors import OfaError
from ofa_tables.store.measurement import RETRIED, Measurement
from ofa_tables.table import Identity, LatencyTable

VISIT_TIMEOUT_S = 120.0
COOL_S = 120.0  # a hot device is waited for, before a Visit
RETRIES = 2  # of one Visit that failed, before the campaign goes on without it
RETAKES = 1  # of one that was disturbed


class Progress(Protocol):
    """What a campaign tells while it runs."""

    def begin(self, visits: int) -> None: ...

    def measured(self, measurement: Measurement, visits_left: int) -> None: ...

    def say(self, text: str) -> None: ...


@dataclass
class Outcome:
    """What one run of a campaign did: how often each key was visited, why Tasks failed, and where the time went.

    ``not_set`` are the conditions that could not be set, and why. ``waited_seconds``: the worker, for the link. Where
    several devices shared it, ``shares`` says how many Visits each took, ``factors`` how they lie to each other, and
    ``set_aside`` why one was left out.
    """

    visits: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    timed_seconds: float = 0.0
    cooled_seconds: float = 0.0
    waited_seconds: float = 0.0
    not_set: dict[str, str] = field(default_factory=dict)
    shares: Counter[str] = field(default_factory=Counter)
    factors: dict[str, float] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)

    def include(self, later: "Outcome") -> None:
        """What another campaign of the same command did thereafter."""
        self.visits += later.visits
        self.failures |= later.failures
        self.timed_seconds += later.timed_seconds
        self.cooled_seconds += later.cooled_seconds
        self.waited_seconds += later.waited_seconds
        self.not_set |= later.not_set
        self.shares += later.shares
        self.factors |= later.factors
        self.set_aside |= later.set_aside


class Campaign:
    """``rounds`` are the Tasks of each; their order within a round is shuffled.

    ``announce`` is told about how many seconds it will take, after a first Visit of the reference Job. What the agent
    still holds of an earlier command, that was cut short, counts where ``adopts``.
    """

    def __init__(
        self,
        table: LatencyTable,
        rounds: Sequence[Sequence[Task]],
        budget: Budget,
        progress: Progress,
        purpose: str,
        announce: Callable[[float], None] | None = None,
        adopts: bool = True,
    ) -> None:
        self._announce = announce
        self._adopts = adopts
        self._table = table
        self._rounds = rounds
        self._reference = reference_task(table.identity.runtime, table.identity.settings.precision)
        tasks = [self._reference, *itertools.chain.from_iterable(rounds)]
        self._models = {task.model.model_id: task.model for task in tasks}
        self._budget = budget
        self._progress = progress
        self._purpose = purpose
        self._settings = _settings_message(table.identity)
        self._reference_job = wire.job_message(
            self._reference.block, _settings_message(table.identity, batch=1), self._reference.model.model_id
        )
        # The same after a crash, so that the host gets its own lease back; another for a copy of the table.
        self._lease_id = f"{table.id}@{socket.gethostname()}:{table.path.absolute()}"
        self._outcome = Outcome()
        self._no_reference = False
        self._waiting: list[Visit] = []
        self._hands: list[Hand] = []
        self._drifts: dict[str, Drift[Visit]] = {}
        self._probe = Visit(uuid.uuid4().hex, self._reference, 0)
        self._probing = False
        self._started = 0.0
        self._trial: Trial | None = None  # while devices are compared

    def run(self, connection: Connection) -> Outcome:
        """Measures what is missing, on every device of the connection. An agent may be lost and started again on the
        way; what came back is kept."""
        self._waiting = self._plan()[::-1]
        if not self._waiting:
            return self._outcome
        self._progress.begin(len(self._waiting))
        self._started = time.perf_counter()
        crew = Crew(connection, self._lease_id, self._purpose, self._models, self._next_visit, self._progress.say)
        self._hands = crew.hands
        self._outcome.set_aside = {hand.name: hand.out for hand in crew.hands if hand.out}
        if len(crew.working) > 1:
            self._trial = Trial(self._waiting, [hand.name for hand in crew.working])
            self._waiting = [visit for visit in self._waiting if visit not in self._trial.shared]
        with crew:
            for event in crew.events():
                self._handle(event, crew)
                if self._is_done(crew):
                    break
        return self._outcome

    def _handle(self, event: Event, crew: Crew) -> None:
        hand = event.hand
        if event.lost is not None:
            self._lose(hand, event.lost, crew)
        elif event.came is None:
            self._tell_not_set(hand.lease.not_set if hand.lease else {})
        else:
            self._receive(hand, event.came)
        self._judge(crew)

    def _is_done(self, crew: Crew) -> bool:
        """At the end of a run the Visits that a device was disturbed during are taken again."""
        if self._outcome.failures:  # nobody is to wait for a Visit that nobody takes
            self._waiting = [visit for visit in self._waiting if visit.task.block.key not in self._outcome.failures]
        if self._waiting or self._trial or any(hand.under_way for hand in crew.hands):
            return False
        for drift in self._drifts.values():
            self._waiting += self._again(drift)
        return not self._waiting

    def _lose(self, hand: Hand, error: OfaError, crew: Crew) -> None:
        """What was on its way to a lost agent is for whoever is free next. Raises where nobody is left."""
        lost = [visit for visit in hand.under_way.values() if visit is not self._probe and not visit.compared]
        self._waiting += lost
        hand.under_way.clear()
        if self._trial is not None:
            self._trial.leave(hand.name)
        if hand.out:
            if not crew.working:
                raise error
            self._progress.say(f"{error}; going on without {hand.name}")
            self._set_aside(hand, str(error))
        else:
            self._progress.say(f"{error}; going on with a new connection ({hand.losses} of {RESTARTS})")

    def _set_aside(self, hand: Hand, reason: str) -> None:
        """For this campaign and those that follow it in the same command."""
        hand.out = hand.connection.set_aside = self._outcome.set_aside[hand.name] = reason

    def _judge(self, crew: Crew) -> None:
        """Once every device has run the same Jobs: those that are not like the others are set aside."""
        trial = self._trial
        if trial is None or not trial.is_over(crew.working):
            return
        self._trial = None
        agreement = trial.agreement()
        self._outcome.factors = agreement.factors()
        for hand in crew.working:
            factor = agreement.off().get(hand.name)
            if factor is not None:
                self._set_aside(hand, f"what the others take it takes {factor:.2f} × as long for")
                self._progress.say(f"{hand.name} is set aside: {hand.out}; is it hot, or does it save power?")
                self._waiting += [visit for visit in hand.under_way.values() if not visit.compared]
                hand.under_way.clear()
        self._waiting += trial.left()
        for hand, message, visit in trial.held:
            if not hand.out:
                self._keep(hand, message, visit)
            elif not visit.compared:
                self._waiting.append(visit)

    def _tell_not_set(self, not_set: dict[str, str]) -> None:
        for setting, reason in not_set.items():
            if self._outcome.not_set.get(setting) != reason:
                self._progress.say(f"{setting} could not be set: {reason}; measuring on without")
        self._outcome.not_set |= not_set  # several devices may differ in that

    def _tell_no_reference(self, error: str) -> None:
        if error and not self._no_reference:
            self._progress.say(f"the reference job does not run there ({error}): visits count as they come")
            self._no_reference = True

    def _plan(self) -> list[Visit]:
        """The Visits still to be taken: round after round, shuffled within each, always in the same order."""
        done = self._table.rounds_of()
        visits = []
        for number, tasks in enumerate(self._rounds):
            tasks = [
                task
                for task in tasks
                if number not in done.get(task.block.key, ()) and task.block.key not in self._outcome.failures
            ]
            random.Random(number).shuffle(tasks)
            visits += [Visit(uuid.uuid4().hex, task, number) for task in tasks]
        return visits

    def _next_visit(self, hand: Hand) -> Any:
        """The next one's message for a device; None where there is none for it just now."""
        if self._announce is not None and not self._probing:
            self._probing = True
            hand.under_way[self._probe.visit_id] = self._probe
            return self._message(self._probe)
        visits = (self._trial.waiting_for(hand.name) if self._trial else []) or self._waiting
        if not visits:
            return None
        visit = visits.pop()
        hand.under_way[visit.visit_id] = visit
        return self._message(visit)

    def _receive(self, hand: Hand, message: Any) -> None:
        visit = hand.under_way.pop(message.visit_id, None)
        if message.visit_id == self._probe.visit_id:
            self._expect(message, hand)
            return  # not acknowledged, for it is not kept
        visit = visit or self._adopt(message, self._waiting)
        if visit is None or hand.out:
            self._acknowledge(hand, message)
        elif self._trial is not None:
            self._trial.held.append((hand, message, visit))
        else:
            self._keep(hand, message, visit)

    def _keep(self, hand: Hand, message: Any, visit: Visit) -> None:
        self._outcome.waited_seconds += message.waited_s if self._outcome.shares[hand.name] else 0.0
        self._outcome.shares[hand.name] += 1
        measurement = measurement_of(message, visit.round, hand.name if len(self._hands) > 1 else "")
        measurements = [measurement, *parts_of(message, measurement)]
        self._table.add(measurements)
        self._acknowledge(hand, message)
        self._outcome.visits.update(taken.key for taken in measurements)
        self._outcome.timed_seconds += measurement.timed_ns / 1e9
        self._outcome.cooled_seconds += message.cooled_s
        self._tell_no_reference(message.reference_error)
        if not measurement.ok or (measurement.disturbed and not visit.task.parts):
            self._retry(visit, measurement, self._waiting)
        else:
            self._drifts.setdefault(hand.name, Drift()).watch(measurement, visit)
        left = sum(len(other.under_way) for other in self._hands)
        self._progress.measured(measurement, len(self._waiting) + left)

    def _acknowledge(self, hand: Hand, message: Any) -> None:
        if hand.lease is not None:
            hand.lease.acknowledge([message.visit_id])

    def _expect(self, message: Any, hand: Hand) -> None:
        """From a Visit of the reference Job, how long the others will take; nothing else is kept of it."""
        took_s = time.perf_counter() - self._started
        if self._announce is not None and message.status == "ok":
            probe = Probe(self._reference.block, max(0.0, took_s - message.timed_ns / 1e9), latency_ms(message) / 1e3)
            visits = [*self._waiting, *hand.under_way.values()]
            expected_s = sum(probe.expected_s(visit.task.block, self._budget, visit.bursts) for visit in visits)
            self._announce(expected_s / max(1, self._trial.devices if self._trial else 1))
        self._announce = None

    def _adopt(self, message: Any, waiting: list[Visit]) -> Visit | None:
        """A Measurement from before the link was lost takes the place of a Visit that still waits, if it is new."""
        if any(measurement.visit_id == message.visit_id for measurement in self._table.measurements):
            return None
        fitting = [
            visit
            for visit in reversed(waiting)
            if visit.task.block.key == message.key and bool(visit.task.parts) == bool(message.parts)
        ]
        if not fitting:
            return None
        own = next((visit for visit in fitting if visit.visit_id == message.visit_id), None)
        visit = own or (fitting[0] if self._adopts else None)
        if visit is not None:
            waiting.remove(visit)
        return visit

    def _retry(self, visit: Visit, measurement: Measurement, waiting: list[Visit]) -> None:
        """One that failed or was disturbed, again at the end of the run, when what disturbed it may have passed."""
        limit = RETAKES if measurement.ok else RETRIES if measurement.status in RETRIED else 0
        if visit.attempt < limit:
            waiting.insert(0, visit.again())
        elif not measurement.ok:
            self._outcome.failures[measurement.key] = f"{measurement.status}: {measurement.error}"

    def _again(self, drift: Drift[Visit]) -> list[Visit]:
        """At the end of a run, the Visits that the device was disturbed during, to be taken again."""
        found = drift.disturbed()
        if found is None:
            return []
        disturbed, stretch = found
        again = [visit.again() for visit in disturbed if visit.attempt < RETAKES]
        if round(stretch.seconds):  # what took no time is taken again without a word
            self._progress.say(
                f"[yellow]disturbed[/]: {stretch}; {'taking them again' if again else 'they are flagged'}"
            )
        return again

    def _message(self, visit: Visit) -> Any:
        task = visit.task
        job = wire.job_message(task.block, self._settings, task.model.model_id, task.others_bytes)
        job.parts.extend(wire.Part(key=part.key, operators=len(part.operators)) for part in task.parts)
        message = wire.Visit(visit_id=visit.visit_id, job=job, reference=self._reference_job)
        wire.set_budget(message.budget, self._budget, VISIT_TIMEOUT_S, COOL_S)
        return message


def _settings_message(identity: Identity, batch: int | None = None) -> Any:
    settings = identity.settings
    return wire.Settings(
        runtime=identity.runtime,
        precision=settings.precision,
        threads=settings.threads,
        batch=settings.batch if batch is None else batch,
    )
