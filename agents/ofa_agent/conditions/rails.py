"""Power of an NVIDIA Jetson, from the monitors on its rails (INA3221; on Thor also INA238).

A monitor has up to three channels. Its labels say what a channel measures; its address and the order of the channels
differ between boards. Labels: NVIDIA Jetson Linux Developer Guide, "Electrical Management"; device trees of Linux and
of L4T 32. Files: https://docs.kernel.org/hwmon/ina3221.html; on L4T 32 the driver ina3221x of NVIDIA.
"""

import re
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ofa_agent.conditions.knob import number
from ofa_agent.device.shell import Shell

# Input of the whole module, in order of preference. VIN is the input of a Thor with its carrier board.
TOTALS = ("VDD_IN", "POM_5V_IN", "VIN")
# Inputs of modules that have no total: AGX Xavier and AGX Orin. They are in parallel, so their powers add up:
# Jetson AGX Xavier Series Product Design Guide, section 5.6.2;
# https://forums.developer.nvidia.com/t/jetson-agx-orin-ina3221-power-monitor-layout/223111.
INPUTS = (
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
)
# Channels beside the inputs that do not count: not connected, supplied by VIN_SYS_5V0, and a sum of shunt voltages.
BESIDE_INPUTS = ("NC", "VDDQ_VDD2_1V8AO", "SUM OF SHUNT VOLTAGES")

# One monitor appears in several of these places.
BUSES = ("bus/i2c/drivers/ina*", "bus/i2c/devices") + tuple(
    "devices/%s*.i2c/i2c-*" % parent for parent in ("", "platform/", "platform/*/")
)
HWMON = ("/sys/class/hwmon/hwmon*",) + tuple("/sys/%s/*-*/hwmon/hwmon*" % bus for bus in BUSES)
IIO = ("/sys/bus/iio/devices/iio:device*",) + tuple("/sys/%s/*-*/iio[:_]device*" % bus for bus in BUSES)

# Lowest reading, in mA or mW: the amplifier of a channel without load may report slightly less than 0.
LEAST = -1000.0


class Rail(NamedTuple):
    """A channel of a monitor. The product of its ``paths`` times ``scale`` is the power in W; no path: not readable."""

    label: str
    paths: Tuple[str, ...]
    scale: float
    update_s: float

    def watts(self, shell: Shell) -> Optional[float]:
        readings = [number(shell.read(path), LEAST, 1e9) for path in self.paths]
        product = self.scale if readings else None
        for reading in readings:
            product = None if reading is None or product is None else product * reading
        return product


class Input(NamedTuple):
    """The rails that supply a module."""

    rails: Tuple[Rail, ...]

    @property
    def names(self) -> str:
        return " + ".join(rail.label for rail in self.rails)

    @property
    def update_s(self) -> float:
        """The time in seconds after which every reading is new; 0 if the monitors do not report it."""
        return max(rail.update_s for rail in self.rails)

    def watts(self, shell: Shell) -> float:
        """Return the sum of the rails in W; 0 if any of them cannot be read."""
        readings = [rail.watts(shell) for rail in self.rails]
        known = [reading for reading in readings if reading is not None]
        return max(0.0, sum(known)) if len(known) == len(readings) else 0.0


def find(shell: Shell) -> Optional[Input]:
    """Return the input of the module; None if its labels do not show which rails are the whole input."""
    found = list(_rails(shell))
    labels = [rail.label for rail in found]
    chosen = _whole(labels)
    if any(labels.count(label) != 1 for label in chosen):
        return None  # two monitors with the same label: either may be of another board
    rails = tuple(rail for label in chosen for rail in found if rail.label == label)
    return Input(rails) if rails else None


def _whole(labels: Sequence[str]) -> Sequence[str]:
    for total in TOTALS:
        if total in labels:
            return (total,)
    present = set(labels) - set(BESIDE_INPUTS)
    return next((inputs for inputs in INPUTS if set(inputs) == present), ())


def _rails(shell: Shell) -> Iterator[Rail]:
    known = set()
    for patterns, labels, read in ((HWMON, "/in*_label", _of_hwmon), (IIO, "/rail_name_*", _of_iio)):
        for folder in (each for pattern in patterns for each in shell.list(pattern)):
            if not (shell.read(folder + "/name") or "ina").startswith("ina"):
                continue
            rails: List[Rail] = [read(shell, folder, path) for path in shell.list(folder + labels)]
            same = (folder.rsplit("/", 1)[-1], tuple(rail.label for rail in rails))
            if same not in known:
                known.add(same)
                for rail in rails:
                    yield rail


def _of_hwmon(shell: Shell, folder: str, path: str) -> Rail:
    """Power in µW, or voltage in mV and current in mA."""
    channel = _channel(path)
    update_ms = number(shell.read(folder + "/update_interval"), 0, 60e3) or 0.0
    power = "%s/power%s_input" % (folder, channel)
    paths, scale = (
        ((power,), 1e-6) if shell.read(power) is not None else (_product(folder, "in", "curr", channel), 1e-6)
    )
    if shell.read("%s/in%s_enable" % (folder, channel)) == "0":
        paths = ()
    return Rail(_label(shell, path), paths, scale, update_ms / 1e3)


def _of_iio(shell: Shell, folder: str, path: str) -> Rail:
    """Power in mW, or voltage in mV and current in mA."""
    channel = _channel(path)
    power = "%s/in_power%s_input" % (folder, channel)
    if shell.read(power) is not None:
        return Rail(_label(shell, path), (power,), 1e-3, 0.0)
    return Rail(_label(shell, path), _product(folder, "in_voltage", "in_current", channel), 1e-6, 0.0)


def _product(folder: str, volts: str, amperes: str, channel: str) -> Tuple[str, ...]:
    return tuple("%s/%s%s_input" % (folder, what, channel) for what in (volts, amperes))


def _channel(path: str) -> str:
    return re.sub(r"\D", "", path.rsplit("/", 1)[-1])


def _label(shell: Shell, path: str) -> str:
    return (shell.read(path) or "").upper()
