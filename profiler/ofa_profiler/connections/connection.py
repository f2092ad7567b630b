"""What every Connection does."""

from collections.abc import Callable, Iterable, Iterator

from ofa_agent.conditions import settings
from ofa_profiler.client import Agent
from ofa_profiler.targets import Target
from ofa_tables.errors import UnknownName, UsageError


class Connection:
    """The way to one Target, as a context manager. A concrete one says how to ``open`` and ``close`` it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.say: Callable[[str], None] = lambda text: None  # what happens to the link, for the user
        self._agent: Agent | None = None

    @property
    def agent(self) -> Agent:
        """The Target's agent; the first call reaches it, or starts it. Raises DeviceError and its kinds."""
        if self._agent is None:
            self._agent = self.open()
        return self._agent

    def reopen(self) -> None:
        """Reaches the agent anew, after it was lost."""
        self.close()
        self._agent = None
        self._agent = self.open()

    def open(self) -> Agent:
        raise NotImplementedError

    def close(self) -> None:
        """May be called at any time, also twice."""
        raise NotImplementedError

    def steps(self) -> Iterator[tuple[str, str]]:
        """What is done before an agent serves there, one by one, and what came of it. Raises DeviceError."""
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

    def require_settings(self, known: Iterable[str]) -> None:
        """Raises UnknownName for a ``--set`` that this Connection does not know."""
        names = list(known)
        for name in self.target.settings:
            if name not in names:
                raise UnknownName(f"setting of the {self.target.connection} connection", name, names + settings())
