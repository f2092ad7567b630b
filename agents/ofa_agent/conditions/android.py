"""Phones: heat and battery, the screen, fixed performance (Android 11 and up).

https://developer.android.com/games/optimize/adpf/fixed-performance-mode; AOSP's ``dumpsys thermalservice`` (10 and up),
``dumpsys battery``, ``dumpsys power``. None needs root, but an app's user may not ask: then they stay unknown.
"""

import re
from typing import Any, Dict, Optional

from ofa_agent.conditions.knob import CannotSet, Knob, number, require
from ofa_agent.conditions.thermal import HOT_HEADROOM_C
from ofa_agent.device.shell import Shell

MARK = "/system/build.prop"  # every Android has it, readable or not
FIXED = ("cmd", "power", "set-fixed-performance-mode-enabled")
FIXED_SINCE_SDK = 30
TEMPERATURE = re.compile(r"Temperature\{mValue=([-\d.]+), mType=\d+, mName=([^,}]+)")
PROPERTY = re.compile(r"^\[([^\]]+)\]: \[(.*)\]$", re.MULTILINE)
LIGHT = 1  # THROTTLING_LIGHT of android.os.PowerManager: the least at which anything is slowed down
SEVERE = 3
# A phone slows down for its battery's sake from here on, in °C: where Android says that it overheats.
BATTERY_LIMIT_C = 45.0
WAKE, SLEEP = "224", "223"  # android.view.KeyEvent


class Heat(Knob):
    """What the thermal service and the battery report. Their commands are quick enough to run around every trial."""

    def read(self, shell: Shell, condition: Any) -> None:
        if not is_android(shell):
            return
        _of_thermal_service(shell.run("dumpsys", "thermalservice").output, condition)
        battery = shell.run("dumpsys", "battery").output
        level = number(_field(battery, "level"), 0, 100)
        condition.battery = (level or 0.0) / 100
        tenths_c = number(_field(battery, "temperature"), -600, 2000)
        if tenths_c:
            condition.temperatures_c["battery"] = tenths_c / 10
            headroom_c = BATTERY_LIMIT_C - tenths_c / 10
            condition.headroom_c = min(condition.headroom_c or headroom_c, headroom_c)
            condition.hot = condition.hot or headroom_c < HOT_HEADROOM_C


class Screen(Knob):
    """``screen=off`` or ``on``: a lit one takes power and heat, a dark phone may put its big cores to sleep."""

    settings = ("screen",)
    cheap = False

    def read(self, shell: Shell, condition: Any) -> None:
        condition.screen = self.state(shell, "screen") or ""

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        found = is_android(shell) and re.search(r"mWakefulness=(\w+)", shell.run("dumpsys", "power").output)
        return ("on" if found.group(1) == "Awake" else "off") if found else None

    def set(self, shell: Shell, setting: str, value: str) -> None:
        if value not in ("on", "off"):
            raise CannotSet("screen=%s; it can be on or off" % value)
        require(shell.run("input", "keyevent", WAKE if value == "on" else SLEEP), "input keyevent")

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        self.set(shell, setting, state)


class FixedPerformance(Knob):
    """``fixed-performance=on``. Android does not report its state: it is always restored to off."""

    settings = ("fixed-performance",)
    cheap = False

    def read(self, shell: Shell, condition: Any) -> None:
        pass

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        return "off" if is_android(shell) else None

    def set(self, shell: Shell, setting: str, value: str) -> None:
        if value not in ("on", "off"):
            raise CannotSet("fixed-performance=%s; it can be on or off" % value)
        sdk = shell.run("getprop", "ro.build.version.sdk").output
        if sdk.isdigit() and int(sdk) < FIXED_SINCE_SDK:
            raise CannotSet("fixed performance came with Android 11 (SDK %d), this is SDK %s" % (FIXED_SINCE_SDK, sdk))
        require(shell.run(*FIXED, "true" if value == "on" else "false"), " ".join(FIXED[:2]))

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        self.set(shell, setting, state)


def is_android(shell: Shell) -> bool:
    return bool(shell.list(MARK))


def properties(shell: Shell) -> Dict[str, str]:
    """The output of ``getprop``; empty if the command does not exist."""
    return dict(PROPERTY.findall(shell.run("getprop").output)) if is_android(shell) else {}


def _of_thermal_service(reported: str, condition: Any) -> None:
    # What the hardware says now is the last part; the one before it is a cache.
    current = reported.rpartition("Current temperatures from HAL")[2] or reported
    for value, name in TEMPERATURE.findall(current):
        temperature_c = number(value, -60, 200)
        if temperature_c is not None:
            condition.temperatures_c[name] = temperature_c
    status = re.search(r"Thermal Status:\s*(\d+)", reported)
    if status:
        condition.throttled = condition.throttled or int(status.group(1)) >= LIGHT
        condition.hot = condition.hot or int(status.group(1)) >= SEVERE


def _field(reported: str, name: str) -> Optional[str]:
    found = re.search(r"^\s*%s:\s*(-?\d+)\s*$" % name, reported, re.MULTILINE)
    return found.group(1) if found else None
