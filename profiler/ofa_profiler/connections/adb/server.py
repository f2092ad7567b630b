"""The adb server, local or remote, and its phones, through adbutils.

https://android.googlesource.com/platform/packages/modules/adb: docs/user/adb.1.md, SERVICES.TXT, SYNC.TXT,
shell_protocol.h.
"""

import contextlib
import os
import re
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Iterator

import adbutils
from adbutils.errors import AdbConnectionError, AdbError, AdbTimeout

from ofa_agent.device.shell import Ran
from ofa_profiler.connections.adb.listing import Listed, parse_devices, parse_states
from ofa_profiler.connections.deploy import COMMAND_S
from ofa_profiler.connections.tunnel import CHUNK, Tunnel
from ofa_tables.errors import DeviceError, Unreachable, UsageError

DEFAULT_PORT = 5037
CONNECT_S = 10.0
START_S = 20.0
PUSH_S = 300.0
OLDEST_SERVER = 39  # of Android 8's platform tools; older ones lack the shell features used here

# Packets of shell_v2: kind, length, content.
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
PACKET = struct.Struct("<BI")

NO_ROOM = ("No space left on device", "Disk quota exceeded", "Quota exceeded")  # as a phone reports it

SHELL_V2 = "shell_v2"  # with separate streams and the exit status, since Android 7


class AdbServer:
    """``address`` is ``host[:port]``; if empty, the address in the environment as adb reads it, else this machine's."""

    def __init__(self, address: str = "") -> None:
        self.host, self.port = _host_and_port(address)
        self._client = adbutils.AdbClient(self.host, self.port, CONNECT_S)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def devices(self) -> list[Listed]:
        """Every device that the server knows, in any state. Raises DeviceError."""
        self._require()
        try:
            return parse_devices(self._ask("host:devices"), self._ask("host:devices-l"))
        except (AdbError, OSError, ValueError) as error:
            raise Unreachable(f"the adb server at {self} failed: {error}") from None

    def watch(self) -> Iterator[dict[str, str]]:
        """Yield the state of every device by serial, now and at every change. Raises Unreachable if the server ends."""
        try:
            with self._client.make_connection() as connection:
                connection.send_command("host:track-devices")
                connection.check_okay()
                connection.conn.settimeout(None)
                while True:
                    yield parse_states(connection.read_string_block())
        except (AdbError, OSError, ValueError) as error:
            raise Unreachable(f"the adb server at {self} is gone: {error}") from None

    def features(self, serial: str) -> list[str] | None:
        """The features that the daemon of a phone reports; None if unknown."""
        try:
            return self._ask(f"host-serial:{serial}:features").strip().split(",")
        except (AdbError, OSError, ValueError):
            return None

    def open(self, serial: str, service: str, timeout_s: float) -> socket.socket:
        """A stream to a service of a phone. Raises AdbError, OSError."""
        connection = self._client.device(serial).open_transport(timeout=timeout_s)
        try:
            connection.send_command(service)
            connection.check_okay()
        except BaseException:
            connection.close()
            raise
        return connection.conn

    def _ask(self, service: str) -> str:
        """The answer of the server to one request. Raises AdbError, OSError, ValueError."""
        with self._client.make_connection() as connection:
            connection.send_command(service)
            connection.check_okay()
            return connection.read_string_block()

    def _require(self) -> None:
        """Start a server if none runs and one can be started. Raises DeviceError."""
        if not self._answers():
            if self.host not in ("127.0.0.1", "localhost", "::1"):
                raise Unreachable(
                    f"no adb server answers at {self}; start one there with adb -a -P {self.port} nodaemon server, or "
                    f"lead its port here with ssh -L {self.port}:localhost:{self.port} {self.host}"
                )
            self._start()
        try:
            version = self._client.server_version()
        except (AdbError, OSError, ValueError) as error:
            raise DeviceError(
                f"what answers at {self} is not an adb server: {error}; give another --set adb-server"
            ) from None
        if version < OLDEST_SERVER:
            raise DeviceError(
                f"the adb server at {self} is of version {version}, {OLDEST_SERVER} or later is needed; end it with "
                "adb kill-server, so that a newer adb starts its own"
            )

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), CONNECT_S):
            return True
        return False

    def _start(self) -> None:
        try:
            adb = adbutils.adb_path()
        except AdbError:
            adb = "adb"
        try:
            done = subprocess.run(
                [adb, "-P", str(self.port), "start-server"], capture_output=True, text=True, timeout=START_S
            )
        except FileNotFoundError:
            raise DeviceError("adb is not installed; install it, for example with sudo apt install adb") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DeviceError(f"{adb} does not start a server: {error}") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise DeviceError(f"{adb} starts no server at {self}: {said[-1]}")


class Phone:
    """One phone by serial. ``name`` is used in messages. Every call has a timeout."""

    def __init__(self, server: AdbServer, serial: str, name: str) -> None:
        self.server = server
        self.serial = serial
        self.name = name

    @property
    def label(self) -> str:
        """The name, with the serial if the name does not contain it."""
        return self.name if self.serial in self.name else f"{self.name} ({self.serial})"

    def run(self, script: str, *lines: str, payload: bytes = b"", timeout_s: float = COMMAND_S) -> Ran:
        """Run a script of ours with the phone's ``sh``. It reads ``lines``, one each, then the payload: data never
        becomes part of a script. Raises Unreachable.
        """
        assert not any("\n" in line for line in lines)
        deadline = time.monotonic() + timeout_s
        with self._open(f"shell,v2,raw:{script.strip()}") as stream:
            reported = "".join(f"{line}\n" for line in lines).encode() + payload
            threading.Thread(target=_feed, args=(stream, reported), daemon=True).start()
            said: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
            try:
                while True:
                    kind, content = _packet(stream, deadline)
                    if kind == EXIT:
                        return Ran(content[0], *(_text(said[of]) for of in (STDOUT, STDERR)))
                    said.setdefault(kind, []).append(content)
            except TimeoutError:
                return Ran(124, "", f"no answer within {timeout_s:g} s")
            except (OSError, EOFError) as error:
                raise self.lost(error) from None

    def start(self, script: str, *lines: str, timeout_s: float = COMMAND_S) -> tuple[Ran, socket.socket | None]:
        """Run a script that prints a line and continues until the stream to it is closed. Without a stream if the
        script ended. Raises Unreachable.
        """
        deadline = time.monotonic() + timeout_s
        stream = self._open(f"shell,v2,raw:{script.strip()}")
        said: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
        try:
            reported = "".join(f"{line}\n" for line in lines).encode()
            stream.sendall(PACKET.pack(STDIN, len(reported)) + reported)
            while True:
                kind, content = _packet(stream, deadline)
                if kind == EXIT:
                    stream.close()
                    return Ran(content[0], *(_text(said[of]) for of in (STDOUT, STDERR))), None
                said.setdefault(kind, []).append(content)
                if kind == STDOUT and b"\n" in content:
                    return Ran(0, _text(said[STDOUT])), stream
        except (OSError, EOFError) as error:
            stream.close()
            raise self.lost(error) from None

    def push(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Push a file atomically. Raises DeviceError with the phone's own message if that fails."""
        draft = f"{path}.part"
        try:
            self._send(draft, content, mode)
        except DeviceError:
            with contextlib.suppress(DeviceError):  # a partial file would occupy space
                self.run('IFS= read -r path; rm -f "$path"', draft)
            raise
        ran = self.run('IFS= read -r draft; IFS= read -r path; mv -f "$draft" "$path"', draft, path)
        if not ran.ok:
            raise DeviceError(f"{self.name}: {path} cannot be written: {ran.error or ran.output}")

    def tunnel(self, port: int) -> Tunnel:
        """A tunnel to ``127.0.0.1:port`` of the phone, as ``adb forward`` opens it, also through a remote server."""
        return Tunnel(lambda: self._plain(f"tcp:{port}"), (AdbError,))

    def listed(self) -> Listed | None:
        """The phone as the server lists it now; None if it does not. Raises DeviceError."""
        return next((phone for phone in self.server.devices() if phone.serial == self.serial), None)

    def lost(self, error: object) -> Unreachable:
        """Why the phone sends nothing any more, as a message."""
        try:
            listed = self.listed()
        except DeviceError as gone:
            return Unreachable(f"{self.name}: {gone}")
        if listed is None:
            return Unreachable(f"{self.label} is unplugged; plug it in again")
        if not listed.usable:
            return Unreachable(f"{self.label}: {listed.advice}")
        features = self.server.features(self.serial)
        if features is not None and SHELL_V2 not in features:
            return Unreachable(
                f"{self.label}: its adb daemon does not have {SHELL_V2}; ofa-profile requires Android 7 or later"
            )
        return Unreachable(f"{self.label} does not answer adb ({error or 'closed'})")

    def _open(self, service: str) -> socket.socket:
        try:
            return self.server.open(self.serial, service, CONNECT_S)
        except (AdbError, AdbTimeout, AdbConnectionError, OSError) as error:
            raise self.lost(error) from None

    def _plain(self, service: str) -> socket.socket:
        stream = self.server.open(self.serial, service, CONNECT_S)
        stream.settimeout(None)
        return stream

    def _send(self, path: str, content: bytes, mode: int) -> None:
        with self._open("sync:") as stream:
            stream.settimeout(PUSH_S)
            target = f"{path},{stat.S_IFREG | mode}".encode()
            try:
                stream.sendall(b"SEND" + struct.pack("<I", len(target)) + target)
                for start in range(0, len(content), CHUNK):
                    chunk = content[start : start + CHUNK]
                    stream.sendall(b"DATA" + struct.pack("<I", len(chunk)) + chunk)
                stream.sendall(b"DONE" + struct.pack("<I", int(time.time())))
            except TimeoutError:
                raise self.lost(f"a push of {len(content)} bytes took longer than {PUSH_S:g} s") from None
            except OSError:
                pass  # it stopped reading, and sends the reason
            try:
                answer, length = struct.unpack("<4sI", _exactly(stream, 8))
                said = _exactly(stream, length).decode(errors="replace") if answer == b"FAIL" else ""
            except (OSError, EOFError) as error:
                raise self.lost(error) from None
        if answer != b"OKAY":
            room = ""
            if any(words in said for words in NO_ROOM):
                room = f"; make room where {os.path.dirname(path)} is, or run ofa-targets clean adb:{self.serial}"
            what = f"{os.path.basename(path)} ({len(content)} bytes)"
            raise DeviceError(f"{self.name} does not take {what}: {said}{room}")


def _packet(stream: socket.socket, deadline: float) -> tuple[int, bytes]:
    kind, length = PACKET.unpack(_exactly(stream, PACKET.size, deadline))
    return kind, _exactly(stream, length, deadline)


def _exactly(stream: socket.socket, size: int, deadline: float | None = None) -> bytes:
    """Raises TimeoutError, EOFError, OSError."""
    content = b""
    while len(content) < size:
        if deadline is not None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            stream.settimeout(left_s)
        chunk = stream.recv(size - len(content))
        if not chunk:
            raise EOFError
        content += chunk
    return content


def _feed(stream: socket.socket, reported: bytes) -> None:
    with contextlib.suppress(OSError):  # it ended without reading everything
        for start in range(0, len(reported), CHUNK):
            chunk = reported[start : start + CHUNK]
            stream.sendall(PACKET.pack(STDIN, len(chunk)) + chunk)
        stream.sendall(PACKET.pack(CLOSE_STDIN, 0))


def _text(parts: list[bytes]) -> str:
    return b"".join(parts).decode(errors="replace").strip()


def _host_and_port(address: str) -> tuple[str, int]:
    if not address:
        socket_spec = os.environ.get("ADB_SERVER_SOCKET", "")
        address = socket_spec.removeprefix("tcp:") if socket_spec.startswith("tcp:") else ""
    if not address:
        host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or os.environ.get("ANDROID_ADB_SERVER_HOST") or "127.0.0.1"
        address = f"{host}:{os.environ.get('ANDROID_ADB_SERVER_PORT', DEFAULT_PORT)}"
    found = re.fullmatch(r"(?:\[?([^\[\]]+?)\]?:)?(\d{1,5})|([^:]+)", address)
    if not found:
        raise UsageError(f"--set adb-server takes HOST or HOST:PORT, not {address!r}")
    host, port, alone = found.groups()
    return alone or host or "127.0.0.1", int(port or DEFAULT_PORT)
