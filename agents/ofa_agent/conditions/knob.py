"""What every knob does, and how to read the numbers that a device reports."""

import math
import re
from typing import Any, List, Optional

from ofa_agent.device.shell import Ran, Shell


class CannotSet(Exception):
    """The message says what kept the knob from being set, and what helps."""


class Knob:
    """One thing about the device that changes how long a Block takes.

    ``settings`` are the names that ``--set`` knows it by; none: it is only read. ``cheap`` ones read files alone, and
    are read around every trial.
    """

    settings: "tuple[str, ...]" = ()
    cheap = True

    def read(self, shell: Shell, condition: Any) -> None:
        """Fill in the fields of the condition that it can read; the others stay unknown."""

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        """What to put back later; None where the device has no such knob."""
        raise NotImplementedError

    def set(self, shell: Shell, setting: str, value: str) -> None:
        """Raises CannotSet."""
        raise NotImplementedError

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        """Raises CannotSet."""
        raise NotImplementedError


def number(text: Optional[str], low: float, high: float) -> Optional[float]:
    """The number; None if it is not a number or out of range."""
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if low <= value <= high else None


def mhz(khz: Optional[str]) -> int:
    """0 where the kernel does not say, or says nonsense."""
    return int((number(khz, 0.0, 1e9 - 1) or 0.0) // 1000)


def cpus(text: Optional[str]) -> List[int]:
    """The kernel's list, such as ``0,2-5``; none where it is not one."""
    found: List[int] = []
    for part in (text or "").split(","):
        ends = re.match(r"^(\d{1,4})(?:-(\d{1,4}))?$", part.strip())
        if not ends:
            return []
        found.extend(range(int(ends.group(1)), int(ends.group(2) or ends.group(1)) + 1))
    return found


def write(shell: Shell, path: str, text: str) -> None:
    """Raises CannotSet."""
    try:
        shell.write(path, text)
    except OSError as error:
        raise CannotSet("%s: %s%s" % (path, error.strerror or error, _as_root(error))) from None


def require(ran: Ran, what: str) -> str:
    """The command's output. Raises CannotSet where it failed."""
    if ran.ok:
        return ran.output
    said = (ran.error or ran.output or "exit code %d" % ran.code).splitlines()[-1]
    raise CannotSet("%s: %s" % (what, said))


def _as_root(error: OSError) -> str:
    return "; run the agent as root, or set it by hand" if isinstance(error, PermissionError) else ""
