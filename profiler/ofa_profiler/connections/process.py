"""An agent as a process of this machine, on loopback: it ends with its standard input, that is with this process,
however that ends."""

import contextlib
import json
import os
import secrets
import select
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import grpc

from ofa_agent.service.private import open_regular, require_private_folder
from ofa_profiler.connections.client import CHANNEL_OPTIONS, WINDOW_ON_DEVICE, Agent
from ofa_tables.errors import DeviceError, DeviceHeld

# An agent whose host was killed ends at once, except during a long inference.
LOCK_WAIT_S = 10.0
LOG_BYTES = 8 << 20
START_S = 120.0
END_S = 5.0


class AgentProcess:
    """``command`` serves like ``ofa-agent serve``; ``home`` is its directory, with its log."""

    def __init__(self, command: Sequence[str], home: Path, environment: Mapping[str, str] | None = None) -> None:
        self._command = [*command, "--json", "--token-stdin", "--end-with-stdin", "--lock-wait", str(LOCK_WAIT_S)]
        self._home = home
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[str] | None = None
        self._channel: grpc.Channel | None = None

    def start(self, target: str) -> Agent:
        """Start the agent. Raises DeviceHeld, or DeviceError with its last message."""
        token = secrets.token_hex(16)
        log_path = self._home / "agent.log"
        with _log(log_path) as log:
            begin = log.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
                start_new_session=True,  # only the host receives Ctrl-C, and then ends its agent
            )
        announced = _exchange(self._process, token)
        if not announced:
            self._process.wait()
            raise _refusal(log_path, begin)
        self._channel = grpc.insecure_channel(json.loads(announced)["address"], CHANNEL_OPTIONS)
        return Agent(self._channel, target, token, WINDOW_ON_DEVICE)

    def end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _exchange(process: "subprocess.Popen[str]", token: str) -> str:
    """Send the token; return the line with the address, empty if the agent ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(token + "\n")
        process.stdin.flush()
    answered, _, _ = select.select([process.stdout], [], [], START_S)
    if not answered:
        process.kill()
    return process.stdout.readline()


def _log(path: Path) -> IO[bytes]:
    """Open the log for appending; only its user can read it. Raises DeviceError."""
    try:
        require_private_folder(str(path.parent), may_be_link=True)
        descriptor = open_regular(str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.fchmod(descriptor, 0o600)
        if os.fstat(descriptor).st_size > LOG_BYTES:
            os.ftruncate(descriptor, 0)
        return open(descriptor, "ab")
    except OSError as error:
        raise DeviceError(f"{path}: cannot write the log of the agent: {error.strerror}") from None


def _refusal(log_path: Path, begin: int) -> DeviceError:
    """The last message of an agent that did not start."""
    with log_path.open("rb") as log:
        log.seek(begin)
        lines = log.read().decode(errors="replace").strip().splitlines()
    said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
    if said is None:
        return DeviceError(f"the agent on this machine did not start; its log is {log_path}")
    return DeviceHeld(said) if "already has an agent" in said else DeviceError(said)
