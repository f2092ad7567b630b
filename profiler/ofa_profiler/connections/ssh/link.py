"""One SSH link to a board: runs small scripts, and tunnels gRPC to the board's loopback."""

import base64
import contextlib
import errno
import hashlib
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import paramiko
from paramiko.ssh_exception import NoValidConnectionsError

from ofa_agent.device.shell import Ran
from ofa_profiler.connections.deploy import COMMAND_S
from ofa_profiler.connections.ssh.login import Login
from ofa_profiler.connections.tunnel import CHUNK, Tunnel
from ofa_tables.errors import DeviceError, Unreachable

CONNECT_S = 15.0
# Interval of the keepalive, and the time to answer it.
ALIVE_EVERY_S = 3.0
ALIVE_WITHIN_S = 9.0

# Every login shell understands this; it hands over to sh, which reads the script from standard
# input as one line. The mark separates the output of the login shell from ours.
MARK = "ofa-profile:begin"
BOOTSTRAP = f'exec sh -c \'IFS= read -r script; echo {MARK}; eval "$(printf %b "$script")"\''

logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)  # failures are reported once, by us


class Link:
    """A logged-in connection; a context manager. ``name`` is the target, for messages."""

    def __init__(self, login: Login, name: str, password: str | None = None) -> None:
        self._name = name
        self._login = login
        self._clients: list[paramiko.SSHClient] = []
        self._tunnels: list[Tunnel] = []
        self._closed = threading.Event()
        try:
            self._client = self._connect(login, password)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def lost(self) -> bool:
        transport = self._client.get_transport()
        return transport is None or not transport.is_active()

    def close(self) -> None:
        self._closed.set()
        for tunnel in self._tunnels:
            tunnel.close()
        for client in reversed(self._clients):
            client.close()

    def run(self, script: str, *lines: str, payload: bytes = b"", timeout_s: float = COMMAND_S) -> Ran:
        """Run a script of ours with the board's ``sh``. It reads ``lines``, one each, then the payload: data never
        becomes part of a script. Raises Unreachable.
        """
        assert not any("\n" in line for line in lines)
        encoded = script.strip().replace("\\", "\\\\").replace("\n", "\\n")
        reported = "\n".join((encoded, *lines, "")).encode() + payload
        deadline = time.monotonic() + timeout_s
        try:
            transport = self._client.get_transport()
            if transport is None:
                raise EOFError
            channel = transport.open_session(timeout=CONNECT_S)
            channel.exec_command(BOOTSTRAP)
            threading.Thread(target=_feed, args=(channel, reported), daemon=True).start()
            out, error = _collect(channel, deadline)
            if out is None:
                channel.close()
                return Ran(124, "", f"no answer within {timeout_s:g} s")
            code = channel.recv_exit_status()
            channel.close()
        except (paramiko.SSHException, OSError, EOFError) as failure:
            raise Unreachable(f"the link to {self._name} was lost ({failure or 'closed'})") from None
        before, mark, answer = out.partition(MARK + "\n")
        if not mark:
            said = (before or error).strip().splitlines()
            return Ran(code or 126, "", said[-1] if said else "no shell there takes commands")
        return Ran(code, answer.strip(), error.strip())

    def tunnel(self, port: int) -> str:
        """A local gRPC address that leads to ``127.0.0.1:port`` of the board."""
        transport = self._client.get_transport()
        if transport is None:
            raise Unreachable(f"the link to {self._name} was lost")

        def open_far() -> paramiko.Channel:
            return transport.open_channel("direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 0), timeout=CONNECT_S)

        tunnel = Tunnel(open_far, (paramiko.SSHException,))
        self._tunnels.append(tunnel)
        return tunnel.address

    def _connect(self, login: Login, password: str | None) -> paramiko.SSHClient:
        via = self._connect(login.via, password) if login.via else None
        client = paramiko.SSHClient()
        self._clients.append(client)
        for path in login.known_hosts:
            with contextlib.suppress(OSError):
                client.load_system_host_keys(path)
        client.set_missing_host_key_policy(_Refuse(login, self._name))
        try:
            client.connect(
                login.host,
                login.port,
                login.user,
                password=password,
                passphrase=password,
                key_filename=[path for path in login.keys if os.path.exists(path)] or None,  # type: ignore[arg-type]
                timeout=CONNECT_S,
                banner_timeout=CONNECT_S,
                auth_timeout=CONNECT_S,
                channel_timeout=CONNECT_S,
                sock=_way(login, via),
            )
        except (paramiko.SSHException, NoValidConnectionsError, OSError, EOFError) as error:
            raise self._explained(error, login, bool(password)) from None
        return client

    def _explained(self, error: Exception, login: Login, with_password: bool) -> DeviceError:
        """The error for a failed login, with what to do."""
        at = f"{login.host} port {login.port}"
        if isinstance(error, paramiko.BadHostKeyException):
            return DeviceError(
                f"the host key of {self._name} ({login.host}) has changed; if the board was set up again, remove the "
                f"old key with ssh-keygen -R '{login.known_as}', if not, somebody may intercept the connection"
            )
        if isinstance(error, paramiko.PasswordRequiredException):
            return DeviceError(
                f"a key for {login} has a passphrase; add it to the agent with ssh-add, or give it with "
                "--set password-file=FILE"
            )
        if isinstance(error, paramiko.SSHException):
            return self._refused(error, login, with_password)
        if isinstance(error, socket.gaierror):
            return Unreachable(
                f"{self._name}: no host is called {login.host}; correct the address in targets.toml or ~/.ssh/config"
            )
        if isinstance(error, NoValidConnectionsError):
            codes = {getattr(each, "errno", 0) for each in error.errors.values()}
            if not codes & {errno.EHOSTUNREACH, errno.ENETUNREACH}:
                return Unreachable(
                    f"{self._name}: nothing answers at {at}; is sshd running there, and is it that port?"
                )
            return self._no_answer(login)
        if isinstance(error, TimeoutError):
            return self._no_answer(login)
        if isinstance(error, EOFError):
            return Unreachable(f"{self._name}: {at} hung up while logging in")
        return Unreachable(f"{self._name}: {at}: {getattr(error, 'strerror', None) or error}")

    def _refused(self, error: paramiko.SSHException, login: Login, with_password: bool) -> DeviceError:
        without_keys = "No authentication methods" in str(error)
        if not (without_keys or isinstance(error, paramiko.AuthenticationException)):
            return Unreachable(f"{self._name}: what answers at {login.host} port {login.port} does not log in: {error}")
        tried = ", ".join(Path(path).name for path in login.keys) or "the agent's keys and the usual files"
        return DeviceError(
            f"{self._name} refused the login of {login.user} at {login.host} (tried {tried}"
            f"{' and the password' if with_password else ''}); check that ssh {_words(login)} works, or give "
            "--set password-file=FILE"
        )

    def _no_answer(self, login: Login) -> Unreachable:
        return Unreachable(
            f"{self._name}: no answer from {login.host} port {login.port}; is the board on, and in this network?"
        )

    def _watch(self) -> None:
        """Close a link that no longer answers: TCP alone would wait for a quarter of an hour."""
        transport = self._client.get_transport()
        while transport is not None and not self._closed.wait(ALIVE_EVERY_S):
            answered = threading.Event()

            def ask(transport: paramiko.Transport = transport, answered: threading.Event = answered) -> None:
                with contextlib.suppress(Exception):
                    transport.global_request("keepalive@openssh.com", wait=True)
                answered.set()

            threading.Thread(target=ask, daemon=True).start()
            if not answered.wait(ALIVE_WITHIN_S):
                transport.close()
                return


class _Refuse(paramiko.MissingHostKeyPolicy):
    def __init__(self, login: Login, name: str) -> None:
        self._login = login
        self._name = name

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        print_ = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
        port = "" if self._login.port == 22 else f"-p {self._login.port} "
        raise DeviceError(
            f"the host key of {self._name} ({self._login.host}) is not known yet: {key.get_name()} SHA256:{print_}; if "
            f"that is the board's, add it with ssh-keyscan {port}-t {_keyscan_type(key)} {self._login.host} >> "
            f"{self._login.known_hosts[0]}"
        )


def _keyscan_type(key: paramiko.PKey) -> str:
    return {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}.get(key.get_name(), "ecdsa")


def _words(login: Login) -> str:
    return (f"-p {login.port} " if login.port != 22 else "") + f"{login.user}@{login.host}"


def _way(login: Login, via: paramiko.SSHClient | None) -> Any:
    if via is not None:
        transport = via.get_transport()
        assert transport is not None
        return transport.open_channel("direct-tcpip", (login.host, login.port), ("127.0.0.1", 0), timeout=CONNECT_S)
    return paramiko.ProxyCommand(login.proxy_command) if login.proxy_command else None


def _feed(channel: paramiko.Channel, reported: bytes) -> None:
    left = memoryview(reported)
    with contextlib.suppress(OSError, paramiko.SSHException):  # it ended without reading everything
        while left:
            with contextlib.suppress(TimeoutError):  # the timeout is meant for reading; a board may read slowly
                left = left[channel.send(bytes(left[:CHUNK])) :]
        channel.shutdown_write()


def _collect(channel: paramiko.Channel, deadline: float) -> tuple[str | None, str]:
    """The output until the end of the stream; None on timeout."""
    out, error = b"", b""
    channel.settimeout(0.1)
    while True:
        if channel.recv_stderr_ready():
            error += channel.recv_stderr(CHUNK)
            continue
        try:
            chunk = channel.recv(CHUNK)
        except TimeoutError:
            if time.monotonic() > deadline:
                return None, ""
            continue
        if not chunk:
            break
        out += chunk
    while chunk := channel.recv_stderr(CHUNK):
        error += chunk
    return out.decode(errors="replace"), error.decode(errors="replace")
