"""The cores of a device: clusters, cores that are offline, and the cores and CPU time that a process may use.

https://docs.kernel.org/admin-guide/cputopology.html and https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max).
"""

import re
from typing import Dict, List, Optional, Tuple

from ofa_agent.device.shell import Shell

CPU = "/sys/devices/system/cpu"
CGROUPS = "/sys/fs/cgroup"
# Preferred cores of x86 processors have a higher maximum clock than the others. Without frequency domains, a core
# belongs to the cluster of the next faster core if its clock is less than this fraction lower.
SAME_CLUSTER = 0.06


def cpus(text: Optional[str]) -> List[int]:
    """Parse a list of cores, such as ``0,2-5``; empty if it is not valid."""
    found: List[int] = []
    for part in (text or "").split(","):
        ends = re.match(r"^(\d{1,4})(?:-(\d{1,4}))?$", part.strip())
        if not ends:
            return []
        found.extend(range(int(ends.group(1)), int(ends.group(2) or ends.group(1)) + 1))
    return found


def written(cores: List[int]) -> str:
    """Write a list of cores with ranges, such as ``0,2-5``."""
    ends: List[List[int]] = []
    for core in sorted(set(cores)):
        if ends and core == ends[-1][1] + 1:
            ends[-1][1] = core
        else:
            ends.append([core, core])
    return ",".join("%d" % low if low == high else "%d-%d" % (low, high) for low, high in ends)


def online(shell: Shell) -> List[int]:
    """Return the online cores; only core 0 if the list cannot be read."""
    return cpus(shell.read(CPU + "/online")) or [0]


def offline(shell: Shell) -> List[int]:
    """Return the cores that exist but are offline."""
    return sorted(set(cpus(shell.read(CPU + "/present"))) - set(online(shell)))


def has_fp16(shell: Shell) -> Optional[bool]:
    """Return whether the processor computes in fp16; None if unknown."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", shell.read("/proc/cpuinfo") or "", re.MULTILINE)
    return bool({"asimdhp", "avx512_fp16"}.intersection(found.group(1).split())) if found else None


def isolated(shell: Shell) -> List[int]:
    """Return the cores over which the kernel does not distribute threads (boot option ``isolcpus``)."""
    return cpus(shell.read(CPU + "/isolated"))


def clusters(shell: Shell) -> List[Tuple[List[int], int]]:
    """Return the online cores as clusters, fastest first: (cores, MHz); 0 MHz if the clock is unknown.

    A cluster is a set of frequency domains with the same maximum clock. Where every core has its own domain (x86),
    cores with nearly the same maximum clock are one cluster.
    """
    clocks = {core: _khz(shell, core) for core in online(shell)}
    shared = any(len(_domain(shell, core)) > 1 for core in clocks)
    found: List[Tuple[List[int], int]] = []
    lowest = 0
    for core in sorted(clocks, key=lambda core: (-clocks[core], core)):
        least = lowest if shared else lowest * (1 - SAME_CLUSTER)
        if found and clocks[core] >= least and (clocks[core] > 0 or lowest == 0):
            found[-1][0].append(core)
        else:
            found.append(([core], clocks[core]))
        lowest = clocks[core]
    return [(sorted(cores), khz // 1000) for cores, khz in found]


def _domain(shell: Shell, core: int) -> List[int]:
    """Return the cores that share their clock with this core; empty if unknown."""
    text = shell.read("%s/cpu%d/cpufreq/related_cpus" % (CPU, core))
    return cpus((text or "").replace(" ", ","))


def allowed(shell: Shell) -> List[int]:
    """Return the online cores that a new process may use; empty if unknown.

    A phone switches cores off while it is idle, so all its cores count.
    """
    up = cpus(shell.read(CPU + "/online" if shell.here else CPU + "/present"))
    may = cpus(shell.pinned()) or up
    return [core for core in may if core in up] if up else may


def hardware_threads(shell: Shell, cores: List[int]) -> List[List[int]]:
    """Return the groups of these cores that are hardware threads of one physical core."""
    groups: Dict[str, List[int]] = {}
    for core in cores:
        known = shell.read("%s/cpu%d/topology/thread_siblings_list" % (CPU, core))
        groups.setdefault(known or "core %d" % core, []).append(core)
    return [group for group in groups.values() if len(group) > 1]


def quota(shell: Shell) -> float:
    """Return the limit of the CPU time of this process in cores; 0 without a limit. The lowest limit of all parents."""
    limits: List[float] = []
    for line in (shell.read("/proc/self/cgroup") or "").splitlines() if shell.here else ():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            limits += [_limit(shell.read(folder + "/cpu.max")) for folder in _parents(CGROUPS, path)]
            limits += [_limit(shell.read(folder + "/cpu.max")) for folder in _parents(CGROUPS + "/unified", path)]
        elif "cpu" in controllers.split(","):
            for root in ("cpu", "cpu,cpuacct", "cpuacct,cpu"):
                for folder in _parents("%s/%s" % (CGROUPS, root), path):
                    microseconds = [shell.read("%s/cpu.cfs_%s_us" % (folder, name)) for name in ("quota", "period")]
                    limits.append(_limit(" ".join(text or "" for text in microseconds)))
    return min([limit for limit in limits if limit > 0] or [0.0])


def _parents(root: str, path: str) -> List[str]:
    """Return the folder of a control group and of all its parents. In a container, the root is the own group."""
    folders, parts = [root], [part for part in path.split("/") if part not in ("", ".", "..")]
    for part in parts:
        folders.append(folders[-1] + "/" + part)
    return folders


def _limit(text: Optional[str]) -> float:
    """Parse ``QUOTA PERIOD`` in µs; 0 without a limit."""
    found = re.match(r"^(\d{1,15})\s+(\d{1,15})$", text or "")
    return int(found.group(1)) / int(found.group(2)) if found and int(found.group(2)) else 0.0


def _khz(shell: Shell, core: int) -> int:
    text = (shell.read("%s/cpu%d/cpufreq/cpuinfo_max_freq" % (CPU, core)) or "").strip()
    return int(text) if re.match(r"^\d{1,9}$", text) else 0
