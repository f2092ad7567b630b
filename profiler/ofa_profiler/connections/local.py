"""Connection ``local``: this machine, by an agent that is started as a separate process."""

import sys
from pathlib import Path

from ofa_agent.service.lock import home
from ofa_profiler.connections.client import Agent
from ofa_profiler.connections.connection import Connection
from ofa_profiler.connections.process import AgentProcess
from ofa_profiler.targets.target import Target


class LocalConnection(Connection):
    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.require_settings(())
        self._process: AgentProcess | None = None

    def open(self) -> Agent:
        self._process = AgentProcess([sys.executable, "-m", "ofa_agent", "serve", "--allow-commands"], Path(home()))
        return self._process.start(self.target.name)

    def close(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None
