"""Recorded devices on which the commands that set conditions have their effect, unless told otherwise."""

import json
import re
from pathlib import Path

import pytest

from ofa_agent import conditions
from ofa_agent.conditions import knob
from ofa_agent.device.shell import RecordedShell

DEVICES = Path(__file__).parents[1] / "devices"
JETSONS = json.loads((Path(__file__).parent / "jetsons.json").read_text())

CPUFREQ = "/sys/devices/system/cpu/cpufreq/policy*"


class ObedientShell(RecordedShell):
    """Commands in ``ignored`` succeed without an effect; files in ``ignored`` keep their contents."""

    def __init__(self, folder, refuse=(), ignored=()):
        super().__init__(folder, refuse)
        self.ignored = tuple(ignored)

    def write(self, path, text):
        before = self.read(path)
        super().write(path, text)
        if path.startswith(self.ignored):
            self.written[path] = before

    def run(self, *command, timeout_s=10.0):
        ran = super().run(*command, timeout_s=timeout_s)
        if ran.ok and command[0] not in self.ignored:
            self._obey(command)
        return ran

    def _obey(self, command):
        words = " ".join(command)
        if mode := re.fullmatch(r"nvpmodel -m (\d+)", words):
            names = dict(re.findall(r"POWER_MODEL\s+ID=(\d+) NAME=(.*?) >", self.read("/etc/nvpmodel.conf") or ""))
            if mode[1] in names:
                self.answer("nvpmodel -q", f"NV Power Mode: {names[mode[1]]}\n{mode[1]}")
        elif words == "jetson_clocks":
            for folder, file in ((CPUFREQ, "scaling_%s_freq"), ("/sys/class/devfreq/*", "%s_freq")):
                for path in self.list(f"{folder}/{file % 'max'}"):
                    self.written[path.replace("max", "min")] = self.read(path)
        elif locked := re.search(r"-lgc (\d+),", words):
            name = next(name for name in self._commands if "--query-gpu" in name)
            self.answer(name, re.sub(r"^\d+", locked[1], self._commands[name]))
        elif words.startswith("input keyevent"):
            awake = "Awake" if command[-1] == "224" else "Asleep"
            reported = self._commands["dumpsys power"]
            self.answer("dumpsys power", re.sub(r"mWakefulness=\w+", f"mWakefulness={awake}", reported))
        elif words.startswith("taskset"):
            status = self.read("/proc/self/status")
            self.written["/proc/self/status"] = re.sub(r"(Cpus_allowed_list:\s*)\S+", rf"\g<1>{command[-2]}", status)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("OFA_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(knob, "SETTLE_S", 0.0)


@pytest.fixture
def device():
    """Return a device of tests/devices."""
    return lambda name, **options: ObedientShell(str(DEVICES / name), **options)


@pytest.fixture
def build(tmp_path):
    """Return a device that consists of these files (path to content) and answers of commands."""

    numbers = iter(range(1000))

    def build(files, commands=None, **options):
        root = tmp_path / f"device-{next(numbers)}"
        for path, content in files.items():
            file = root / "files" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        (root / "commands.json").write_text(json.dumps(commands or {}))
        return ObedientShell(str(root), **options)

    return build


@pytest.fixture
def jetson(build):
    """Return a Jetson of jetsons.json, with changed files (None: absent) and answers."""

    def jetson(name, files=None, commands=None, **options):
        recorded = JETSONS[name]
        changed = {**recorded["files"], **(files or {})}
        present = {path: content for path, content in changed.items() if content is not None}
        return build(present, {**(commands or {}), **recorded["commands"], **(commands or {})}, **options)

    return jetson


@pytest.fixture
def setter_of(tmp_path):
    """Create a Setter for a Shell."""
    return lambda shell: conditions.Setter(shell, str(tmp_path / "conditions.json"), lambda *what, **facts: None)
