"""Whether this device can run jobs with given settings as asked: what is refused, and what is only a warning."""

from typing import Any, List

from ofa_agent.device.cores import allowed, hardware_threads, has_fp16, isolated, offline, quota, written
from ofa_agent.device.shell import Shell


def refusal(shell: Shell, threads: int) -> str:
    """Return why this number of threads cannot run side by side; empty if each can have a core, or if unknown."""
    cores = allowed(shell)
    if not cores or threads <= len(cores):
        return ""
    absent = offline(shell)
    return "%d threads would share %s: the process may use only %s%s; use --threads %d, or allow more cores" % (
        threads,
        "%d cores" % len(cores) if len(cores) > 1 else "one core",
        "core " + written(cores) if len(cores) == 1 else "the cores " + written(cores),
        " (offline: %s)" % written(absent) if absent else "",
        len(cores),
    )


def warnings(shell: Shell, settings: Any) -> List[str]:
    """Return why latencies of jobs with these settings may not be what they seem."""
    threads = settings.threads
    found = [_of_quota(shell, threads), _of_isolation(shell, threads), _of_hardware_threads(shell, threads)]
    return [text for text in [*found, _of_precision(shell, settings)] if text]


def _of_quota(shell: Shell, threads: int) -> str:
    limit = quota(shell)
    if not 0 < limit < threads:
        return ""
    who = "%d threads" % threads if threads > 1 else "1 thread"
    return (
        "%s can use only the CPU time of %.3g cores, because a control group (cgroup) limits it; latencies include the "
        "pauses" % (who, limit)
    )


def _of_isolation(shell: Shell, threads: int) -> str:
    cores = allowed(shell)
    alone = sorted(set(isolated(shell)).intersection(cores))
    if threads < 2 or not alone or len(cores) - len(alone) >= threads:
        return ""
    return (
        "the kernel does not distribute %d threads over the isolated cores %s (isolcpus); they may share one core"
        % (threads, written(alone))
    )


def _of_hardware_threads(shell: Shell, threads: int) -> str:
    cores = allowed(shell)
    groups = hardware_threads(shell, cores)
    physical = len(cores) - sum(len(group) - 1 for group in groups)
    if not physical < threads <= len(cores):
        return ""
    return "%d threads share %s (hardware threads of one core: %s)" % (
        threads,
        "%d physical cores" % physical if physical > 1 else "one physical core",
        ", ".join("+".join(map(str, group)) for group in groups),
    )


def _of_precision(shell: Shell, settings: Any) -> str:
    if settings.precision == "fp16" and settings.runtime == "tflite" and has_fp16(shell) is False:
        return "this processor does not compute in fp16: TFLite stores the weights in fp16 and computes in fp32"
    return ""
