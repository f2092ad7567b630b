"""Where the tools of command templates run: on this machine, or on a device that a subclass reaches."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from functools import lru_cache
from typing import Any, List, NamedTuple, Optional, Sequence

from ofa_agent.commands.programs import find_program

MAX_CONVERTED_BYTES = 2 << 30  # older files are removed


class Ran(NamedTuple):
    """The result of a command: its exit code, None if it took too long, and all that it printed."""

    code: Optional[int]
    text: str


class Place:
    """This machine."""

    def run(self, arguments: Sequence[str], timeout_s: float, folder: str) -> Ran:
        """Run a program, if possible in this folder. Raises OSError if it cannot be started."""
        return run([find_program(arguments[0])] + list(arguments[1:]), timeout_s, folder)

    def make_folder(self) -> str:
        """Make an empty folder."""
        return tempfile.mkdtemp(prefix="ofa-command-")

    def make_subfolder(self, path: str) -> None:
        os.mkdir(path)

    def remove_folder(self, path: str) -> None:
        shutil.rmtree(path, ignore_errors=True)

    def link(self, path: str, existing: str) -> None:
        """Give an existing file another name."""
        os.symlink(os.path.abspath(existing), path)

    def read(self, path: str) -> Optional[str]:
        """Return the content of a file; None if there is no such file."""
        try:
            with open(path, errors="replace") as file:
                return file.read()
        except OSError:
            return None

    def write(self, path: str, content: bytes) -> None:
        with open(path, "wb") as file:
            file.write(content)

    def list(self, folder: str) -> List[str]:
        """Return the names of the files in a folder, sorted."""
        return sorted(os.listdir(folder))

    def is_there(self, path: str) -> bool:
        return os.path.exists(path)

    def cache_folder(self, model: str) -> str:
        """Return the folder for converted models; ``model`` is a model of the agent. Old files in it are removed."""
        folder = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(model))), "converted")
        os.makedirs(folder, exist_ok=True)
        _remove_oldest(folder)
        return folder

    def move(self, path: str, to: str) -> None:
        """Move a file, so that it appears complete."""
        shutil.move(path, to + ".part")
        os.replace(to + ".part", to)


def run(arguments: Sequence[str], timeout_s: float, folder: str) -> Ran:
    """Run a program in a folder and return what it printed; it ends with this process. Raises OSError."""
    _libc()  # loaded before the new process needs it
    process = subprocess.Popen(
        list(arguments),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ, LC_ALL="C"),
        universal_newlines=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    try:
        text, _ = process.communicate(timeout=timeout_s)
        return Ran(process.returncode, text)
    except subprocess.TimeoutExpired:
        _end_group(process.pid)
        text, _ = process.communicate()
        return Ran(None, text)
    except BaseException:
        _end_group(process.pid)
        raise


@lru_cache(maxsize=None)
def _libc() -> Any:
    return ctypes.CDLL(None)


def _end_with_parent() -> None:
    """Ask the kernel to end the tool when the worker ends (Linux)."""
    parent_died = 1  # PR_SET_PDEATHSIG
    with contextlib.suppress(OSError, AttributeError):
        _libc().prctl(parent_died, signal.SIGKILL)


def _end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _remove_oldest(folder: str) -> None:
    """Remove the converted models that were not used for the longest time, until the others fit."""
    found = [os.path.join(folder, name) for name in os.listdir(folder)]
    found.sort(key=os.path.getmtime, reverse=True)
    total = 0
    for path in found:
        total += os.path.getsize(path)
        if total > MAX_CONVERTED_BYTES:
            with contextlib.suppress(OSError):
                os.remove(path)
