"""What every Connection does."""

from collections.abc import Iterable

from ofa_agent.conditions import settings
from ofa_profiler.client import Agent
from ofa_profiler.targets import Target
from ofa_tables.errors import UnknownName


class Connection:
    """The way to one Target, as a context manager. A concrete one says how to ``open`` and ``close`` it."""

    def __init__(self, target: Target) -> None:
        self.target = target
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
