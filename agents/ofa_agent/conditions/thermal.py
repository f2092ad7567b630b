"""Temperatures and throttling.

Sources: https://docs.kernel.org/driver-api/thermal/sysfs-api.html; on x86 also the counters of
arch/x86/kernel/cpu/mce/therm_throt.c; on a Raspberry Pi the status of the firmware.
"""

from typing import Any, Dict, Iterator, Optional, Tuple

from ofa_agent.conditions.knob import Knob, number
from ofa_agent.device.shell import Shell

ZONES = "/sys/class/thermal/thermal_zone*"
COOLERS = "/sys/class/thermal/cooling_device*"
X86_COUNTERS = "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
# Over-current events of a Jetson, each of which lowers the clocks: Jetson Linux Developer Guide, "OC Alarms".
JETSON_COUNTERS = "/sys/class/hwmon/hwmon*/oc*_event_cnt"
RASPBERRY_PI = "/sys/devices/platform/soc/soc:firmware/get_throttled"
RASPBERRY_PI_NOW = 0xF  # under-voltage, capped, throttled, soft limit; higher bits report the past

# A device is hot within this distance in °C of the temperature at which the kernel throttles it.
HOT_HEADROOM_C = 3.0
# Some drivers report °C instead of 1/1000 °C, or a state such as 1.
OTHER_UNIT = 200
# Zones without a sensor: PMIC-Die of a Jetson is always 100 °C.
WITHOUT_SENSOR = ("PMIC-Die",)


class Thermal(Knob):
    def read(self, shell: Shell, condition: Any) -> None:
        for name, temperature_c, trip_c in zones(shell):
            note_temperature(condition, name, temperature_c)
            if trip_c is not None:
                note_headroom(condition, trip_c - temperature_c)
        condition.throttled = condition.throttled or _slowed(shell)
        paths = shell.list(X86_COUNTERS) + shell.list(JETSON_COUNTERS)
        counts = (number(shell.read(path), 0, 1e12) for path in paths)
        condition.throttle_count = int(sum(count for count in counts if count))


def note_temperature(condition: Any, name: str, temperature_c: float) -> None:
    """Add a temperature. Of several sensors with the same name the hottest counts."""
    known_c = condition.temperatures_c.get(name)
    condition.temperatures_c[name] = temperature_c if known_c is None else max(known_c, temperature_c)


def note_headroom(condition: Any, headroom_c: float) -> None:
    """Add the distance of a sensor to its limit. The smallest one counts, in any order of sensors."""
    known = [condition.headroom_c] if condition.headroom_c else []
    condition.headroom_c = min([headroom_c or -0.001] + known)  # 0 is unknown
    condition.hot = condition.hot or headroom_c < HOT_HEADROOM_C


def hottest_c(temperatures_c: Dict[str, float]) -> Optional[float]:
    """Return the highest temperature of a condition; None if no sensor reports one."""
    return max((value for name, value in temperatures_c.items() if name not in WITHOUT_SENSOR), default=None)


def zones(shell: Shell) -> Iterator[Tuple[str, float, Optional[float]]]:
    """Yield (name, temperature in °C, lowest passive trip point in °C) of each zone that reports a temperature."""
    for zone in shell.list(ZONES):
        millidegrees = number(shell.read(zone + "/temp"), -60e3, 200e3)
        if millidegrees is None or 0 < abs(millidegrees) <= OTHER_UNIT:
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
        slows = any(word in kind for word in ("cpu", "gpu", "processor", "freq", "balanced", "powerclamp"))
        if slows and "fan" not in kind and (number(shell.read(cooler + "/cur_state"), 0, 1e6) or 0) > 0:
            return True
    try:
        return bool(int(shell.read(RASPBERRY_PI) or "0", 16) & RASPBERRY_PI_NOW)
    except ValueError:
        return False
