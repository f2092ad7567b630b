"""CPU clocks and governors: https://docs.kernel.org/admin-guide/pm/cpufreq.html."""

import json
import re
from typing import Any, Dict, List, Optional, Tuple

from ofa_agent.conditions.knob import CannotSet, Knob, mhz, number, write
from ofa_agent.device.shell import Shell

POLICIES = "/sys/devices/system/cpu/cpufreq/policy*"
CPUS = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"

# A driver rounds a clock to its own steps. A larger relative difference means that the clock was not accepted.
ROUNDING = 0.02


class CpuFreq(Knob):
    """``governor=performance`` sets the governor; ``clock=MHz`` fixes the clock of each cluster, within its limits."""

    settings = ("governor", "clock")

    def read(self, shell: Shell, condition: Any) -> None:
        folders = policies(shell)
        if folders:
            governors = {shell.read(each + "/scaling_governor") or "" for each in folders}
            condition.governor = ",".join(sorted(governors - {""}))
        clocks = [mhz(shell.read(each + "/scaling_cur_freq")) for each in folders]
        condition.clock_mhz = max(clocks, default=0) or _of_cpuinfo(shell)

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        names = ("scaling_governor",) if setting == "governor" else ("scaling_min_freq", "scaling_max_freq")
        found: Dict[str, str] = {}
        for folder in policies(shell):
            for name in names:
                value = shell.read("%s/%s" % (folder, name))
                if value:
                    found["%s/%s" % (folder, name)] = value
        return json.dumps(found, sort_keys=True) if found else None

    def set(self, shell: Shell, setting: str, value: str) -> None:
        for folder in policies(shell):
            if setting == "governor":
                known = (shell.read(folder + "/scaling_available_governors") or "").split()
                if known and value not in known:
                    raise CannotSet("%s has no governor %s; it has %s" % (folder, value, ", ".join(known)))
                write(shell, folder + "/scaling_governor", value)
            else:
                _fix_clock(shell, folder, value)

    def check(self, shell: Shell, setting: str, value: str) -> None:
        for folder in policies(shell):
            if setting == "governor":
                used = shell.read(folder + "/scaling_governor")
                if used != value:
                    raise CannotSet("%s accepted %s, but uses %s" % (folder, value, used or "an unknown governor"))
            else:
                _check_clock(shell, folder, value)

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        values: Dict[str, str] = json.loads(state)
        # The minimum must never exceed the maximum: lower the minimum first, then restore both.
        for path, value in sorted(values.items(), key=lambda pair: "min" not in pair[0]):
            if "min" in path:
                write(shell, path, shell.read(path.replace("scaling_min", "cpuinfo_min")) or value)
        for path, value in sorted(values.items(), key=lambda pair: "min" in pair[0]):
            write(shell, path, value)


def policies(shell: Shell) -> List[str]:
    """Return the folders of cpufreq: one per cluster, or one per core on older kernels."""
    return shell.list(POLICIES) or shell.list(CPUS)


def limits_khz(shell: Shell, folder: str, of: str) -> Tuple[float, float]:
    """Return the lowest and the highest clock in kHz that files such as ``scaling_min_freq`` report; 0: unknown."""
    low, high = (number(shell.read("%s/%s_%s_freq" % (folder, of, end)), 0, 1e9) or 0.0 for end in ("min", "max"))
    return low, high


def _fix_clock(shell: Shell, folder: str, value: str) -> None:
    khz = "%d" % _possible_khz(shell, folder, value)
    write(shell, folder + "/scaling_min_freq", "%d" % limits_khz(shell, folder, "cpuinfo")[0])
    write(shell, folder + "/scaling_max_freq", khz)
    write(shell, folder + "/scaling_min_freq", khz)


def _possible_khz(shell: Shell, folder: str, value: str) -> float:
    """Return the clock of a cluster that is closest to the value in MHz."""
    if not value.isdigit():
        raise CannotSet("clock=%s is not valid; use a number of MHz" % value)
    lowest, highest = limits_khz(shell, folder, "cpuinfo")
    if not highest:
        raise CannotSet("%s does not report the available clocks" % folder)
    khz = min(max(int(value) * 1000.0, lowest), highest)
    listed = (shell.read(folder + "/scaling_available_frequencies") or "").split()
    steps = [step for step in (number(each, 1, 1e9) for each in listed) if step is not None]
    return min(steps, key=lambda step: abs(step - khz)) if steps else khz


def _check_clock(shell: Shell, folder: str, value: str) -> None:
    lowest, highest = limits_khz(shell, folder, "cpuinfo")
    wanted = min(max(int(value) * 1000.0, lowest), highest)
    low, high = limits_khz(shell, folder, "scaling")
    if max(abs(low - wanted), abs(high - wanted)) > ROUNDING * wanted:
        raise CannotSet("%s uses %d to %d MHz" % (folder, low // 1000, high // 1000))


def _of_cpuinfo(shell: Shell) -> int:
    found = re.search(r"^cpu MHz\s*:\s*(\d{1,6}(?:\.\d*)?)$", shell.read("/proc/cpuinfo") or "", re.MULTILINE)
    return round(float(found.group(1))) if found else 0
