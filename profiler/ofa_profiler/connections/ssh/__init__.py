"""Connection ``ssh``: a board with an SSH login. The agent is put there, started, and reached through a tunnel."""

import getpass
import json
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import platformdirs

from ofa_agent.lock import LINK_LOST
from ofa_profiler.client import CHANNEL_OPTIONS, Agent
from ofa_profiler.connections.connection import Connection
from ofa_profiler.connections.deploy import Deployment, Started
from ofa_profiler.connections.ssh.link import Link
from ofa_profiler.connections.ssh.login import Login, login_of
from ofa_profiler.targets import Target
from ofa_tables.errors import DeviceError, DeviceHeld, FileError, Unreachable, UsageError

SETTINGS = ("python", "password-file", "reconnect-s")
RECONNECT_S = 300.0
# An agent whose host is gone ends by itself; so long it is waited for.
FREE_WITHIN_S = 60.0


class SshConnection(Connection):
    """``python`` names the one to run the agent with; ``password-file`` holds the password, or a key's passphrase;
    for ``reconnect-s`` seconds a lost link is tried to mend."""

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
        self._python = target.settings.get("python", "")
        self._link: Link | None = None
        self._channel: grpc.Channel | None = None
        self._password: str | None = None

    @property
    def link(self) -> Link:
        """Logged in; the first call does it. Raises DeviceError, Unreachable."""
        if self._link is None or self._link.lost:
            self._link = self._log_in()
        return self._link

    def open(self) -> Agent:
        known = _Known(self.login)
        return self._again(known) or self._new(known)

    def steps(self) -> Iterator[tuple[str, str]]:
        deployment = Deployment(self.link, self.target.name)
        yield "reach", f"{self.login}, {deployment.machine}"
        yield "deploy", deployment.folder
        python = deployment.choose(self.target.runtimes, self._python)
        yield "python", f"{python.version}, {python.executable}"

    def clean(self) -> str:
        deployment = Deployment(self.link, self.target.name)
        ended = deployment.end()
        _Known(self.login).forget()
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
            if self._password is not None or "refused the login" not in str(refused) or not sys.stdin.isatty():
                raise
        self._password = getpass.getpass(f"password of {self.login}: ")
        return Link(self.login, self.target.name, self._password)

    def _again(self, known: "_Known") -> Agent | None:
        """The agent that an earlier command of ours has left there, if it still serves."""
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
                raise  # that says nothing of the agent
            known.forget()
            return None

    def _new(self, known: "_Known") -> Agent:
        deployment = Deployment(self.link, self.target.name)
        python = deployment.choose(self.target.runtimes, self._python)
        deadline = time.monotonic() + FREE_WITHIN_S
        waiting = False
        while True:
            try:
                started = deployment.start(python, secrets.token_hex(16))
                break
            except DeviceHeld as held:
                if not _may_be_gone(held) or time.monotonic() > deadline:
                    raise
                if not waiting:
                    self.say(f"{held}; waiting for that agent to end")
                waiting = True
                time.sleep(2.0)
        known.write(started)
        return self._through(started)

    def _through(self, started: Started) -> Agent:
        self._channel = grpc.insecure_channel(self.link.tunnel(started.port), CHANNEL_OPTIONS)
        return Agent(self._channel, self.target.name, started.token)

    def _drop_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


class _Known:
    """Where the agent of a login serves, and its token, in this user's own folder: the next command needs it too."""

    def __init__(self, login: Login) -> None:
        folder = platformdirs.user_state_path("ofa-profile")
        self._path = folder / "agents" / f"{login.user}@{login.host}-{login.port}.json"

    def read(self) -> Started | None:
        try:
            return Started(**json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, started: Started) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.forget()
            self._path.touch(mode=0o600)
            self._path.write_text(json.dumps(vars(started)))
        except OSError:
            self.forget()  # the next command starts an agent of its own

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


def _may_be_gone(held: DeviceHeld) -> bool:
    return LINK_LOST in str(held) or "held by nobody now" in str(held)
