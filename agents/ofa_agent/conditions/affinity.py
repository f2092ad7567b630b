"""The cores of the worker: ``affinity=big`` for the fastest cores, or a list such as ``affinity=0,3-5``."""

from typing import Any, List, Optional, Tuple

from ofa_agent.conditions.knob import CannotSet, Knob, require
from ofa_agent.device.cores import clusters, cpus, offline, online, written
from ofa_agent.device.shell import Shell


class Affinity(Knob):
    """The cores of the processes that the Shell starts; with LocalShell also of this process and its children."""

    settings = ("affinity",)

    def read(self, shell: Shell, condition: Any) -> None:
        condition.affinity = shell.pinned() or ""

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        return shell.pinned()

    def resolve(self, shell: Shell, setting: str, value: str, threads: int) -> Tuple[str, str]:
        """``big`` is the fastest cluster, and the next ones until there is a core for every thread."""
        if value != "big":
            return value, ""
        cores: List[int] = []
        parts: List[str] = []
        for cluster, mhz in clusters(shell):
            cores += cluster
            parts.append("%d × %s" % (len(cluster), "%d MHz" % mhz if mhz else "unknown clock"))
            if len(cores) >= threads:
                break
        absent = offline(shell)
        note = "; the cores %s are offline" % written(absent) if absent else ""
        return written(cores), "uses the cores %s (%s)%s" % (written(cores), ", ".join(parts), note)

    def set(self, shell: Shell, setting: str, value: str) -> None:
        wanted = cpus(value)
        if not wanted:
            raise CannotSet("affinity=%s is not a list of cores; use big, or a list such as 0,2-3" % value)
        absent = sorted(set(wanted) - set(online(shell)))
        if absent:
            why = "is offline" if absent[0] in offline(shell) else "does not exist"
            raise CannotSet("core %s %s; this device has the cores %s" % (absent[0], why, written(online(shell))))
        self.put_back(shell, setting, written(wanted))

    def check(self, shell: Shell, setting: str, value: str) -> None:
        used = shell.pinned()
        if set(cpus(used)) != set(cpus(value)):
            raise CannotSet("taskset reported success, but the process still uses the cores %s" % (used or "unknown"))

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        require(shell.pin(state), "taskset")
