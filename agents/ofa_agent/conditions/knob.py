"""The base class of knobs, and functions that parse the values that a device reports."""

import math
import time
from typing import Any, Callable, Optional, Tuple

from ofa_agent.device.shell import Ran, Shell

# How long a device may take to show a new state, in seconds.
SETTLE_S = 2.0
POLL_S = 0.1


class CannotSet(Exception):
    """A condition could not be set; the message gives the reason and a remedy."""


class Knob:
    """A property of the device that changes latencies.

    ``settings`` are its names in ``--set``; without names it is read-only. A ``cheap`` knob only reads files; it
    is read before and after every trial. A knob ``of_gpu`` is read around the trials on a GPU.
    """

    settings: "tuple[str, ...]" = ()
    cheap = True
    of_gpu = False

    def read(self, shell: Shell, condition: Any) -> None:
        """Fill in the fields of the condition that this knob reads; the others stay unknown."""

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        """Return the state to restore later; None if the device does not have this setting."""
        raise NotImplementedError

    def resolve(self, shell: Shell, setting: str, value: str, threads: int) -> Tuple[str, str]:
        """Return the value to set for jobs with this number of threads, and a note on what it means here, or ""."""
        return value, ""

    def set(self, shell: Shell, setting: str, value: str) -> None:
        """Set the value. Raises CannotSet."""
        raise NotImplementedError

    def check(self, shell: Shell, setting: str, value: str) -> None:
        """Read the value back after all settings were set. Raises CannotSet if the device does not use the value."""

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        """Restore the state. Raises CannotSet."""
        raise NotImplementedError


def number(text: Optional[str], low: float, high: float) -> Optional[float]:
    """Parse a number; return None if the text is not a number or out of range."""
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if low <= value <= high else None


def in_time(shell: Shell, difference: Callable[[], str]) -> None:
    """Wait until ``difference`` returns an empty text. Raises CannotSet with the text if that takes too long."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        shell.refresh()
        found = difference()
        if not found:
            return
        if time.monotonic() >= deadline:
            raise CannotSet(found)
        time.sleep(POLL_S)


def mhz(khz: Optional[str]) -> int:
    """Convert a frequency in kHz to MHz; 0 if it is unknown or not valid."""
    return int((number(khz, 0.0, 1e9 - 1) or 0.0) // 1000)


def write(shell: Shell, path: str, text: str) -> None:
    """Write a file on the device. Raises CannotSet."""
    try:
        shell.write(path, text)
    except OSError as error:
        raise CannotSet("%s: %s%s" % (path, error.strerror or error, _as_root(error))) from None


def require(ran: Ran, what: str) -> str:
    """Return the output of a command. Raises CannotSet if the command failed."""
    if ran.ok:
        return ran.output
    reason = (ran.error or ran.output or "exit code %d" % ran.code).splitlines()[-1]
    raise CannotSet("%s: %s" % (what, reason))


def _as_root(error: OSError) -> str:
    return "; run the agent as root, or set it manually" if isinstance(error, PermissionError) else ""
