"""The lease of the device, which passes trials and results between a host and the trial executor."""

import queue
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ofa_agent.conditions import Setter
from ofa_agent.measuring.executor import TrialExecutor
from ofa_agent.protocol import messages as wire
from ofa_agent.service.lock import clock
from ofa_agent.service.models import BadModel, ModelCache

# The time in seconds in which a host that lost its connection can resume its lease.
GRACE_S = 45.0


class Held(Exception):
    """Another host holds the device; the message contains the host and the time."""


class Lease:
    """The exclusive use of the device by one host.

    A lease outlives its stream: unacknowledged measurements are kept until the host reconnects.
    """

    def __init__(
        self, lease_id: str, holder: str, executor: TrialExecutor, models: ModelCache, log: Callable[..., None]
    ) -> None:
        self.lease_id = lease_id
        self.holder = holder
        self.since = time.time()
        self.not_set: Dict[str, str] = {}
        self.notes: List[str] = []
        self.wanted: Tuple[Dict[str, str], int] = ({}, 0)
        self._executor = executor
        self._models = models
        self._log = log
        self._mutex = threading.Lock()
        self._unacknowledged: "OrderedDict[str, Any]" = OrderedDict()
        self._pending: "OrderedDict[str, Any]" = OrderedDict()
        self._waiting: "OrderedDict[str, Any]" = OrderedDict()  # pending trials that lack a model
        self._stream: "Optional[queue.Queue[Any]]" = None
        self._ended = False
        self.lost_at: Optional[float] = None

    def connect(self) -> "queue.Queue[Any]":
        """Replace the stream by a new one, and send the unacknowledged measurements again."""
        with self._mutex:
            if self._stream is not None:
                self._stream.put(None)
            self._stream = queue.Queue()
            self.lost_at = None
            for measurement in self._unacknowledged.values():
                self._stream.put(wire.AgentMessage(measurement=measurement))
            self._models.forget_arriving()
            for model_id in self._asked_for():
                self._ask_for(model_id)
            return self._stream

    def serves(self, stream: "queue.Queue[Any]") -> bool:
        """Return whether this is the current stream; a host that reconnected has a new one."""
        with self._mutex:
            return self._stream is stream

    def disconnect(self, stream: "queue.Queue[Any]") -> None:
        with self._mutex:
            if self._stream is stream:
                self._stream = None
                self.lost_at = time.monotonic()

    def expired(self) -> bool:
        return self.lost_at is not None and time.monotonic() - self.lost_at >= GRACE_S

    def resume(self) -> None:
        """Keep the lease from expiring: its host is back."""
        with self._mutex:
            self.lost_at = None

    def drop_trials(self, ended: bool) -> None:
        """Drop the trials that are not measured yet. Measurements are kept for a host that comes back late."""
        with self._mutex:
            self._ended = ended
            self._pending.clear()
            self._waiting.clear()
            self._executor.drop(self._deliver)

    def handle(self, message: Any, stream: "queue.Queue[Any]") -> None:
        """Process one message of the host. Messages of an old stream are ignored, because the host sends them again."""
        if not self.serves(stream):
            return
        kind = message.WhichOneof("message")
        if kind == "trial":
            self._take(message.trial)
        elif kind == "model":
            self._receive(message.model)
        elif kind == "acknowledge":
            self._acknowledge(list(message.acknowledge.trial_ids))

    def _take(self, trial: Any) -> None:
        with self._mutex:
            if trial.trial_id in self._pending or trial.trial_id in self._unacknowledged:
                return  # sent again by a host that lost its connection
            if self._ended:
                return
            self._pending[trial.trial_id] = trial
            lacking = self._lacking(trial)
            if lacking:
                asked_for = self._asked_for()
                for model_id in lacking:
                    if model_id not in asked_for:
                        self._ask_for(model_id)
                self._waiting[trial.trial_id] = trial
                return
            self._executor.submit(trial, self._deliver)

    def _receive(self, message: Any) -> None:
        try:
            if not self._models.receive(message):
                return
        except BadModel as error:
            for trial in self._no_longer_waiting(lambda trial: message.model_id in wire.wanted_models(trial)):
                self._deliver(
                    wire.Measurement(trial_id=trial.trial_id, key=trial.job.key, status="malformed", error=str(error))
                )
            return
        for trial in self._no_longer_waiting(lambda trial: not self._lacking(trial)):
            with self._mutex:
                if not self._ended:
                    self._executor.submit(trial, self._deliver)

    def _asked_for(self) -> List[str]:
        """Return the models that trials wait for, without duplicates."""
        lacking = (model_id for trial in self._waiting.values() for model_id in self._lacking(trial))
        return list(OrderedDict.fromkeys(lacking))

    def _lacking(self, trial: Any) -> List[str]:
        return [model_id for model_id in wire.wanted_models(trial) if model_id not in self._models]

    def _no_longer_waiting(self, applies: Callable[[Any], bool]) -> List[Any]:
        with self._mutex:
            trials = [trial for trial in self._waiting.values() if applies(trial)]
            for trial in trials:
                del self._waiting[trial.trial_id]
            return trials

    def _acknowledge(self, trial_ids: List[str]) -> None:
        with self._mutex:
            for trial_id in trial_ids:
                self._unacknowledged.pop(trial_id, None)
        self._log("acknowledged", trial_ids=trial_ids)

    def _deliver(self, measurement: Any) -> None:
        with self._mutex:
            self._pending.pop(measurement.trial_id, None)
            self._unacknowledged[measurement.trial_id] = measurement
            if self._stream is not None:
                self._stream.put(wire.AgentMessage(measurement=measurement))
        self._log("measured", trial_id=measurement.trial_id, key=measurement.key, status=measurement.status)

    def _ask_for(self, model_id: str) -> None:
        if self._stream is not None:
            self._stream.put(wire.AgentMessage(model_wanted=wire.ModelWanted(model_id=model_id)))


class Desk:
    """Leases the device to one host at a time."""

    def __init__(
        self,
        executor: TrialExecutor,
        models: ModelCache,
        setter: Setter,
        log: Callable[..., None],
        report: Callable[..., None],
    ) -> None:
        self._setter = setter
        self._executor = executor
        self._models = models
        self._log = log
        self._report = report
        self._mutex = threading.Lock()
        self._lease: Optional[Lease] = None
        self._idle_since = time.monotonic()

    def take(self, lease_id: str, holder: str, wanted: Dict[str, str], threads: int = 0) -> Tuple[Lease, bool]:
        """Return the lease, and whether it was resumed. Raises Held.

        A new lease sets the wanted conditions; they are restored when it ends. A resumed lease sets them again only if
        they changed.
        """
        with self._mutex:
            lease = self._lease
            if lease is not None and lease.lease_id == lease_id:
                lease.resume()
                if lease.wanted != (wanted, threads):
                    self._set(lease, wanted, threads)
                self._report(lost=False)
                return lease, True
            if lease is not None and not lease.expired():
                raise Held("held by %s since %s" % (lease.holder, clock(lease.since)))
            if lease is not None:
                lease.drop_trials(ended=True)
            self._lease = Lease(lease_id, holder, self._executor, self._models, self._log)
            self._set(self._lease, wanted, threads)
            self._report(holder=holder, held_since=self._lease.since, lost=False)
            self._log("lease taken", holder=holder)
            return self._lease, False

    def _set(self, lease: Lease, wanted: Dict[str, str], threads: int) -> None:
        self._setter.put_back()
        lease.wanted = (wanted, threads)
        lease.not_set = self._setter.set(wanted, threads)
        lease.notes = list(self._setter.notes)

    def give_back(self, lease: Lease, stream: "queue.Queue[Any]") -> None:
        """End the lease of the host at this stream; do nothing if the host has reconnected with another stream."""
        with self._mutex:
            if self._lease is lease and lease.serves(stream):
                self._lease = None
                lease.drop_trials(ended=True)
                self._setter.put_back()
                self._idle_since = time.monotonic()
                self._report(holder=None)
                self._log("lease given back", holder=lease.holder)

    def disconnect(self, lease: Lease, stream: "queue.Queue[Any]") -> None:
        """Record that this stream has ended; the lease lasts until it is returned or expires."""
        with self._mutex:
            lease.disconnect(stream)
            if self._lease is lease and lease.lost_at is not None:
                self._report(lost=True)
                timer = threading.Timer(GRACE_S, self._drop_expired, (lease,))
                timer.daemon = True
                timer.start()

    def _drop_expired(self, lease: Lease) -> None:
        """Drop the trials of a host that did not come back in time."""
        with self._mutex:
            if self._lease is lease and lease.expired():
                lease.drop_trials(ended=False)
                self._log("lease expired", holder=lease.holder)

    def idle_s(self) -> float:
        """Return the time in seconds for which no host has held the device."""
        with self._mutex:
            lease = self._lease
            if lease is None:
                return time.monotonic() - self._idle_since
            if lease.lost_at is None:
                return 0.0
            return time.monotonic() - lease.lost_at


def outgoing(stream: "queue.Queue[Any]") -> Iterator[Any]:
    """Yield the messages of the stream until it is closed with None."""
    while True:
        message = stream.get()
        if message is None:
            return
        yield message
