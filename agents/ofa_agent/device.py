"""What this device is, read through a Shell: what cannot be read is left empty, never guessed."""

import hashlib
import json
import math
import platform
import re
import socket
from typing import Any, Dict, List, Optional, Tuple

import ofa_agent
from ofa_agent import wire
from ofa_agent.shell import LocalShell

CPU = "/sys/devices/system/cpu"


def describe(shell: LocalShell, worker_ready: Any) -> Any:
    """The Description that goes over the wire; the worker's first message tells of the runtimes."""
    description = wire.Description(
        protocol=wire.PROTOCOL,
        agent_version=ofa_agent.__version__,
        chip=chip(shell),
        machine=platform.machine(),
        host=socket.gethostname(),
        os=_os_name(shell),
        kernel=platform.release(),
        python=platform.python_version(),
        memory_bytes=_memory_bytes(shell),
        condition=condition(shell),
    )
    for cpus, max_mhz in clusters(shell):
        description.clusters.add(cpus=cpus, max_mhz=max_mhz)
    description.runtimes.update(worker_ready.runtimes)
    description.missing_runtimes.update(worker_ready.missing_runtimes)
    description.profiling_runtimes.extend(worker_ready.profiling_runtimes)
    description.fingerprint = fingerprint(description)
    return description


def fingerprint(description: Any) -> str:
    """Equal for devices whose figures may stand in one table: same chip, cores, clocks and memory (in GiB)."""
    facts = [
        description.chip,
        description.machine,
        [[list(cluster.cpus), cluster.max_mhz] for cluster in description.clusters],
        round(description.memory_bytes / 2.0**30),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def condition(shell: LocalShell) -> Any:
    """Governor, clock, temperatures and load at this moment."""
    now = wire.Condition(governor=shell.read(CPU + "/cpu0/cpufreq/scaling_governor") or "")
    now.clock_mhz = _clock_mhz(shell)
    now.load = _number((shell.read("/proc/loadavg") or "").split(" ")[0]) or 0.0
    for zone in shell.list("/sys/class/thermal/thermal_zone*"):
        millidegrees = _number(shell.read(zone + "/temp"))
        if millidegrees is not None:
            name = shell.read(zone + "/type") or zone.rsplit("/", 1)[-1]
            now.temperatures_c[name] = millidegrees / 1000.0
    return now


def chip(shell: LocalShell) -> str:
    """The board's or the processor's name."""
    board = shell.read("/proc/device-tree/model")
    if board:
        return board
    cpuinfo = shell.read("/proc/cpuinfo") or ""
    for field in ("model name", "Hardware", "Model", "Processor"):
        found = re.search(r"^%s\s*:\s*(.+)$" % field, cpuinfo, re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def clusters(shell: LocalShell) -> List[Tuple[List[int], int]]:
    """Cores of equal top clock together, fastest first: (cpus, MHz), 0 MHz where the kernel does not say."""
    by_clock: Dict[int, List[int]] = {}
    for cpu in _online(shell):
        mhz = _mhz(shell.read("%s/cpu%d/cpufreq/cpuinfo_max_freq" % (CPU, cpu)))
        by_clock.setdefault(mhz, []).append(cpu)
    return [(cpus, mhz) for mhz, cpus in sorted(by_clock.items(), reverse=True)]


def _online(shell: LocalShell) -> List[int]:
    """The kernel's list, such as ``0,2-5``; the first core alone where there is none that can be read."""
    cpus: List[int] = []
    for part in (shell.read(CPU + "/online") or "0").split(","):
        found = re.match(r"^(\d{1,4})(?:-(\d{1,4}))?$", part)
        if not found:
            return [0]
        cpus.extend(range(int(found.group(1)), int(found.group(2) or found.group(1)) + 1))
    return cpus or [0]


def _clock_mhz(shell: LocalShell) -> int:
    mhz = _mhz(shell.read(CPU + "/cpu0/cpufreq/scaling_cur_freq"))
    if mhz:
        return mhz
    found = re.search(r"^cpu MHz\s*:\s*([\d.]+)$", shell.read("/proc/cpuinfo") or "", re.MULTILINE)
    return round(float(found.group(1))) if found else 0


def _memory_bytes(shell: LocalShell) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", shell.read("/proc/meminfo") or "", re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _os_name(shell: LocalShell) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', shell.read("/etc/os-release") or "", re.MULTILINE)
    return found.group(1) if found else platform.system()


def _mhz(khz: Optional[str]) -> int:
    """0 where the kernel does not say, or says nonsense."""
    number = _number(khz) or 0.0
    return int(number // 1000) if 0.0 <= number < 1e9 else 0


def _number(text: Optional[str]) -> Optional[float]:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None
