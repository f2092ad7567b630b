"""Temperatures and throttling.

Sources: https://docs.kernel.org/driver-api/thermal/sysfs-api.html; on x86 also the counters of
arch/x86/kernel/cpu/mce/therm_throt.c; on a Raspberry Pi the status of the firmware.
"""

from typing import Any, Iterator, Optional, Tuple

from ofa_agent.conditions.knob import Knob, number
from ofa_agent.device.shell import Shell

ZONES = "/sys/class/thermal/thermal_zone*"
COOLERS = "/sys/class/thermal/cooling_device*"
X86_COUNTERS = "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
RASPBERRY_PI = "/sys/devices/platform/soc/soc:firmware/get_throttled"
RASPBERRY_PI_NOW = 0xF  # under-voltage, capped, throttled, soft limit; higher bits report the past

# A device is hot within this distance in °C of the temperature at which the kernel throttles it.
HOT_HEADROOM_C = 3.0


class Thermal(Knob):
    def read(self, shell: Shell, condition: Any) -> None:
        headroom_c: Optional[float] = None
        for name, temperature_c, trip_c in zones(shell):
            condition.temperatures_c[name] = temperature_c
            if trip_c is not None:
                left = trip_c - temperature_c
                headroom_c = left if headroom_c is None else min(headroom_c, left)
        if headroom_c is not None:
            condition.headroom_c, condition.hot = headroom_c, headroom_c < HOT_HEADROOM_C
        condition.throttled = _slowed(shell)
        counts = (number(shell.read(path), 0, 1e12) for path in shell.list(X86_COUNTERS))
        condition.throttle_count = int(sum(count for count in counts if count))


def zones(shell: Shell) -> Iterator[Tuple[str, float, Optional[float]]]:
    """Yield (name, temperature in °C, lowest passive trip point in °C) of each zone that reports a temperature."""
    for zone in shell.list(ZONES):
        millidegrees = number(shell.read(zone + "/temp"), -60e3, 200e3)
        if millidegrees is None:
            continue
        name = shell.read(zone + "/type") or zone.rsplit("/", 1)[-1]
        trips = []
        for path in shell.list(zone + "/trip_point_*_type"):
            if shell.read(path) == "passive":
                trip = number(shell.read(path[: -len("type")] + "temp"), 20e3, 150e3)
                trips += [] if trip is None else [trip / 1000.0]
        yield name, millidegrees / 1000.0, min(trips, default=None)


def _slowed(shell: Shell) -> bool:
    """Return whether a processor is throttled now; fans do not count."""
    for cooler in shell.list(COOLERS):
        kind = (shell.read(cooler + "/type") or "").lower()
        slows = any(word in kind for word in ("cpu", "gpu", "processor", "freq", "balanced"))
        if slows and "fan" not in kind and (number(shell.read(cooler + "/cur_state"), 0, 1e6) or 0) > 0:
            return True
    try:
        return bool(int(shell.read(RASPBERRY_PI) or "0", 16) & RASPBERRY_PI_NOW)
    except ValueError:
        return False
