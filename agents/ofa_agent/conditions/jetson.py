"""NVIDIA Jetson: power mode, locked clocks, GPU clock, and power of the board.

Jetson Linux Developer Guide, "Platform Power and Performance": ``nvpmodel``, ``jetson_clocks``.
"""

import os
import re
from typing import Any, Optional

from ofa_agent.conditions.knob import CannotSet, Knob, number, require
from ofa_agent.device.shell import Shell
from ofa_agent.service.lock import home

BOARD = "/proc/device-tree/model"
GPU_CLOCKS = (
    "/sys/class/devfreq/*gp10b/cur_freq",
    "/sys/class/devfreq/*g*b/cur_freq",
    "/sys/class/devfreq/*gpu/cur_freq",
)
# Total input power of the board: TX2 reports mW (INA3221 through iio), Orin mV and mA (through hwmon).
POWER_MW = "/sys/bus/i2c/drivers/ina3221x/0-0041/iio:device*/in_power0_input"
VOLTS_MV, AMPERES_MA = ("/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon*/%s1_input" % what for what in ("in", "curr"))
MODE = re.compile(r"^NV Power Mode:\s*(\S+)\s*\n(\d+)\s*$", re.MULTILINE)


class PowerMode(Knob):
    """``power-mode=0``: the number or the name of a mode in ``/etc/nvpmodel.conf``."""

    settings = ("power-mode",)
    cheap = False

    def read(self, shell: Shell, condition: Any) -> None:
        if is_jetson(shell):
            found = MODE.search(shell.run("nvpmodel", "-q").output)
            condition.power_mode = "%s (%s)" % found.groups() if found else ""

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        found = MODE.search(shell.run("nvpmodel", "-q").output) if is_jetson(shell) else None
        return found.group(2) if found else None

    def set(self, shell: Shell, setting: str, value: str) -> None:
        self.put_back(shell, setting, value if value.isdigit() else _number_of(shell, value))

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        require(shell.run("nvpmodel", "-m", state), "nvpmodel -m %s" % state)


class JetsonClocks(Knob):
    """``jetson-clocks=on`` locks every clock to the maximum of the active power mode."""

    settings = ("jetson-clocks",)

    def read(self, shell: Shell, condition: Any) -> None:
        if not is_jetson(shell):
            return
        for pattern in GPU_CLOCKS:
            clocks = [number(shell.read(path), 0, 1e10) or 0.0 for path in shell.list(pattern)]
            if clocks:
                condition.gpu_clock_mhz = int(max(clocks) // 1e6)
                break
        condition.power_w = power_w(shell)

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

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        require(shell.run("jetson_clocks", "--restore", state), "jetson_clocks --restore")


def is_jetson(shell: Shell) -> bool:
    board = (shell.read(BOARD) or "").lower()
    return "jetson" in board or board == "quill"  # the name of the TX2 in some releases


def _number_of(shell: Shell, name: str) -> str:
    known = re.findall(r"< POWER_MODEL ID=(\d+) NAME=(\S+) >", shell.read("/etc/nvpmodel.conf") or "")
    for identifier, of_mode in known:
        if of_mode == name:
            return str(identifier)
    names = ", ".join("%s (%s)" % (of_mode, identifier) for identifier, of_mode in known) or "unknown"
    raise CannotSet("power mode %s does not exist; the available modes are %s" % (name, names))


def power_w(shell: Shell) -> float:
    """Return the input power of the board in W; 0 if its power rails cannot be read."""

    def first(pattern: str) -> float:
        return next((number(shell.read(path), 0, 1e6) or 0.0 for path in shell.list(pattern)), 0.0)

    return first(POWER_MW) / 1e3 or first(VOLTS_MV) * first(AMPERES_MA) / 1e6
