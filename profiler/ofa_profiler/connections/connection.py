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
    """The way to one Target, as a context manager. A concrete one says how to ``open`` and ``close`` it, and for how
    long to try to restore a lost link (``patience_s``)."""

    patience_s = 0.0

    def __init__(self, target: Target) -> None:
        self.target = target
        self.name = target.name  # of the device, for people
        self.say: Callable[[str], None] = lambda text: None  # what happens to the link, for the user
        self.given_up = threading.Event()  # nobody waits for a lost link any more
        self.set_aside = ""  # why, of several devices, this one takes no part any more
        self._agent: Agent | None = None

    @property
    def agent(self) -> Agent:
        """The Target's agent; the first call reaches it, or starts it. Raises DeviceError and its kinds."""
        if self._agent is None:
            self._agent = self.open()
        return self._agent

    @property
    def members(self) -> "Sequence[Connection]":
        """The devices that share a campaign: itself, unless it stands for several of one kind."""
        return (self,)

    def reopen(self) -> None:
        """Reach the agent again after it was lost, with growing pauses for as long as it has patience. Raises
        DeviceError after that: everything so far is kept."""
        deadline = time.monotonic() + self.patience_s
        pause_s = 1.0
        while True:
            self.close()
            self._agent = None
            try:
                self._agent = self.open()
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
        """May be called at any time, also twice."""
        raise NotImplementedError

    def steps(self) -> Iterator[tuple[str, str]]:
        """The steps before an agent serves there, one by one, with their results. Raises DeviceError."""
        return iter(())

    def clean(self) -> str:
        """Ends the agent, removes what was put there, and says so. Raises UsageError where nothing ever is."""
        raise UsageError(f"{self.target.name} is reached by {self.target.connection}: nothing of ours is put there")

    def provision(self, runtime: str | None) -> str:
        """Installs what the agent and a Runtime (None: the first preferred one) need. Raises UsageError where that
        cannot be done from here."""
        raise UsageError(
            f"{self.target.name} is reached by {self.target.connection}: install what it lacks with python3 -m pip"
        )

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def seconds(self, setting: str, otherwise: float) -> float:
        """A setting that is a time. Raises UsageError."""
        text = self.target.settings.get(setting)
        try:
            return otherwise if text is None else float(text)
        except ValueError:
            raise UsageError(f"--set {setting} takes seconds, not {text!r}") from None

    def require_settings(self, known: Iterable[str]) -> None:
        """Raises UnknownName for a ``--set`` that this Connection does not know."""
        names = list(known)
        for name in self.target.settings:
            if name not in names:
                raise UnknownName(f"setting of the {self.target.connection} connection", name, names + settings())
