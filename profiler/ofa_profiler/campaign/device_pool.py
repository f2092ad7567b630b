"""The devices that share a campaign. Each has a thread that waits for its agent. The thread that runs the campaign
handles their messages one by one."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ofa_profiler.connections import Connection
from ofa_profiler.connections.client import Lease
from ofa_profiler.lowering import Model
from ofa_tables.errors import AgentLost, DeviceError, OfaError

RESTARTS = 3  # of an agent without a Measurement in between
RESTART_PAUSE_S = 1.0
GIVE_BACK_S = 10.0


@dataclass
class DeviceWorker:
    """One device of the pool, and the trials sent to it, by id. ``out`` says why it no longer takes part."""

    name: str
    connection: Connection
    under_way: dict[str, Any] = field(default_factory=dict)
    lease: Lease | None = None
    out: str = ""
    losses: int = 0


@dataclass(frozen=True)
class Event:
    """What a worker reports: it has a lease, a Measurement ``came``, its agent was ``lost``, or it is out."""

    worker: DeviceWorker
    came: Any = None
    lost: OfaError | None = None
    handled: threading.Event = field(default_factory=threading.Event)


class DevicePool:
    """Sends each trial to the next free device. A context manager; leaving it with an error cuts the leases.

    ``next_trial`` returns the next trial of a worker, or None if there is none at the moment. ``settings`` is the
    message with the settings of all jobs.
    """

    def __init__(
        self,
        connection: Connection,
        lease_id: str,
        purpose: str,
        models: Mapping[str, Model],
        next_trial: Callable[[DeviceWorker], Any],
        say: Callable[[str], None],
        settings: Any = None,
    ) -> None:
        self.workers = [DeviceWorker(member.name, member, out=member.set_aside) for member in connection.members]
        self._lease_id = lease_id
        self._purpose = purpose
        self._models = models
        self._next_trial = next_trial
        self._say = say
        self._settings = settings
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._done = False
        self._threads = [threading.Thread(target=self._work, args=(worker,), daemon=True) for worker in self.working]

    @property
    def working(self) -> list[DeviceWorker]:
        return [worker for worker in self.workers if not worker.out]

    def __enter__(self) -> "DevicePool":
        for worker in self.workers:
            worker.connection.given_up.clear()  # by an earlier campaign
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._changed:
            self._done = True
            self._changed.notify_all()
        for worker in self.workers:
            worker.connection.given_up.set()
            if error is not None and worker.lease is not None:
                worker.lease.cut()
        for thread in self._threads:
            thread.join(GIVE_BACK_S)

    def events(self) -> Iterator[Event]:
        """Yield events until the caller stops. No trial is handed out while an event is handled."""
        while True:
            event = self._inbox.get()
            with self._changed:
                yield event
                self._changed.notify_all()
            event.handled.set()

    def _work(self, worker: DeviceWorker) -> None:
        """Run the thread of a worker."""
        try:
            while not self._done and not self._measured(worker):
                time.sleep(RESTART_PAUSE_S * worker.losses)
                worker.connection.reopen()
        except OfaError as error:
            self._report_out(worker, error)
        except Exception as error:  # any error must be reported, or the campaign would wait for this thread for ever
            said = str(error).strip().splitlines()
            what = f"{type(error).__name__}{': ' + said[0] if said else ''}"
            text = f"{worker.name}: the work with it failed ({what}); everything so far is kept"
            self._report_out(worker, DeviceError(text))

    def _report_out(self, worker: DeviceWorker, error: OfaError) -> None:
        worker.out = str(error)
        self._report(Event(worker, lost=error))

    def _measured(self, worker: DeviceWorker) -> bool:
        """Return whether the work is done, rather than the agent lost. Raises OfaError."""
        try:
            self._measure(worker)
        except AgentLost as lost:
            worker.losses += 1
            if worker.losses > RESTARTS:
                raise
            self._report(Event(worker, lost=lost))
            return self._done
        return True

    def _measure(self, worker: DeviceWorker) -> None:
        conditions = worker.connection.target.conditions
        with ExitStack() as stack:
            agent = worker.connection.agent
            worker.lease = stack.enter_context(agent.lease(self._lease_id, self._purpose, conditions, self._settings))
            self._report(Event(worker))
            for message in worker.lease.measure(lambda: self._next(worker), self._models):
                worker.losses = 0
                self._report(Event(worker, came=message))

    def _next(self, worker: DeviceWorker) -> Any:
        """Wait while there is nothing to do: another worker may leave trials behind."""
        with self._changed:
            while not self._done:
                trial = None if worker.out else self._next_trial(worker)
                if trial is not None or worker.under_way or worker.out:
                    return trial
                self._changed.wait()
        return None

    def _report(self, event: Event) -> None:
        self._inbox.put(event)
        while not event.handled.wait(0.5):
            if self._done:
                return
