"""Detach the agent from the session that started it."""

import os
import sys
from typing import Callable

from ofa_agent.service.lock import home
from ofa_agent.service.private import open_regular

LOG_BYTES = 8 << 20


def detach() -> "Callable[[str], None]":
    """Fork a daemon and return, in the daemon, a function that announces its address.

    The log of the daemon goes to the directory of the agent. The parent process waits for the announcement, prints it,
    and exits. If the daemon fails first, the parent exits with its last error line and its exit code.
    Call this before anything that starts threads, such as gRPC.
    """
    log = os.path.join(home(), "agent.log")
    fresh = not os.path.exists(log) or os.path.getsize(log) > LOG_BYTES
    # Always append: if the device already has an agent, the error goes to the log of that agent.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if fresh else 0)
    log_descriptor = open_regular(log, flags)
    begin = os.lseek(log_descriptor, 0, os.SEEK_END)
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        sys.exit(_wait_for(child, reading, log, begin))
    os.close(reading)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor, now in ((0, nothing), (1, nothing), (2, log_descriptor)):
        os.dup2(now, descriptor)

    def announce(text: str) -> None:
        os.write(writing, text.encode())
        os.close(writing)

    return announce


def _wait_for(child: int, reading: int, log: str, begin: int) -> int:
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    if said:
        sys.stdout.write(said + "\n")
        return 0
    _, status = os.waitpid(child, 0)
    with open(log, errors="replace") as file:
        file.seek(begin)
        lines = file.read().strip().splitlines() or ["error: the agent exited without a message; its log is " + log]
    errors = [line for line in lines if line.startswith("error: ")]
    sys.stderr.write((errors or ["error: " + lines[-1]])[-1] + "\n")
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1
