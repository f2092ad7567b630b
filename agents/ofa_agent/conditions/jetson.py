"""NVIDIA Jetson: power mode, locked clocks, GPU clock, and input power.

Jetson Linux Developer Guide, "Platform Power and Performance": ``nvpmodel``, ``jetson_clocks``.
"""

import os
import re
from typing import Any, List, NamedTuple, Optional, Tuple

from ofa_agent.conditions import rails
from ofa_agent.conditions.cpufreq import limits_khz, policies
from ofa_agent.conditions.knob import CannotSet, Knob, number, require
from ofa_agent.device.shell import Ran, Shell
from ofa_agent.service.lock import home

# Names of the chip. The Shell removes the zero bytes between them, so another name may follow without a space.
COMPATIBLE = "/proc/device-tree/compatible"
CHIPS = re.compile(r"nvidia,tegra(210|186|194|234|264)(?!\d)")
# The name of the board, if the chip is not reported. Some releases use an internal name of the board.
BOARD = "/proc/device-tree/model"
BOARDS = re.compile(r"\bjetson\b|\bnvidia\b.*\b(orin|xavier|thor)\b|^(storm|lightning|quill)\b")
GPU_CLOCKS = (
    "/sys/class/devfreq/*gp10b",
    "/sys/class/devfreq/*g*b",
    "/sys/class/devfreq/*gpu",
    "/sys/class/devfreq/gpu-gpc*",
)
MODE = re.compile(r"^\s*NV Power Mode:[ \t]*(\S.*?)[ \t\r]*\n(?:.*\n)*?\s*(\d+)\s*$", re.MULTILINE)
UNSET = re.compile(r"power mode is not set")
MODES = "/etc/nvpmodel.conf"
KNOWN_MODE = re.compile(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(.*?)\s*>", re.MULTILINE)


class Mode(NamedTuple):
    """A power mode; both fields are empty if no mode is set."""

    name: str
    number: str

    def __str__(self) -> str:
        return "%s (%s)" % self if self.number else "not set"


class PowerMode(Knob):
    """``power-mode=0``: the number or the name of a mode in ``/etc/nvpmodel.conf``."""

    settings = ("power-mode",)
    cheap = False

    def read(self, shell: Shell, condition: Any) -> None:
        mode = _mode(shell.run("nvpmodel", "-q")) if is_jetson(shell) else None
        condition.power_mode = str(mode) if mode else ""

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        if not is_jetson(shell):
            return None
        ran = shell.run("nvpmodel", "-q")
        mode = _mode(ran)
        if mode is None and ran.code != 127:
            raise CannotSet("nvpmodel -q does not report the power mode: %s" % (_last_line(ran) or "no output"))
        return mode.number if mode else None

    def set(self, shell: Shell, setting: str, value: str) -> None:
        mode = _number_of(shell, value)
        require(shell.run("nvpmodel", "-m", mode), "nvpmodel -m %s" % mode)

    def check(self, shell: Shell, setting: str, value: str) -> None:
        wanted, used = _number_of(shell, value), _mode(shell.run("nvpmodel", "-q"))
        if used is None or used.number != wanted:
            raise CannotSet("nvpmodel -m %s reported success, but the power mode is %s" % (wanted, used or "unknown"))

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        if not state:
            return  # no mode was set before, and nvpmodel cannot return to that
        require(shell.run("nvpmodel", "-m", state), "nvpmodel -m %s" % state)
        self.check(shell, setting, state)


class JetsonClocks(Knob):
    """``jetson-clocks=on`` locks every clock to the maximum of the active power mode."""

    settings = ("jetson-clocks",)

    def read(self, shell: Shell, condition: Any) -> None:
        if not is_jetson(shell):
            return
        clocks = [number(shell.read(folder + "/cur_freq"), 0, 1e10) or 0.0 for folder in _gpus(shell)]
        condition.gpu_clock_mhz = int(max(clocks, default=0.0) // 1e6) or condition.gpu_clock_mhz
        source = rails.find(shell)
        watts = source.watts(shell) if source else 0.0
        if source and watts:
            condition.power_w, condition.power_of = watts, source.names

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        if not is_jetson(shell):
            return None
        path = os.path.join(home(), "jetson-clocks")
        # jetson_clocks does not overwrite an existing file, which would hold an older state.
        shell.run("rm", "-f", path)
        require(shell.run("jetson_clocks", "--store", path), "jetson_clocks --store")
        return path

    def set(self, shell: Shell, setting: str, value: str) -> None:
        if value != "on":
            raise CannotSet("jetson-clocks=%s is not valid; use on, or omit it" % value)
        require(shell.run("jetson_clocks"), "jetson_clocks")

    def check(self, shell: Shell, setting: str, value: str) -> None:
        free = unlocked(shell)
        if free is None:
            raise CannotSet("jetson_clocks reported success, but no clock can be read")
        if free:
            raise CannotSet("jetson_clocks reported success, but clocks are not locked: %s" % ", ".join(free))

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        require(shell.run("jetson_clocks", "--restore", state), "jetson_clocks --restore")


def is_jetson(shell: Shell) -> bool:
    if CHIPS.search(shell.read(COMPATIBLE) or ""):
        return True
    return bool(BOARDS.search((shell.read(BOARD) or "").lower()))


def unlocked(shell: Shell) -> Optional[List[str]]:
    """Return the CPU and GPU clocks that may still change, with their limits; None if no limits can be read."""
    spans: List[Tuple[str, float, float]] = []
    for folder in policies(shell):
        low, high = limits_khz(shell, folder, "scaling")
        spans.append((folder, low / 1e3, high / 1e3))
    for folder in _gpus(shell):
        low, high = (number(shell.read("%s/%s_freq" % (folder, end)), 0, 1e10) or 0.0 for end in ("min", "max"))
        spans.append((folder, low / 1e6, high / 1e6))
    known = [span for span in spans if span[2]]
    if not known:
        return None
    return ["%s (%d to %d MHz)" % (folder.rsplit("/", 1)[-1], low, high) for folder, low, high in known if low < high]


def _gpus(shell: Shell) -> List[str]:
    return next((found for found in map(shell.list, GPU_CLOCKS) if found), [])


def _mode(ran: Ran) -> Optional[Mode]:
    """Return the power mode that ``nvpmodel -q`` printed, even if it failed later; None if it printed none."""
    found = MODE.search(ran.output)
    if found:
        return Mode(*found.groups())
    return Mode("", "") if UNSET.search(ran.output + ran.error) else None


def _number_of(shell: Shell, value: str) -> str:
    """Return the number of a power mode, given its number or its name."""
    if value.isdigit():
        return str(int(value))
    known = KNOWN_MODE.findall(shell.read(MODES) or "")
    for identifier, name in known:
        if name.split() == value.split():
            return str(identifier)
    names = ", ".join("%s (%s)" % (name, identifier) for identifier, name in known) or "unknown"
    raise CannotSet("power mode %s does not exist; the available modes are %s" % (value, names))


def _last_line(ran: Ran) -> str:
    return ((ran.error or ran.output).splitlines() or [""])[-1]
