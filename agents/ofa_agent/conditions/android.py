"""Android phones: temperatures, battery, screen, and fixed performance mode (Android 11 and later).

https://developer.android.com/games/optimize/adpf/fixed-performance-mode; AOSP's ``dumpsys thermalservice`` (Android 10
and later), ``dumpsys battery``, ``dumpsys power``. They do not require root. The user of an app may not run them; the
values are then unknown.
"""

import re
from typing import Any, Dict, Optional

from ofa_agent.conditions.knob import CannotSet, Knob, in_time, number, require
from ofa_agent.conditions.thermal import note_headroom, note_temperature
from ofa_agent.device.shell import Shell

MARK = "/system/build.prop"  # exists on every Android, but may be unreadable
FIXED = ("cmd", "power", "set-fixed-performance-mode-enabled")
FIXED_SINCE_SDK = 30
TEMPERATURE = re.compile(r"Temperature\{mValue=([-\d.]+), mType=\d+, mName=([^,}]+)")
PROPERTY = re.compile(r"^\[([^\]]+)\]: \[(.*)\]$", re.MULTILINE)
LIGHT = 1  # THROTTLING_LIGHT of android.os.PowerManager, the lowest level that slows anything down
SEVERE = 3
# The battery temperature in °C at which Android reports overheating and phones slow down.
BATTERY_LIMIT_C = 45.0
WAKE, SLEEP = "224", "223"  # android.view.KeyEvent


class Heat(Knob):
    """Temperatures from the thermal service and the battery. The commands are fast enough to run around every trial."""

    def read(self, shell: Shell, condition: Any) -> None:
        if not is_android(shell):
            return
        _of_thermal_service(shell.run("dumpsys", "thermalservice").output, condition)
        battery = shell.run("dumpsys", "battery").output
        level = number(_field(battery, "level"), 0, 100)
        condition.battery = (level or 0.0) / 100
        tenths_c = number(_field(battery, "temperature"), -600, 2000)
        if tenths_c is not None:
            note_temperature(condition, "battery", tenths_c / 10)
            note_headroom(condition, BATTERY_LIMIT_C - tenths_c / 10)


class Screen(Knob):
    """``screen=off`` or ``on``. A lit screen heats the phone; with a dark screen a phone may turn off its big cores."""

    settings = ("screen",)
    cheap = False

    def read(self, shell: Shell, condition: Any) -> None:
        condition.screen = self.state(shell, "screen") or ""

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        found = is_android(shell) and re.search(r"mWakefulness=(\w+)", shell.run("dumpsys", "power").output)
        return ("on" if found.group(1) == "Awake" else "off") if found else None

    def set(self, shell: Shell, setting: str, value: str) -> None:
        if value not in ("on", "off"):
            raise CannotSet("screen=%s is not valid; use on or off" % value)
        require(shell.run("input", "keyevent", WAKE if value == "on" else SLEEP), "input keyevent")

    def check(self, shell: Shell, setting: str, value: str) -> None:
        def difference() -> str:
            used = self.state(shell, setting) or "unknown"
            return "" if used == value else "input keyevent reported success, but the screen is %s" % used

        in_time(shell, difference)

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        self.set(shell, setting, state)


class FixedPerformance(Knob):
    """``fixed-performance=on``. Android does not report the state, so it is always restored to off."""

    settings = ("fixed-performance",)
    cheap = False

    def read(self, shell: Shell, condition: Any) -> None:
        pass

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        return "off" if is_android(shell) else None

    def set(self, shell: Shell, setting: str, value: str) -> None:
        if value not in ("on", "off"):
            raise CannotSet("fixed-performance=%s is not valid; use on or off" % value)
        sdk = shell.run("getprop", "ro.build.version.sdk").output
        if sdk.isdigit() and int(sdk) < FIXED_SINCE_SDK:
            raise CannotSet("fixed-performance requires Android 11 (SDK %d); the SDK is %s" % (FIXED_SINCE_SDK, sdk))
        said = require(shell.run(*FIXED, "true" if value == "on" else "false"), " ".join(FIXED[:2]))
        if "failed" in said.lower():  # an older adb does not return the exit code
            raise CannotSet("%s: %s" % (" ".join(FIXED[:2]), said.splitlines()[0]))

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        self.set(shell, setting, state)


def is_android(shell: Shell) -> bool:
    return bool(shell.list(MARK))


def properties(shell: Shell) -> Dict[str, str]:
    """Return the properties that ``getprop`` prints; empty if the command does not exist."""
    return dict(PROPERTY.findall(shell.run("getprop").output)) if is_android(shell) else {}


def _of_thermal_service(reported: str, condition: Any) -> None:
    # The last section comes from the hardware; the section before it is cached.
    current = reported.rpartition("Current temperatures from HAL")[2] or reported
    for value, name in TEMPERATURE.findall(current):
        temperature_c = number(value, -60, 200)
        if temperature_c is not None:
            note_temperature(condition, name, temperature_c)
    status = re.search(r"Thermal Status:\s*(\d+)", reported)
    if status:
        condition.throttled = condition.throttled or int(status.group(1)) >= LIGHT
        condition.hot = condition.hot or int(status.group(1)) >= SEVERE


def _field(reported: str, name: str) -> Optional[str]:
    found = re.search(r"^\s*%s:\s*(-?\d+)\s*$" % name, reported, re.MULTILINE)
    return found.group(1) if found else None
