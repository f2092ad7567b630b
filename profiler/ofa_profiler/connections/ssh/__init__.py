"""Connection ``ssh``: a board with an SSH login; the agent is copied, started, and reached through a tunnel.

``login`` turns an address into a Login. It asks ``openssh`` (``ssh -G``), or ``config`` where no ssh is installed.
``connecting`` opens the connection with paramiko: ``host_key`` looks the key of the server up in ``known_hosts``,
``authentication`` logs in, ``failures`` writes the error messages. ``link`` runs scripts and tunnels gRPC.
"""

import getpass
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc

from ofa_profiler.connections.client import CHANNEL_OPTIONS, Agent
from ofa_profiler.connections.connection import Connection
from ofa_profiler.connections.deploy import Deployment, Remembered, Started, start_when_free
from ofa_profiler.connections.ssh.link import Link
from ofa_profiler.connections.ssh.login import login_of
from ofa_profiler.targets.target import Target
from ofa_tables.errors import DeviceError, FileError, Unreachable, UsageError

SETTINGS = ("python", "password-file", "reconnect-s")
RECONNECT_S = 300.0


class SshConnection(Connection):
    """A board over SSH. ``python`` names the Python of the agent; ``password-file`` contains the password or the
    passphrase of a key; the host tries for ``reconnect-s`` seconds to restore a lost link.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.require_settings(SETTINGS)
        if not target.address:
            raise UsageError(
                f"{target.name} has no address yet; write it into ./targets.toml: [{target.name}] and below it "
                'address = "user@host", or call it by --target user@host'
            )
        self.login = login_of(target.address)
        self.patience_s = self.seconds("reconnect-s", RECONNECT_S)
        self._remembered = Remembered(f"{self.login.user}@{self.login.host}-{self.login.port}".replace("/", "_"))
        self._python = target.settings.get("python", "")
        self._link: Link | None = None
        self._channel: grpc.Channel | None = None
        self._password: str | None = None

    @property
    def link(self) -> Link:
        """The login; the first call logs in. Raises DeviceError, Unreachable."""
        if self._link is None or self._link.lost:
            self._link = self._log_in()
        return self._link

    def open(self) -> Agent:
        return self._again(self._remembered) or self._new(self._remembered)

    def steps(self) -> Iterator[tuple[str, str]]:
        deployment = Deployment(self.link, self.target.name)
        yield "reach", f"{self.login}, {deployment.machine}"
        yield "deploy", deployment.folder
        python = deployment.choose(self.target.runtimes, self._python)
        yield "python", f"{python.version}, {python.executable}"

    def clean(self) -> str:
        deployment = Deployment(self.link, self.target.name)
        ended = deployment.end()
        self._remembered.forget()
        removed = ", ".join(deployment.remove()) or "nothing: nothing of ours was there"
        return f"{'the agent was ended' if ended else 'no agent served there'}; removed {removed}"

    def provision(self, runtime: str | None) -> str:
        from ofa_profiler.connections.provision import provision

        runtimes = (runtime,) if runtime else self.target.runtimes
        python = provision(Deployment(self.link, self.target.name), runtimes, self._python, self.say)
        return f"Python {python.version} has {', '.join(python.runtimes)} and all that the agent needs"

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._link is not None:
            self._link.close()
            self._link = None

    def _log_in(self) -> Link:
        path = self.target.settings.get("password-file")
        if path is not None and self._password is None:
            try:
                self._password = Path(path).read_text().strip("\r\n")
            except OSError as error:
                raise FileError(f"cannot read the password-file {path}: {error.strerror}") from None
        try:
            return Link(self.login, self.target.name, self._password)
        except Unreachable:
            raise
        except DeviceError as refused:
            asks = any(words in str(refused) for words in ("refused the login", "has a passphrase"))
            if self._password is not None or not asks or not sys.stdin.isatty():
                raise
        self._password = getpass.getpass(f"password or passphrase for {self.login}: ")
        return Link(self.login, self.target.name, self._password)

    def _again(self, known: Remembered) -> Agent | None:
        """The agent that an earlier command left there, if it still serves."""
        started = known.read()
        if started is None:
            return None
        link = self.link
        try:
            agent = self._through(started)
            agent.describe()
            return agent
        except DeviceError:
            self._drop_channel()
            if link.lost:
                raise  # this does not concern the agent
            known.forget()
            return None

    def _new(self, known: Remembered) -> Agent:
        deployment = Deployment(self.link, self.target.name)
        python = deployment.choose(self.target.runtimes, self._python)
        started = start_when_free(deployment, python, self.say)
        known.write(started)
        return self._through(started)

    def _through(self, started: Started) -> Agent:
        self._channel = grpc.insecure_channel(self.link.tunnel(started.port), CHANNEL_OPTIONS)
        return Agent(self._channel, self.target.name, started.token)

    def _drop_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
