"""The base class of connections."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ofa_agent.conditions import settings
from ofa_profiler.connections.client import Agent
from ofa_profiler.targets.target import Target
from ofa_tables.errors import AgentLost, UnknownName, Unreachable, UsageError

LONGEST_PAUSE_S = 15.0


class Connection:
    """The way to one target; a context manager. A subclass defines ``open`` and ``close``, and how long to try to
    restore a lost link (``patience_s``).
    """

    patience_s = 0.0

    def __init__(self, target: Target) -> None:
        self.target = target
        self.name = target.name  # of the device, for messages
        self.say: Callable[[str], None] = lambda text: None  # prints what happens to the link
        self.given_up = threading.Event()  # nobody waits for a lost link any more
        self.set_aside = ""  # why this device is excluded from the pool
        self._agent: Agent | None = None

    @property
    def agent(self) -> Agent:
        """The agent of the target. The first call contacts or starts it. Raises DeviceError and subclasses."""
        if self._agent is None:
            self._agent = self._opened()
        return self._agent

    def _opened(self) -> Agent:
        agent = self.open()
        agent.commands = tuple(self.target.commands.values())
        return agent

    @property
    def members(self) -> "Sequence[Connection]":
        """The devices that share a campaign: the connection itself, unless it stands for several devices."""
        return (self,)

    def reopen(self) -> None:
        """Contact the agent again after it was lost, with growing pauses, until ``patience_s`` is over. Then raises
        DeviceError; results are kept.
        """
        deadline = time.monotonic() + self.patience_s
        pause_s = 1.0
        while True:
            self.close()
            self._agent = None
            try:
                self._agent = self._opened()
            except (Unreachable, AgentLost) as failure:
                if not self.patience_s or self.given_up.is_set():
                    raise
                if time.monotonic() + pause_s > deadline:
                    raise Unreachable(
                        f"{failure} (tried for {self.patience_s:.0f} s); everything measured is kept, the same "
                        "command resumes from there"
                    ) from None
                self.say(f"{failure}; trying again in {pause_s:.0f} s")
                self.given_up.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            if self.patience_s:
                self.say(f"{self.name} is there again")
            return

    def open(self) -> Agent:
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection; may be called repeatedly."""
        raise NotImplementedError

    def steps(self) -> Iterator[tuple[str, str]]:
        """The steps before an agent serves there, one by one, with their results. Raises DeviceError."""
        return iter(())

    def clean(self) -> str:
        """End the agent, remove what was copied there, and print it. Raises UsageError if nothing is ever copied."""
        raise UsageError(f"{self.target.name} is reached by {self.target.connection}: nothing of ours is put there")

    def provision(self, runtime: str | None) -> str:
        """Install what the agent and a runtime (None: the first preferred one) need. Raises UsageError if that is not
        possible from here.
        """
        raise UsageError(
            f"{self.target.name} is reached by {self.target.connection}: install what it lacks with python3 -m pip"
        )

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def seconds(self, setting: str, otherwise: float) -> float:
        """A setting that is a duration. Raises UsageError."""
        text = self.target.settings.get(setting)
        try:
            return otherwise if text is None else float(text)
        except ValueError:
            raise UsageError(f"--set {setting} takes seconds, not {text!r}") from None

    def require_settings(self, known: Iterable[str]) -> None:
        """Raises UnknownName for a ``--set`` that this connection does not have."""
        names = list(known)
        for name in self.target.settings:
            if name not in names:
                raise UnknownName(f"setting of the {self.target.connection} connection", name, names + settings())
