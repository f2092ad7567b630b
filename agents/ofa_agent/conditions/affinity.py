"""The cores of the worker: ``affinity=big`` for the cores with the highest clock, or ``affinity=0,3-5``."""

from typing import Any, Dict, List, Optional, Tuple

from ofa_agent.conditions.knob import CannotSet, Knob, cpus, mhz, require
from ofa_agent.device.shell import Shell

CPU = "/sys/devices/system/cpu"


class Affinity(Knob):
    """The cores of the processes that the Shell starts; with LocalShell also of this process and its children."""

    settings = ("affinity",)

    def read(self, shell: Shell, condition: Any) -> None:
        condition.affinity = shell.pinned() or ""

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        return shell.pinned()

    def set(self, shell: Shell, setting: str, value: str) -> None:
        online = _online(shell)
        wanted = _wanted(shell, value)
        if not wanted:
            raise CannotSet("affinity=%s is not a list of cores; use big, or a list such as 0,2-3" % value)
        absent = sorted(set(wanted) - set(online))
        if absent:
            raise CannotSet("core %s does not exist; this device has the cores %s" % (absent[0], _written(online)))
        self.put_back(shell, setting, _written(wanted))

    def check(self, shell: Shell, setting: str, value: str) -> None:
        used = shell.pinned()
        if set(cpus(used)) != set(_wanted(shell, value)):
            raise CannotSet("taskset reported success, but the process still uses the cores %s" % (used or "unknown"))

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        require(shell.pin(state), "taskset")


def _wanted(shell: Shell, value: str) -> List[int]:
    return clusters(shell)[0][0] if value == "big" else cpus(value)


def clusters(shell: Shell) -> List[Tuple[List[int], int]]:
    """Return the cores grouped by maximum clock, fastest first: (cpus, MHz); 0 MHz if the clock is unknown."""
    by_clock: Dict[int, List[int]] = {}
    for cpu in _online(shell):
        top = mhz(shell.read("%s/cpu%d/cpufreq/cpuinfo_max_freq" % (CPU, cpu)))
        by_clock.setdefault(top, []).append(cpu)
    return [(cores, top) for top, cores in sorted(by_clock.items(), reverse=True)]


def _online(shell: Shell) -> List[int]:
    """Return the online cores; only core 0 if the list cannot be read."""
    return cpus(shell.read(CPU + "/online")) or [0]


def _written(cores: List[int]) -> str:
    return ",".join(map(str, cores))
