"""A crew: the devices that share a campaign. Each has a thread that waits for its agent; what they bring is handled one
by one, by the thread that runs the campaign."""

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

RESTARTS = 3  # of an agent, without a single Measurement in between
RESTART_PAUSE_S = 1.0
GIVE_BACK_S = 10.0


@dataclass
class Hand:
    """One device of a crew, and the Visits that are on their way to it, by id. ``out`` says why it no longer works."""

    name: str
    connection: Connection
    under_way: dict[str, Any] = field(default_factory=dict)
    lease: Lease | None = None
    out: str = ""
    losses: int = 0


@dataclass(frozen=True)
class Event:
    """What a hand tells: that it has a lease, a Measurement ``came``, its agent was ``lost``, or it is out for good."""

    hand: Hand
    came: Any = None
    lost: OfaError | None = None
    handled: threading.Event = field(default_factory=threading.Event)


class Crew:
    """Visits go to whichever device is free. A context manager; leaving it with an error cuts the leases.

    ``next_visit`` gives a hand's next Visit, or None where there is none just now.
    """

    def __init__(
        self,
        connection: Connection,
        lease_id: str,
        purpose: str,
        models: Mapping[str, Model],
        next_visit: Callable[[Hand], Any],
        say: Callable[[str], None],
    ) -> None:
        self.hands = [Hand(member.name, member, out=member.set_aside) for member in connection.members]
        self._lease_id = lease_id
        self._purpose = purpose
        self._models = models
        self._next_visit = next_visit
        self._say = say
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._done = False
        self._threads = [threading.Thread(target=self._work, args=(hand,), daemon=True) for hand in self.working]

    @property
    def working(self) -> list[Hand]:
        return [hand for hand in self.hands if not hand.out]

    def __enter__(self) -> "Crew":
        for hand in self.hands:
            hand.connection.given_up.clear()  # by the campaign before
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._changed:
            self._done = True
            self._changed.notify_all()
        for hand in self.hands:
            hand.connection.given_up.set()
            if error is not None and hand.lease is not None:
                hand.lease.cut()
        for thread in self._threads:
            thread.join(GIVE_BACK_S)

    def events(self) -> Iterator[Event]:
        """As they come, until the caller stops asking: no Visit is given out while one is handled."""
        while True:
            event = self._inbox.get()
            with self._changed:
                yield event
                self._changed.notify_all()
            event.handled.set()

    def _work(self, hand: Hand) -> None:
        """The life of a hand's thread."""
        try:
            while not self._done and not self._measured(hand):
                time.sleep(RESTART_PAUSE_S * hand.losses)
                hand.connection.reopen()
        except OfaError as error:
            self._tell_out(hand, error)
        except Exception as error:  # whatever it is: a thread that ended untold would be waited for
            said = str(error).strip().splitlines()
            what = f"{type(error).__name__}{': ' + said[0] if said else ''}"
            text = f"{hand.name}: the work with it failed ({what}); everything so far is kept"
            self._tell_out(hand, DeviceError(text))

    def _tell_out(self, hand: Hand, error: OfaError) -> None:
        hand.out = str(error)
        self._tell(Event(hand, lost=error))

    def _measured(self, hand: Hand) -> bool:
        """Whether there is nothing left for it to do, rather than its agent lost. Raises OfaError."""
        try:
            self._measure(hand)
        except AgentLost as lost:
            hand.losses += 1
            if hand.losses > RESTARTS:
                raise
            self._tell(Event(hand, lost=lost))
            return self._done
        return True

    def _measure(self, hand: Hand) -> None:
        conditions = hand.connection.target.conditions
        with ExitStack() as stack:
            hand.lease = stack.enter_context(hand.connection.agent.lease(self._lease_id, self._purpose, conditions))
            self._tell(Event(hand))
            for message in hand.lease.measure(lambda: self._next(hand), self._models):
                hand.losses = 0
                self._tell(Event(hand, came=message))

    def _next(self, hand: Hand) -> Any:
        """Waits while this hand has nothing to do, for what another one may leave undone."""
        with self._changed:
            while not self._done:
                visit = None if hand.out else self._next_visit(hand)
                if visit is not None or hand.under_way or hand.out:
                    return visit
                self._changed.wait()
        return None

    def _tell(self, event: Event) -> None:
        self._inbox.put(event)
        while not event.handled.wait(0.5):
            if self._done:
                return
