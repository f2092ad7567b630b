"""A campaign: measure what is missing, in shuffled rounds.

Blocks and whole networks alike are jobs. A job is complete when each round that it is in has a Measurement of it that
succeeded; what the table already contains counts, so a campaign that was interrupted resumes where it stopped.
"""

import itertools
import math
import random
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ofa_agent.commands.template import parse_text
from ofa_agent.measuring.timing import Budget
from ofa_agent.protocol import messages as wire
from ofa_profiler.campaign.decoding import is_divided, latency_ms, measurement_of, parts_of
from ofa_profiler.campaign.device_agreement import AgreementCheck
from ofa_profiler.campaign.device_pool import RESTARTS, DevicePool, DeviceWorker, Event
from ofa_profiler.campaign.disturbance import Drift
from ofa_profiler.campaign.effort import Probe
from ofa_profiler.campaign.failures import HopelessCheck
from ofa_profiler.campaign.jobs import FileJob, Job, Trial, reference_job, reference_message, settings_message
from ofa_profiler.connections import Connection
from ofa_profiler.connections.client import Lease
from ofa_tables.errors import OfaError
from ofa_tables.store.measurement import RETRIED, Measurement
from ofa_tables.table import LatencyTable

COMMANDS_IN_A_TRIAL = 5  # convert, and two runs of the tool with a report each
COOL_S = 120.0  # longest wait before a trial for a hot device to cool
RETRIES = 2  # of one failed trial; after that its job counts as failed
RETAKES = 1  # of one disturbed trial


class Progress(Protocol):
    """What a campaign reports while it runs."""

    def begin(self, trials: int) -> None: ...

    def measured(self, measurement: Measurement, trials_left: int) -> None: ...

    def say(self, text: str) -> None: ...


@dataclass
class Outcome:
    """The result of a campaign: trials per key, failed jobs, and where the time went.

    ``not_set`` maps each condition that could not be set to the reason. ``notes`` say what conditions mean on the
    device, ``warnings`` why its latencies may be wrong. ``waited_seconds`` is how long the worker
    waited for the link. If several devices shared the campaign, ``shares`` counts the trials of each, ``factors`` is
    the latency of each relative to the median device, and ``set_aside`` maps each excluded device to the reason.
    """

    trials: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    timed_seconds: float = 0.0
    cooled_seconds: float = 0.0
    waited_seconds: float = 0.0
    not_set: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    shares: Counter[str] = field(default_factory=Counter)
    factors: dict[str, float] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)

    def include(self, later: "Outcome") -> None:
        """Add what a later campaign of the same command did."""
        self.trials += later.trials
        self.failures |= later.failures
        self.timed_seconds += later.timed_seconds
        self.cooled_seconds += later.cooled_seconds
        self.waited_seconds += later.waited_seconds
        self.not_set |= later.not_set
        self.notes = list(dict.fromkeys(self.notes + later.notes))
        self.warnings = list(dict.fromkeys(self.warnings + later.warnings))
        self.shares += later.shares
        self.factors |= later.factors
        self.set_aside |= later.set_aside


class Campaign:
    """Measure ``rounds``, the jobs of each round. The order within a round is random.

    ``announce`` receives the expected duration in seconds, after one trial of the reference job. If ``adopts``, results
    of an interrupted earlier command that the agent still holds are used. No trial starts after ``until``, in s of
    ``time.monotonic``.
    """

    def __init__(
        self,
        table: LatencyTable,
        rounds: Sequence[Sequence[Job | FileJob]],
        budget: Budget,
        progress: Progress,
        purpose: str,
        announce: Callable[[float], None] | None = None,
        adopts: bool = True,
        until: float = math.inf,
    ) -> None:
        self._announce = announce
        self._adopts = adopts
        self._until = until
        self._table = table
        self._rounds = rounds
        runtime, settings, command = table.identity.runtime, table.identity.settings, table.command
        self._template = parse_text(command) if command else None
        self._reference = reference_job(runtime, settings.precision, command)
        self._reference_message, beside = reference_message(table.identity, self._reference, self._template)
        jobs = [self._reference, *beside, *itertools.chain.from_iterable(rounds)]
        self._models = {job.model.model_id: job.model for job in jobs}
        self._budget = budget
        self._progress = progress
        self._purpose = purpose
        self._settings = settings_message(table.identity, command)
        # Stays the same after a crash, so that the host gets its lease back. A copy of the table gets another id.
        self._lease_id = f"{table.id}@{socket.gethostname()}:{table.path.absolute()}"
        self._outcome = Outcome()
        self._no_reference = False
        self._hopeless = HopelessCheck()
        self._waiting: list[Trial] = []
        self._workers: list[DeviceWorker] = []
        self._drifts: dict[str, Drift[Trial]] = {}
        self._probe = Trial(uuid.uuid4().hex, self._reference, 0)
        self._probing = False
        self._started = 0.0
        self._agreement_check: AgreementCheck | None = None  # while devices are compared

    def run(self, connection: Connection) -> Outcome:
        """Measure what is missing, on every device of the connection. Results are kept if an agent is lost and
        restarted.
        """
        self._waiting = self._plan()[::-1]
        if not self._waiting:
            return self._outcome
        self._progress.begin(len(self._waiting))
        self._started = time.perf_counter()
        say, settings = self._progress.say, self._settings
        pool = DevicePool(connection, self._lease_id, self._purpose, self._models, self._next_trial, say, settings)
        self._workers = pool.workers
        self._outcome.set_aside = {worker.name: worker.out for worker in pool.workers if worker.out}
        if len(pool.working) > 1:
            self._agreement_check = AgreementCheck(self._waiting, [worker.name for worker in pool.working])
            self._waiting = [trial for trial in self._waiting if trial not in self._agreement_check.shared]
        with pool:
            for event in pool.events():
                self._handle(event, pool)
                if self._is_done(pool):
                    break
        return self._outcome

    def _handle(self, event: Event, pool: DevicePool) -> None:
        worker = event.worker
        if event.lost is not None:
            self._lose(worker, event.lost, pool)
        elif event.came is None:
            self._report_lease(worker.lease)
        else:
            self._receive(worker, event.came)
        self._judge(pool)

    def _is_done(self, pool: DevicePool) -> bool:
        """Return whether nothing is left to measure. At the end of a run, disturbed trials are repeated."""
        if time.monotonic() >= self._until and self._agreement_check is None:  # which holds measurements back
            self._waiting = []
            return not any(worker.under_way for worker in pool.workers)
        if self._outcome.failures:  # a failed job needs no more trials
            self._waiting = [trial for trial in self._waiting if trial.job.key not in self._outcome.failures]
        if self._waiting or self._agreement_check or any(worker.under_way for worker in pool.workers):
            return False
        for drift in self._drifts.values():
            self._waiting += self._again(drift)
        return not self._waiting

    def _lose(self, worker: DeviceWorker, error: OfaError, pool: DevicePool) -> None:
        """Give the trials of a lost agent to the next free device. Raises OfaError if no device is left."""
        lost = [trial for trial in worker.under_way.values() if trial is not self._probe and not trial.compared]
        self._waiting += lost
        worker.under_way.clear()
        if self._agreement_check is not None:
            self._agreement_check.leave(worker.name)
        if worker.out:
            if not pool.working:
                raise error
            self._progress.say(f"{error}; continuing without {worker.name}")
            self._set_aside(worker, str(error))
        else:
            self._progress.say(f"{error}; reconnecting ({worker.losses} of {RESTARTS})")

    def _set_aside(self, worker: DeviceWorker, reason: str) -> None:
        """Exclude a device from this campaign and from later ones of the same command."""
        worker.out = worker.connection.set_aside = self._outcome.set_aside[worker.name] = reason

    def _judge(self, pool: DevicePool) -> None:
        """Exclude the devices that differ from the others, once every device has run the same jobs."""
        check = self._agreement_check
        if check is None or not check.is_over(pool.working):
            return
        self._agreement_check = None
        agreement = check.agreement()
        self._outcome.factors = agreement.factors()
        for worker in pool.working:
            factor = agreement.off().get(worker.name)
            if factor is not None:
                self._set_aside(worker, f"it takes {factor:.2f} × as long as the others")
                self._progress.say(f"{worker.name} is set aside: {worker.out}; is it hot, or does it save power?")
                self._waiting += [trial for trial in worker.under_way.values() if not trial.compared]
                worker.under_way.clear()
        self._waiting += check.left()
        for worker, message, trial in check.held:
            if not worker.out:
                self._keep(worker, message, trial)
            elif not trial.compared:
                self._waiting.append(trial)

    def _report_lease(self, lease: Lease | None) -> None:
        """Report the conditions of a device that was leased; the devices of a pool may differ."""
        if lease is None:
            return
        for setting, reason in lease.not_set.items():
            if self._outcome.not_set.get(setting) != reason:
                self._progress.say(f"{setting} could not be set: {reason}; measuring anyway")
        self._outcome.not_set |= lease.not_set
        known = self._outcome
        for prefix, texts, said in (("", lease.notes, known.notes), ("warning: ", lease.warnings, known.warnings)):
            for text in texts:
                if text not in said:
                    self._progress.say(prefix + text)
                    said.append(text)

    def _report_no_reference(self, error: str) -> None:
        if error and not self._no_reference:
            self._progress.say(f"the reference job does not run there ({error}): trials count as they come")
            self._no_reference = True

    def _plan(self) -> list[Trial]:
        """The trials that are still missing, in the same order every time: by round, shuffled within a round."""
        done = self._table.rounds_of()
        trials = []
        for number, jobs in enumerate(self._rounds):
            jobs = [
                job for job in jobs if number not in done.get(job.key, ()) and job.key not in self._outcome.failures
            ]
            random.Random(number).shuffle(jobs)
            trials += [Trial(uuid.uuid4().hex, job, number) for job in jobs]
        return trials

    def _next_trial(self, worker: DeviceWorker) -> Any:
        """The message of the next trial for a device; None if there is none at the moment."""
        if self._announce is not None and not self._probing:
            self._probing = True
            worker.under_way[self._probe.trial_id] = self._probe
            return self._message(self._probe)
        trials = (self._agreement_check.waiting_for(worker.name) if self._agreement_check else []) or self._waiting
        if not trials:
            return None
        trial = trials.pop()
        worker.under_way[trial.trial_id] = trial
        return self._message(trial)

    def _receive(self, worker: DeviceWorker, message: Any) -> None:
        trial = worker.under_way.pop(message.trial_id, None)
        if message.trial_id == self._probe.trial_id:
            self._expect(message, worker)
            return  # not stored, so not acknowledged
        trial = trial or self._adopt(message, self._waiting)
        if trial is None or worker.out:
            self._acknowledge(worker, message)
        elif self._agreement_check is not None:
            self._agreement_check.held.append((worker, message, trial))
        else:
            self._keep(worker, message, trial)

    def _keep(self, worker: DeviceWorker, message: Any, trial: Trial) -> None:
        self._outcome.waited_seconds += message.waited_s if self._outcome.shares[worker.name] else 0.0
        self._outcome.shares[worker.name] += 1
        measurement = measurement_of(message, trial.round, worker.name if len(self._workers) > 1 else "")
        measurements = [measurement, *parts_of(message, measurement)]
        self._table.add(measurements)
        self._acknowledge(worker, message)
        self._outcome.trials.update(taken.key for taken in measurements)
        self._outcome.timed_seconds += measurement.timed_ns / 1e9
        self._outcome.cooled_seconds += message.cooled_s
        self._report_no_reference(message.reference_error)
        self._hopeless.watch(measurement)
        if not measurement.ok or (measurement.disturbed and not message.parts):
            self._retry(trial, measurement, self._waiting)
        else:
            self._drifts.setdefault(worker.name, Drift()).watch(measurement, trial)
        left = sum(len(other.under_way) for other in self._workers)
        self._progress.measured(measurement, len(self._waiting) + left)

    def _acknowledge(self, worker: DeviceWorker, message: Any) -> None:
        if worker.lease is not None:
            worker.lease.acknowledge([message.trial_id])

    def _expect(self, message: Any, worker: DeviceWorker) -> None:
        """Announce the expected duration, from one trial of the reference job. The trial is not stored."""
        took_s = time.perf_counter() - self._started
        if self._announce is not None and message.status == "ok":
            probe = Probe(self._reference.block, max(0.0, took_s - message.timed_ns / 1e9), latency_ms(message) / 1e3)
            trials = [*self._waiting, *worker.under_way.values()]
            if self._template is not None:  # mostly the start of the tool, and a fixed number of runs
                runs = 1 + bool(self._template.profile)
                expected_s = sum(took_s * (runs if trial.job.divided else 1) for trial in trials)
            else:
                expected_s = sum(
                    probe.expected_s(trial.job.block, self._budget, trial.bursts)
                    for trial in trials
                    if isinstance(trial.job, Job)
                )
            self._announce(expected_s / max(1, self._agreement_check.devices if self._agreement_check else 1))
        self._announce = None

    def _adopt(self, message: Any, waiting: list[Trial]) -> Trial | None:
        """Assign a result from before the link was lost to a waiting trial, if it is new."""
        if any(measurement.trial_id == message.trial_id for measurement in self._table.measurements):
            return None
        fitting = [
            trial
            for trial in reversed(waiting)
            if trial.job.key == message.key and trial.job.divided == is_divided(message)
        ]
        if not fitting:
            return None
        own = next((trial for trial in fitting if trial.trial_id == message.trial_id), None)
        trial = own or (fitting[0] if self._adopts else None)
        if trial is not None:
            waiting.remove(trial)
        return trial

    def _retry(self, trial: Trial, measurement: Measurement, waiting: list[Trial]) -> None:
        """Repeat a failed or disturbed trial at the end of the run, when the cause may have passed."""
        limit = RETAKES if measurement.ok else RETRIES if measurement.status in RETRIED else 0
        if trial.attempt < limit:
            waiting.insert(0, trial.again())
        elif not measurement.ok:
            self._outcome.failures[measurement.key] = f"{measurement.status}: {measurement.error}"

    def _again(self, drift: Drift[Trial]) -> list[Trial]:
        """The trials of a run that were disturbed and are to be repeated."""
        found = drift.disturbed()
        if found is None:
            return []
        disturbed, stretch = found
        again = [trial.again() for trial in disturbed if trial.attempt < RETAKES]
        if round(stretch.seconds):  # short stretches are repeated without a message
            self._progress.say(
                f"[yellow]disturbed[/]: {stretch}; {'taking them again' if again else 'they are flagged'}"
            )
        return again

    def _message(self, trial: Trial) -> Any:
        job = trial.job
        sent = job.message(self._settings)
        message = wire.Trial(trial_id=trial.trial_id, job=sent, reference=self._reference_message)
        timeout_s = job.timeout_s
        if self._template is not None:  # it has a limit for each command
            timeout_s += COMMANDS_IN_A_TRIAL * self._template.timeout_s
        wire.set_budget(message.budget, self._budget, timeout_s, COOL_S)
        return message
