"""Read, write and list files, and run commands on a device.

``LocalShell`` accesses the machine that the agent runs on. ``RecordedShell`` replays a recorded device from a folder:
file contents (``files/``) and outputs of commands (``commands.json``, by patterns with ``*``).
"""

import glob
import json
import os
import re
import subprocess
from fnmatch import fnmatchcase as fnmatch
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

LONGEST_READ = 1 << 20


class Ran(NamedTuple):
    """The result of a command; ``code`` is 127 if the command does not exist, 124 if it timed out."""

    code: int
    output: str
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0


class Shell:
    """Access to a device. A read that fails returns None; a write that fails raises OSError.

    ``here``: whether this process runs on the device itself.
    """

    here = True

    def read(self, path: str) -> Optional[str]:
        raise NotImplementedError

    def write(self, path: str, text: str) -> None:
        """Write a file. Raises OSError."""
        raise NotImplementedError

    def list(self, pattern: str) -> List[str]:
        """Return the paths that match a pattern with ``*``, sorted."""
        raise NotImplementedError

    def run(self, *command: str, timeout_s: float = 10.0) -> Ran:
        raise NotImplementedError

    def refresh(self) -> None:
        """Forget answers that this Shell keeps, if it keeps any."""

    def pinned(self) -> Optional[str]:
        """Return the cores that a new process may use, such as ``0,2-3``; None if unknown."""
        found = re.search(r"^Cpus_allowed_list:\s*(\S+)$", self.read("/proc/self/status") or "", re.MULTILINE)
        return found.group(1) if found else None

    def pin(self, cpus: str) -> Ran:
        """Restrict this process, its children, and the processes that they start to the given cores."""
        own = os.getpid()
        children = [self.read(path) or "" for path in self.list("/proc/%d/task/*/children" % own)]
        ran = Ran(0, "")
        for process in [str(own), *(pid for words in children for pid in words.split() if pid.isdigit())]:
            ran = self.run("taskset", "-a", "-c", "-p", cpus, process)
            if not ran.ok:
                break
        return ran


class LocalShell(Shell):
    def read(self, path: str) -> Optional[str]:
        try:
            with open(path, errors="replace") as file:
                return file.read(LONGEST_READ).replace("\0", "").strip()
        except OSError:
            return None

    def write(self, path: str, text: str) -> None:
        with open(path, "w") as file:
            file.write(text)

    def list(self, pattern: str) -> List[str]:
        return sorted(glob.glob(pattern))

    def run(self, *command: str, timeout_s: float = 10.0) -> Ran:
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                env=dict(os.environ, LC_ALL="C"),
                universal_newlines=True,
                errors="replace",
            )
        except FileNotFoundError:
            return Ran(127, "", "%s does not exist" % command[0])
        except OSError as error:
            return Ran(126, "", "%s: %s" % (command[0], error.strerror))
        except subprocess.TimeoutExpired:
            return Ran(124, "", "%s took longer than %g s" % (command[0], timeout_s))
        return Ran(done.returncode, done.stdout.strip(), done.stderr.strip())


class RecordedShell(Shell):
    """A recorded device. Writes go to ``written`` and are read back from there; the folder does not change.

    ``refuse`` lists path prefixes that cannot be written, and commands that the user may not run.
    """

    def __init__(self, folder: str, refuse: Tuple[str, ...] = ()) -> None:
        self._files = os.path.join(folder, "files")
        self._refuse = refuse
        self.written: Dict[str, str] = {}
        self.ran: List[Tuple[str, ...]] = []
        self._commands: Dict[str, Any] = {}
        path = os.path.join(folder, "commands.json")
        if os.path.exists(path):
            with open(path) as file:
                self._commands = json.load(file)

    def answer(self, command: str, output: str) -> None:
        """Set the output of a command."""
        self._commands[command] = output

    def read(self, path: str) -> Optional[str]:
        if path in self.written:
            return self.written[path]
        return LocalShell().read(os.path.join(self._files, path.lstrip("/")))

    def write(self, path: str, text: str) -> None:
        if path.startswith(self._refuse):
            raise PermissionError(13, "Permission denied", path)
        if self.read(path) is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        self.written[path] = text

    def list(self, pattern: str) -> List[str]:
        found = glob.glob(os.path.join(glob.escape(self._files), pattern.lstrip("/")))
        return sorted("/" + os.path.relpath(path, self._files) for path in found)

    def run(self, *command: str, timeout_s: float = 10.0) -> Ran:
        self.ran.append(command)
        if command[0] in self._refuse:
            return Ran(1, "", "permission denied")
        answers = (self._commands[known] for known in self._commands if fnmatch(" ".join(command), known))
        answer = next(answers, None)
        if answer is None:
            return Ran(127, "", "%s does not exist" % command[0])
        return Ran(0, answer) if isinstance(answer, str) else Ran(*answer)
