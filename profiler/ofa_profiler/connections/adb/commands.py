"""Run the tools of command templates on a phone, over its Shell."""

import os
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from ofa_agent.commands.place import Place, Ran
from ofa_agent.device import shell
from ofa_agent.measuring.block_trial import measure
from ofa_agent.measuring.file_trial import measure_file
from ofa_agent.measuring.reference import Reference
from ofa_agent.runtimes.command import CommandRuntime
from ofa_profiler.connections.adb.shell import FOLDER, AdbShell
from ofa_tables.errors import DeviceError

NOT_THERE, TOOK_TOO_LONG = 127, 124  # as a Shell reports them

# Runs a command, by its words and a timeout in s.
Run = Callable[[Sequence[str], float], shell.Ran]


def measure_command(trial: Any, model: str, measurement: Any, place: Place, device: shell.Shell) -> None:
    """Fill the Measurement of a trial with a command template. ``model`` is on the phone.

    The device speed is unknown, because the runtimes of reference jobs do not run on a phone.
    """
    runtime = CommandRuntime(trial.job.settings.command, place)
    if trial.reference.key:
        measurement.reference_error = f"runtime {trial.reference.settings.runtime} does not run there"
    of_kind = measure_file if trial.job.HasField("file") else measure
    of_kind(trial, model, Reference(), measurement, runtime, device)


class PhonePlace(Place):
    """A phone. Tools run in adb's shell, in its working directory."""

    def __init__(self, shell: AdbShell, run: Run) -> None:
        self._shell = shell
        self._run = run

    def run(self, arguments: Sequence[str], timeout_s: float, folder: str) -> Ran:
        ran = self._run(arguments, timeout_s)
        if ran.code == NOT_THERE:
            raise FileNotFoundError(2, "No such file or directory", arguments[0])
        code = None if ran.code == TOOK_TOO_LONG else ran.code
        return Ran(code, f"{ran.output}\n{ran.error}")

    def make_folder(self) -> str:
        path = f"{FOLDER}/command-{secrets.token_hex(4)}"
        self._require("mkdir", "-p", path)
        return path

    def make_subfolder(self, path: str) -> None:
        self._require("mkdir", path)

    def remove_folder(self, path: str) -> None:
        self._shell.run("rm", "-rf", path)

    def link(self, path: str, existing: str) -> None:
        self._require("ln", "-s", existing, path)

    def read(self, path: str) -> str | None:
        return self._shell.read(path)

    def write(self, path: str, content: bytes) -> None:
        self._shell.phone.push(path, content)

    def list(self, folder: str) -> list[str]:
        return [os.path.basename(path) for path in self._shell.list(f"{folder}/*")]

    def is_there(self, path: str) -> bool:
        return self._shell.run("ls", path).ok

    def cache_folder(self, model: str) -> str:
        path = f"{FOLDER}/converted"
        self._require("mkdir", "-p", path)
        return path

    def move(self, path: str, to: str) -> None:
        self._require("mv", path, to)

    def _require(self, *words: str) -> None:
        ran = self._shell.run(*words)
        if not ran.ok:
            raise DeviceError(f"{self._shell.phone.name}: {' '.join(words)}: {ran.error or ran.output}")
