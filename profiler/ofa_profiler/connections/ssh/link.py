"""One SSH link to a board: runs small scripts, and tunnels gRPC to the board's loopback."""

import contextlib
import logging
import threading
import time

import paramiko

from ofa_agent.device.shell import Ran
from ofa_profiler.connections.deploy import COMMAND_S
from ofa_profiler.connections.ssh.connecting import CONNECT_S, connect
from ofa_profiler.connections.ssh.login import Login
from ofa_profiler.connections.tunnel import CHUNK, Tunnel
from ofa_tables.errors import Unreachable

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
        connect(client, login, self._name, password, via)
        return client

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
