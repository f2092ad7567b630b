"""One phone: its agent runs on it if it has Python, else on the host."""

import contextlib
import getpass
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from ofa_agent.commands.template import PREFIX
from ofa_agent.conditions.android import Heat, is_android
from ofa_agent.protocol import messages as wire
from ofa_agent.service import lock
from ofa_profiler.connections.adb import binary
from ofa_profiler.connections.adb.server import Phone
from ofa_profiler.connections.adb.shell import FOLDER, HELD, HOLD, LOCK, AdbShell
from ofa_profiler.connections.adb.termux import Termux
from ofa_profiler.connections.client import CHANNEL_OPTIONS, Agent
from ofa_profiler.connections.connection import Connection
from ofa_profiler.connections.deploy import Advice, Deployment, Link, Python, Remembered, Started, start_when_free
from ofa_profiler.connections.process import LOCK_WAIT_S, AgentProcess
from ofa_profiler.connections.tunnel import Tunnel
from ofa_profiler.targets.target import Target
from ofa_tables.errors import DeviceError, DeviceHeld, Unreachable, UsageError

BESIDE = "benchmark_model"  # runtimes with this prefix run on the host, beside the phone
PLACES = ("/data/local/tmp",)
ADVICE = Advice("pkg install python in Termux", provision=False)
REMOVE = 'IFS= read -r folder; IFS= read -r lock; rm -f "$lock"; [ -d "$folder" ] || exit 3; rm -rf "$folder"'
RECONNECT_S = 300.0
# Below this most phones save power.
LEAST_BATTERY = 0.2


class PhoneConnection(Connection):
    def __init__(self, target: Target, phone: Phone) -> None:
        super().__init__(target)
        self.phone = phone
        self.name = phone.name
        self.patience_s = self.seconds("reconnect-s", RECONNECT_S)
        self._process: AgentProcess | None = None
        self._tunnel: Tunnel | None = None
        self._channel: grpc.Channel | None = None
        self._held: socket.socket | None = None

    def open(self) -> Agent:
        """Open the phone with the first runtime of the target that works there. Raises DeviceError with what each
        runtime lacks.
        """
        self._require_there()
        self._require_charge()
        self._hold()
        try:
            return self._by_a_runtime()
        except BaseException:
            self.close()
            raise

    def _by_a_runtime(self) -> Agent:
        reasons = []
        beside = (BESIDE, PREFIX)
        for runtime in dict.fromkeys(BESIDE if name.startswith(beside) else name for name in self.target.runtimes):
            try:
                return self._beside() if runtime == BESIDE else self._on_it(runtime)
            except (Unreachable, DeviceHeld):
                raise
            except DeviceError as reason:
                if runtime == BESIDE and binary.SETTING in self.target.settings:
                    raise  # which was requested by name
                reasons.append(f"{runtime}: {reason}")
        raise DeviceError(f"{self.phone.label} has none of its runtimes: {'; '.join(reasons)}")

    def steps(self) -> Iterator[tuple[str, str]]:
        self._require_there()
        yield "reach", f"{self.phone.serial} by the adb server at {self.phone.server}"
        self._require_charge()
        yield "battery", self._charge()

    def clean(self) -> str:
        removed = []
        self._hold()
        Remembered(f"adb-{_plain(self.phone.serial)}").forget()
        for link in self._links():
            deployment = self._deployment(link)
            deployment.end(self._python)
            removed += deployment.remove()
        ran = self.phone.run(REMOVE, FOLDER, LOCK)
        removed += [FOLDER] if ran.ok else []
        return f"{self.phone.serial}: removed {', '.join(removed) or 'nothing: nothing of ours was there'}"

    def close(self) -> None:
        self._leave()
        if self._process is not None:
            self._process.end()
            self._process = None
        if self._held is not None:  # last, because then others may use the phone
            with contextlib.suppress(OSError):
                self._held.shutdown(socket.SHUT_RDWR)
            self._held.close()
            self._held = None

    def _hold(self) -> None:
        """Reserve the phone for this process until it is closed or the link is cut: one agent per phone. Raises
        DeviceHeld.
        """
        since = lock.clock(time.time())
        holder = f"held by {getpass.getuser()}@{socket.gethostname()} (process {os.getpid()}) since {since}"
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            ran, self._held = self.phone.start(HOLD, holder)
            if self._held is not None:
                return
            if ran.code != HELD:
                raise DeviceError(f"{self.phone.label}: {LOCK} cannot be written: {ran.error or ran.output}")
            if time.monotonic() >= deadline:
                raise DeviceHeld(f"{self.phone.label} already has an agent, {ran.error or 'of somebody else'}")
            time.sleep(0.5)

    def _beside(self) -> Agent:
        """An agent on this machine that runs TFLite's tool on the phone."""
        abi = AdbShell(self.phone).run("getprop", "ro.product.cpu.abi").output
        commands = bool(self.target.commands)  # which need no benchmark_model
        named = binary.SETTING in self.target.settings or not commands
        tool = binary.find(self.target.settings, abi, self.name) if named else None
        home = Path(lock.home()) / "phones" / _plain(self.phone.serial)
        command = [
            *(
                sys.executable,
                "-m",
                "ofa_profiler.connections.adb.host_agent",
                "serve",
                f"--server={self.phone.server}",
            ),
            *(f"--serial={self.phone.serial}", f"--name={self.name}"),
            *([f"--binary={tool.absolute()}"] if tool else []),
        ]
        self._process = AgentProcess(command, home, {"OFA_AGENT_HOME": str(home)})
        try:
            agent = self._process.start(self.name)
            missing = agent.describe()["missing_runtimes"]
            if BESIDE in missing and not commands:
                raise DeviceError(missing[BESIDE])
        except DeviceError:
            self._process.end()
            self._process = None
            raise
        return agent

    def _on_it(self, runtime: str) -> Agent:
        """An agent on the phone, run by the user that has a Python; reached through a stream of adb."""
        remembered = Remembered(f"adb-{_plain(self.phone.serial)}")
        reasons = []
        for link in self._links():
            deployment = self._deployment(link)
            try:
                python = deployment.choose((runtime,), self._python)
            except Unreachable:
                raise
            except DeviceError as reason:
                reasons.append(str(reason))
                continue
            return self._again(remembered) or self._new(remembered, deployment, python)
        raise DeviceError(reasons[-1])

    def _leave(self) -> None:
        """Leave the agent on the phone running."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None

    def _again(self, remembered: Remembered) -> Agent | None:
        """The agent that an earlier command left on the phone, if it still serves."""
        started = remembered.read()
        if started is None:
            return None
        agent = self._through(started)
        try:
            agent.describe()
        except DeviceError:
            self._leave()
            remembered.forget()
            return None
        return agent

    def _new(self, remembered: Remembered, deployment: Deployment, python: Python) -> Agent:
        started = start_when_free(deployment, python, self.say)
        remembered.write(started)
        return self._through(started)

    def _through(self, started: Started) -> Agent:
        self._tunnel = self.phone.tunnel(started.port)
        self._channel = grpc.insecure_channel(self._tunnel.address, CHANNEL_OPTIONS)
        return Agent(self._channel, self.name, started.token)

    def _deployment(self, link: Link) -> Deployment:
        return Deployment(link, self.name, PLACES, ADVICE)

    @property
    def _python(self) -> str:
        return self.target.settings.get("python", "")

    def _links(self) -> list[Link]:
        """The users that may have a Python: adb's own, and Termux's if it lets adb in."""
        termux = Termux(self.phone)
        return [self.phone, *([termux] if termux.is_there() else [])]

    def _require_there(self) -> None:
        listed = self.phone.listed()
        if listed is None or not listed.usable:
            raise self.phone.lost("")

    def _require_charge(self) -> None:
        least = self._least_battery()
        condition = self._heat()
        if condition is not None and 0 < condition.battery < least:
            raise DeviceError(
                f"{self.phone.label}: the battery is at {condition.battery:.0%}, and phones slow "
                f"down to save it; charge it to {least:.0%}, or measure on with --set min-battery=0"
            )

    def _charge(self) -> str:
        condition = self._heat()
        if condition is None:
            return "unknown"
        return f"{condition.battery:.0%}, {condition.temperatures_c.get('battery', 0.0):.0f} °C"

    def _heat(self) -> wire.Message | None:
        shell = AdbShell(self.phone)
        if not is_android(shell):
            return None
        condition = wire.Condition()
        Heat().read(shell, condition)
        return condition

    def _least_battery(self) -> float:
        text = self.target.settings.get("min-battery")
        try:
            percent = LEAST_BATTERY * 100 if text is None else float(text)
        except ValueError:
            raise UsageError(f"--set min-battery takes percent, such as 20, not {text!r}") from None
        return percent / 100


def _plain(serial: str) -> str:
    """A text as a file name."""
    return re.sub(r"[^\w.-]", "-", serial)
