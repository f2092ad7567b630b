"""One agent per device: a lock on a fixed path that names its holder and address.

    DeviceBusy          another agent has this device

The lock's descriptor is handed to the worker process, so that the device is not free before the worker, too, is gone.
"""

import errno
import fcntl
import getpass
import json
import os
import signal
import tempfile
import time
from typing import Any, Dict


class DeviceBusy(Exception):
    """The message names the holder, its address, and since when."""


# Of a holder that may be gone; a host that waits for the device looks for these words.
LINK_LOST = "whose link is lost"


def clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def home() -> str:
    """The agent's own folder, for this user alone: models and log. ``OFA_AGENT_HOME`` moves it, and the lock."""
    folder = os.environ.get("OFA_AGENT_HOME") or os.path.join(tempfile.gettempdir(), "ofa-agent-%d" % os.getuid())
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.stat(folder).st_uid != os.getuid():
        raise PermissionError(errno.EACCES, "belongs to another user; set OFA_AGENT_HOME to a folder of yours", folder)
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
        """Waits up to ``wait_s`` for an agent that is just ending. Raises DeviceBusy."""
        path = lock_path()
        descriptor = _open_shared(path)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    text = _who(descriptor)
                    os.close(descriptor)
                    raise DeviceBusy("this device already has an agent: %s" % text) from None
                time.sleep(0.05)
        lock = cls(descriptor)
        lock.announce()
        return lock

    def announce(self, **facts: Any) -> None:
        """What the next one who asks shall read: ``address``, ``holder``, ``held_since``, ``lost`` (its link)."""
        self._reported.update(facts)
        text = json.dumps(self._reported).encode()
        try:
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, text, 0)
        except OSError:
            pass  # a file of another user's, that may be locked but not written


def end(patience_s: float = 10.0) -> bool:
    """End the agent that holds the device; return False if there is none. Raises PermissionError for another user's."""
    try:
        descriptor = os.open(lock_path(), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    ended = False
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)
            return ended
        except BlockingIOError:  # so the process that the file names is alive
            pid = int(json.loads(os.pread(descriptor, 4096, 0).decode())["pid"])
            os.kill(pid, signal.SIGKILL if time.monotonic() > deadline else signal.SIGTERM)
            ended = True
            time.sleep(0.1)


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
        return "it did not say who it is (see %s)" % lock_path()


def _open_shared(path: str) -> int:
    """Opened in steps: Linux refuses O_CREAT on another user's file in a sticky folder; one may appear meanwhile."""
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR, os.O_RDONLY):
        try:
            descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except (FileNotFoundError, FileExistsError, PermissionError) as error:
            last = error
            continue
        if flags & os.O_CREAT:
            os.fchmod(descriptor, 0o666)  # any user of this device may come next
        return descriptor
    raise last


def _shared_temp() -> str:
    return "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "user %d" % os.getuid()
