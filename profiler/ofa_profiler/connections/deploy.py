"""Copy the agent to a device with a shell, start it with the device's Python, find it again, remove it."""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import platformdirs

from ofa_agent import bundle
from ofa_agent.commands.template import PREFIX
from ofa_agent.device.probe import NEEDED, OF_RUNTIMES
from ofa_agent.device.shell import Ran
from ofa_agent.service.lock import LINK_LOST
from ofa_profiler.connections.scripts import END, FACTS, IS_THERE, PROBE, PUT, REMOVE, START
from ofa_tables.errors import DeviceError, DeviceHeld

LINGER_S = 45.0
COMMAND_S = 60.0
FREE_WITHIN_S = 60.0
START_S = 150.0  # a slow board imports gRPC and its runtimes

# The newest wheels for Pythons that no longer get new ones.
PINS: Mapping[str, Mapping[str, str]] = {
    "3.6": {"grpcio": "1.48.2", "protobuf": "3.19.6", "numpy": "1.19.5", "onnxruntime": "1.10.0", "torch": "1.10.2"},
    "3.7": {"grpcio": "1.62.3", "protobuf": "4.24.4", "numpy": "1.21.6", "onnxruntime": "1.14.1", "torch": "1.13.1"},
    "3.8": {
        **{"grpcio": "1.70.0", "protobuf": "5.29.5", "numpy": "1.24.4"},
        **{"onnxruntime": "1.19.2", "openvino": "2024.4.0", "torch": "2.4.1"},
    },
    "3.9": {
        **{"grpcio": "1.80.0", "protobuf": "6.33.0", "numpy": "2.0.2"},
        **{"onnxruntime": "1.19.2", "openvino": "2025.3.0", "torch": "2.8.0"},
    },
    "3.10": {"numpy": "2.2.6", "onnxruntime": "1.23.2"},
}
# TFLite goes by two names: ai-edge-litert, which has wheels for Python 3.9 and later, and the older tflite-runtime.
LITERT_SINCE = (3, 9)


class Link(Protocol):
    """Access to a device's ``sh``."""

    def run(self, script: str, *lines: str, payload: bytes = b"", timeout_s: float = COMMAND_S) -> Ran:
        """Run a script of ours. It reads ``lines``, one each, then the payload: data never becomes part of a script.
        Raises Unreachable.
        """


@dataclass(frozen=True)
class Python:
    """A Python of a board, and which requirements of the agent it has."""

    version: str
    executable: str
    tag: str
    machine: str
    libc: str
    missing: tuple[str, ...]
    runtimes: tuple[str, ...]

    @property
    def series(self) -> str:
        return ".".join(self.version.split(".")[:2])

    @property
    def number(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.series.split("."))

    def requirements(self, names: Sequence[str]) -> list[str]:
        """Requirements for pip, in versions that exist for this Python."""
        pins = PINS.get(self.series, {})
        tflite = "ai-edge-litert" if self.number >= LITERT_SINCE else "tflite-runtime"
        of_pip = [tflite if name == "tflite" else name for name in map(package_of, names)]
        return [f"{name}=={pins[name]}" if name in pins else name for name in of_pip]

    def lacks(self, runtimes: Sequence[str]) -> list[str]:
        """What must be installed to run the agent, with the first of ``runtimes`` if none is there."""
        if any(runtime.startswith(PREFIX) for runtime in runtimes):
            return list(self.missing)  # a command needs no package
        packages = [package_of(runtime) for runtime in runtimes]
        none_there = not set(packages) & set(self.runtimes)
        return [*self.missing, *(packages[:1] if none_there else ())]


def package_of(runtime: str) -> str:
    """The package of a runtime: ``tflite-gpu`` and similar are ways to use ``tflite``."""
    base = runtime.partition("-")[0]
    return base if base in OF_RUNTIMES else runtime


@dataclass(frozen=True)
class Advice:
    """How to get Python on a kind of device, and whether ``ofa-targets provision`` installs what it lacks."""

    python: str
    provision: bool


BOARD = Advice("sudo apt install python3", provision=True)


@dataclass(frozen=True)
class Started:
    """An agent that serves on the loopback of the board."""

    port: int
    token: str


class Deployment:
    """The agent's zip application on one device. ``name`` is the target, for messages; ``places`` are preferred
    directories; ``advice`` applies if something is missing.
    """

    def __init__(self, link: Link, name: str, places: Sequence[str] = (), advice: Advice = BOARD) -> None:
        self._link = link
        self._advice = advice
        self.name = name
        self._content = bundle.build()
        self._zip = bundle.file_name(self._content)
        self._hash = hashlib.sha256(self._content).hexdigest()
        facts = self._require(link.run(FACTS), "its shell does not run commands")
        home, user, self.machine = facts.splitlines()[-3:]
        self._folders = [
            *(f"{place}/ofa-profile-{user}" for place in places),
            f"{home}/.cache/ofa-profile",
            *(f"{place}/ofa-profile-{user}" for place in ("/var/tmp", "/tmp", "/dev/shm")),
        ]
        self._folder: str | None = None

    @property
    def folder(self) -> str:
        """The directory of the agent; the first call copies the agent there if needed. Raises DeviceError."""
        if self._folder is None:
            self._folder = next((f for f in self._folders if self._is_in(f)), None) or self._put_somewhere()
        return self._folder

    @property
    def packages(self) -> str:
        """The directory of packages that were installed only for the agent."""
        return f"{self.folder}/packages"

    def pythons(self, named: str = "") -> list[Python]:
        """The Pythons that could run the agent, the newest first. Raises DeviceError if there is none."""
        found, others = self._pythons(named)
        if not found:
            what = f"no Python called {named}" if named else "no Python"
            raise DeviceError(
                f"{self.name} has {what} that the agent runs on{': ' + others[0] if others else ''}; "
                f"it needs 3.6 or later: install one there, such as {self._advice.python}, or name one with "
                "--set python=/path/to/python3"
            )
        return found

    def choose(self, runtimes: Sequence[str], named: str = "") -> Python:
        """The newest Python with the requirements of the agent and one of the runtimes. Raises DeviceError with what to
        install.
        """
        pythons = self.pythons(named)
        for python in pythons:
            if not python.lacks(runtimes):
                return python
        nearest = min(pythons, key=lambda python: len(python.lacks(runtimes)))
        lacking = nearest.lacks(runtimes)
        from_here = f", or from here with ofa-targets provision {self.name}" if self._advice.provision else ""
        raise DeviceError(
            f"{self.name}: Python {nearest.version} ({nearest.executable}) lacks {_listed(lacking)}; install there "
            f"with {nearest.executable} -m pip install --user {' '.join(nearest.requirements(lacking))}{from_here}"
        )

    def start(self, python: Python, token: str) -> Started:
        """Start an agent that outlives the link and ends LINGER_S after its last holder has gone. Raises DeviceHeld if
        the board has an agent, and DeviceError.
        """
        ran = self._link.run(
            START, python.executable, f"{self.folder}/{self._zip}", self.packages, token, timeout_s=START_S
        )
        if "already has an agent" in ran.error:
            raise DeviceHeld(f"{self.name}: {_error_line(ran)}")
        said = self._require(ran, "the agent did not start")
        try:
            return Started(int(json.loads(said.splitlines()[-1])["address"].rpartition(":")[2]), token)
        except (ValueError, KeyError, TypeError, IndexError):
            raise DeviceError(f"{self.name}: the agent said {said[-200:]!r} where an address was expected") from None

    def end(self, named: str = "") -> bool:
        """End the agent that serves there; return False if there is none, or no Python that could run one. Raises
        DeviceError.
        """
        if not any(self._is_in(folder) for folder in self._folders):
            return False
        pythons, _ = self._pythons(named)
        if not pythons:
            return False
        ran = self._link.run(END, pythons[0].executable, f"{self.folder}/{self._zip}")
        return self._require(ran, "the agent there cannot be ended").endswith("ended")

    def remove(self) -> list[str]:
        """Remove the folders; return those that existed."""
        removed = []
        for folder in self._folders:
            ran = self._link.run(REMOVE, folder)
            if ran.ok:
                removed.append(folder)
            elif ran.code != 3:
                raise DeviceError(f"{self.name}: {folder} cannot be removed: {_error_line(ran)}")
        return removed

    def put(self, folder: str, name: str, content: bytes) -> None:
        """Write a file atomically. Raises DeviceError."""
        self._require(self._put(folder, name, content), f"{name} cannot be written to {folder}")

    def require(self, script: str, *lines: str, timeout_s: float) -> str:
        """The output of a script of ours. Raises DeviceError if it failed."""
        return self._require(self._link.run(script, *lines, timeout_s=timeout_s), "it did not work")

    def _pythons(self, named: str) -> tuple[list[Python], list[str]]:
        """The suitable Pythons, the newest first, and the messages of those on which the agent does not run."""
        ran = self._link.run(PROBE, f"{self.folder}/{self._zip}", self.packages, named)
        found: dict[str, Python] = {}
        others = []
        for line in ran.output.splitlines():
            python = _parsed(line)
            if python is None:
                others.append(line.removeprefix("error: "))
            else:
                found.setdefault(python.executable, python)
        return sorted(found.values(), key=lambda python: python.number, reverse=True), others

    def _is_in(self, folder: str) -> bool:
        return self._link.run(IS_THERE, folder, self._zip, self._hash).ok

    def _put(self, folder: str, name: str, content: bytes) -> Ran:
        return self._link.run(PUT, folder, name, payload=content, timeout_s=600.0)

    def _put_somewhere(self) -> str:
        reasons = []
        for folder in self._folders:
            ran = self._put(folder, self._zip, self._content)
            if ran.ok:
                return folder
            reasons.append(f"{folder}: {_error_line(ran)}")
        raise DeviceError(
            f"{self.name} has no place for the agent ({len(self._content) // 1024 + 1} kB): {'; '.join(reasons)}; "
            "make room, or make one of them writable"
        )

    def _require(self, ran: Ran, what: str) -> str:
        if not ran.ok:
            raise DeviceError(f"{self.name}: {what}: {_error_line(ran)}")
        return ran.output


class Remembered:
    """Where the agent of a device serves, and its token, in a file of this user: the next command needs both."""

    def __init__(self, device: str) -> None:
        self._path = platformdirs.user_state_path("ofa-profile") / "agents" / f"{device}.json"

    def read(self) -> Started | None:
        try:
            return Started(**json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, started: Started) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.forget()
            self._path.touch(mode=0o600)
            self._path.write_text(json.dumps(vars(started)))
        except OSError:
            self.forget()  # the next command starts a new agent

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


def start_when_free(deployment: Deployment, python: Python, say: Callable[[str], None]) -> Started:
    """Start an agent; wait for an agent whose host is gone until it ends. Raises DeviceHeld, DeviceError."""
    deadline = time.monotonic() + FREE_WITHIN_S
    waiting = False
    while True:
        try:
            return deployment.start(python, secrets.token_hex(16))
        except DeviceHeld as held:
            may_be_gone = LINK_LOST in str(held) or "held by nobody now" in str(held)
            if not may_be_gone or time.monotonic() > deadline:
                raise
            if not waiting:
                say(f"{held}; waiting for that agent to end")
            waiting = True
            time.sleep(2.0)


def _parsed(line: str) -> Python | None:
    try:
        reported: dict[str, Any] = json.loads(line)
        return Python(
            version=reported["python"],
            executable=reported["executable"],
            tag=reported["tag"],
            machine=reported["machine"],
            libc=reported["libc"],
            missing=tuple(name for name in NEEDED if name in reported["missing"]),
            runtimes=tuple(reported["runtimes"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _error_line(ran: Ran) -> str:
    lines = (ran.error or ran.output).strip().splitlines() or [f"exit code {ran.code}"]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines)[-1].removeprefix("error: ")


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
