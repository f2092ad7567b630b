"""Ensure one agent per device, with a lock file at a fixed path that contains the holder and the address.

    DeviceBusy          another agent serves this device

The worker process inherits the descriptor of the lock, so that the device stays locked until the worker has ended too.
"""

import errno
import fcntl
import getpass
import json
import os
import signal
import tempfile
import time
from typing import Any, Dict, Optional

from ofa_agent.service.private import open_regular, require_private_folder
from ofa_agent.text import one_line


class DeviceBusy(Exception):
    """Another agent serves this device; the message contains its holder, address, and start time."""


# Marks a holder that may have gone away; a host that waits for the device searches for this text.
LINK_LOST = "connection lost"


def clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def home() -> str:
    """Return the private directory of the agent, for models and log. ``OFA_AGENT_HOME`` moves it and the lock."""
    named = os.environ.get("OFA_AGENT_HOME")
    folder = named or os.path.join(tempfile.gettempdir(), "ofa-agent-%d" % os.getuid())
    require_private_folder(folder, may_be_link=bool(named))
    return folder


def lock_path() -> str:
    moved = os.environ.get("OFA_AGENT_HOME")
    return os.path.join(home(), "agent.lock") if moved else os.path.join(_shared_temp(), "ofa-agent.lock")


class DeviceLock:
    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._reported: Dict[str, Any] = {"pid": os.getpid(), "user": _user(), "since": time.time()}

    @classmethod
    def acquire(cls, wait_s: float = 0.0) -> "DeviceLock":
        """Lock the device; wait up to ``wait_s`` seconds for another agent to exit. Raises DeviceBusy."""
        path = lock_path()
        descriptor = _open_shared(path)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    text = one_line(_who(descriptor))  # any user can write the file
                    os.close(descriptor)
                    raise DeviceBusy("this device already has an agent: %s" % text) from None
                time.sleep(0.05)
        lock = cls(descriptor)
        lock.announce()
        return lock

    def announce(self, **facts: Any) -> None:
        """Update the lock file: ``address``, ``holder``, ``held_since``, ``lost`` (the connection of the holder)."""
        self._reported.update(facts)
        text = json.dumps(self._reported).encode()
        try:
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, text, 0)
        except OSError:
            pass  # a file of another user, which can be locked but not written


def end(patience_s: float = 10.0) -> bool:
    """End the agent that serves this device; return False if there is none.

    Raises PermissionError if the agent belongs to another user.
    """
    try:
        descriptor = open_regular(lock_path(), os.O_RDONLY)
    except FileNotFoundError:
        return False
    ended = False
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)
            return ended
        except BlockingIOError:  # the process that holds the lock is alive
            late_s = time.monotonic() - deadline
            if late_s > patience_s:
                raise _not_ours("the process that locks %s does not end" % lock_path()) from None
            _signal_holder(descriptor, signal.SIGKILL if late_s > 0 else signal.SIGTERM)
            ended = True
            time.sleep(0.1)


def _signal_holder(descriptor: int, number: int) -> None:
    """Signal the process that holds the lock. The file may name another one, because any user can write it."""
    holder = _holder(descriptor)
    if holder is None:  # not Linux, or another PID namespace
        try:
            holder = int(json.loads(os.pread(descriptor, 4096, 0).decode())["pid"])
        except (ValueError, KeyError, TypeError):
            raise _not_ours("its file %s is not readable" % lock_path()) from None
    command = _command(holder)
    if command == b"":  # it is ending: the kernel frees its memory before its files
        return
    if command is not None and b"ofa_agent" not in command and b"ofa-agent" not in command:
        raise _not_ours("process %d, which is not an agent, locks %s" % (holder, lock_path()))
    try:
        os.kill(holder, number)
    except ProcessLookupError:
        pass  # it has just ended


def _not_ours(reason: str) -> PermissionError:
    return PermissionError(errno.EPERM, "the agent of this device cannot be ended: %s" % reason)


def _holder(descriptor: int) -> Optional[int]:
    """Return the process that the kernel reports as the holder of the lock; None if it does not say."""
    found = os.fstat(descriptor)
    place = "%02x:%02x:%d" % (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino)
    try:
        with open("/proc/locks") as file:
            words = [line.split() for line in file]
    except OSError:
        return None
    holders = [int(line[4]) for line in words if len(line) > 5 and line[1] == "FLOCK" and line[5] == place]
    return holders[0] if holders and holders[0] > 0 else None


def _command(process: int) -> Optional[bytes]:
    """Return the command of a process, empty if it is ending or has ended; None where commands cannot be read."""
    try:
        with open("/proc/%d/cmdline" % process, "rb") as file:
            return file.read()
    except OSError:
        return b"" if os.path.isdir("/proc/self") else None


def _who(descriptor: int) -> str:
    try:
        reported = json.loads(os.pread(descriptor, 4096, 0).decode())
        text = "process %s of %s, since %s" % (reported["pid"], reported["user"], clock(reported["since"]))
        if reported.get("address"):
            text += ", on %s" % reported["address"]
        if not reported.get("holder"):
            return text + ", held by nobody now"
        text += ", held by %s since %s" % (reported["holder"], clock(reported.get("held_since", reported["since"])))
        return text + (", %s" % LINK_LOST if reported.get("lost") else "")
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return "the lock file %s is not readable" % lock_path()


def _open_shared(path: str) -> int:
    """Open the lock file in steps.

    Linux refuses O_CREAT for the file of another user in a sticky directory, and another agent may create the file
    meanwhile.
    """
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR, os.O_RDONLY):
        try:
            descriptor = open_regular(path, flags, 0o666)
        except (FileNotFoundError, FileExistsError, PermissionError) as error:
            last = error
            continue
        if flags & os.O_CREAT:
            os.fchmod(descriptor, 0o666)  # other users of this device use the same file
        return descriptor
    raise last


def _shared_temp() -> str:
    return "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "user %d" % os.getuid()
