"""Describe the device, read through a Shell; values that cannot be read stay empty."""

import hashlib
import json
import platform
import re
import socket
from typing import Any, Dict, Iterable

import ofa_agent
from ofa_agent import conditions
from ofa_agent.conditions import android
from ofa_agent.device import cores, jetpack
from ofa_agent.device.shell import Shell
from ofa_agent.protocol import messages as wire

# The properties with the chip of a phone: Android 12 and later, Samsung, and the older name of the board.
CHIPS = ("ro.soc.model", "ro.hardware.chipname", "ro.board.platform")


def describe(shell: Shell, worker_ready: Any) -> Any:
    """Return the Description message; ``worker_ready``, the first message of the worker, lists the runtimes."""
    phone = android.properties(shell)
    description = wire.Description(
        protocol=wire.PROTOCOL,
        agent_version=ofa_agent.__version__,
        chip=_of_phone(phone, CHIPS) or chip(shell),
        machine=phone.get("ro.product.cpu.abi") or platform.machine(),
        host=phone.get("ro.serialno") or socket.gethostname(),
        os=_android(phone) or _os_name(shell),
        kernel=shell.run("uname", "-r").output or platform.release(),
        python=platform.python_version(),
        memory_bytes=_memory_bytes(shell),
        condition=conditions.read(shell),
    )
    for cpus, max_mhz in cores.clusters(shell):
        description.clusters.add(cpus=cpus, max_mhz=max_mhz)
    description.runtimes.update(worker_ready.runtimes)
    description.missing_runtimes.update(worker_ready.missing_runtimes)
    description.profiling_runtimes.extend(worker_ready.profiling_runtimes)
    description.software.update(jetpack.software(shell))
    if phone:
        maker, model = phone.get("ro.product.manufacturer", ""), phone.get("ro.product.model", "")
        description.software.update(
            {"model": ("%s %s" % (maker, model)).strip(), "build": phone.get("ro.build.id", "")}
        )
    description.fingerprint = fingerprint(description)
    return description


def fingerprint(description: Any) -> str:
    """Return a hash that is equal for devices that can share a table: same chip, cores, clocks, and GiB of memory."""
    facts = [
        description.chip,
        description.machine,
        [[list(cluster.cpus), cluster.max_mhz] for cluster in description.clusters],
        round(description.memory_bytes / 2.0**30),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def chip(shell: Shell) -> str:
    """Return the name of the board or of the processor."""
    board = shell.read("/proc/device-tree/model")
    if board:
        return board
    cpuinfo = shell.read("/proc/cpuinfo") or ""
    for field in ("model name", "Hardware", "Model", "Processor"):
        found = re.search(r"^%s\s*:\s*(.+)$" % field, cpuinfo, re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def _of_phone(phone: Dict[str, str], names: Iterable[str]) -> str:
    return next((phone[name] for name in names if phone.get(name)), "")


def _android(phone: Dict[str, str]) -> str:
    if not phone:
        return ""
    return "Android %s (SDK %s)" % (phone.get("ro.build.version.release", "?"), phone.get("ro.build.version.sdk", "?"))


def _memory_bytes(shell: Shell) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", shell.read("/proc/meminfo") or "", re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _os_name(shell: Shell) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', shell.read("/etc/os-release") or "", re.MULTILINE)
    return found.group(1) if found else platform.system()
