"""Android: fixed performance (11 and up), the thermal service (10 and up), the battery.

https://developer.android.com/games/optimize/adpf/fixed-performance-mode, AOSP's ``dumpsys thermalservice``.
"""

import re
from typing import Any, Optional

from ofa_agent.conditions.knob import CannotSet, Knob, number, require
from ofa_agent.shell import Shell

FIXED = ("cmd", "power", "set-fixed-performance-mode-enabled")
TEMPERATURE = re.compile(r"Temperature\{mValue=([-\d.]+), mType=\d+, mName=([^,}]+)")
LIGHT = 1  # THROTTLING_LIGHT of android.os.PowerManager: the least at which anything is slowed down
SEVERE = 3


class FixedPerformance(Knob):
    """``fixed-performance=on``. Android does not tell whether it was on: what is put back is off, as phones come."""

    settings = ("fixed-performance",)
    cheap = False

    def read(self, shell: Shell, condition: Any) -> None:
        if not is_android(shell):
            return
        thermal = shell.run("dumpsys", "thermalservice").output
        # What the hardware says now is the last part; the one before it is a cache.
        current = thermal.rpartition("Current temperatures from HAL")[2] or thermal
        for value, name in TEMPERATURE.findall(current):
            temperature_c = number(value, -60, 200)
            if temperature_c is not None:
                condition.temperatures_c[name] = temperature_c
        status = re.search(r"Thermal Status:\s*(\d+)", thermal)
        if status:
            condition.throttled = condition.throttled or int(status.group(1)) >= LIGHT
            condition.hot = condition.hot or int(status.group(1)) >= SEVERE
        level = re.search(r"^\s*level:\s*(\d+)$", shell.run("dumpsys", "battery").output, re.MULTILINE)
        condition.battery = (number(level.group(1), 0, 100) or 0.0) / 100 if level else 0.0

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        return "off" if is_android(shell) else None

    def set(self, shell: Shell, setting: str, value: str) -> None:
        if value not in ("on", "off"):
            raise CannotSet("fixed-performance=%s; it can be on or off" % value)
        require(shell.run(*FIXED, "true" if value == "on" else "false"), " ".join(FIXED[:2]))

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        self.set(shell, setting, state)


def is_android(shell: Shell) -> bool:
    sdk = shell.run("getprop", "ro.build.version.sdk")
    return sdk.ok and sdk.output.isdigit()
