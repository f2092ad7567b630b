"""The memory of this machine: what is free, what a model takes, and whether processes were ended for lack of it."""

import contextlib
import ctypes
import os
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ofa_agent.inputs import ModelInput
from ofa_agent.operators import PRECISIONS, Add, Block, Conv, Linear, SqueezeExcite, Take, product

CGROUP = "/sys/fs/cgroup"
ELSEWHERE = ("cuda", "tensorrt", "gpu", "npu", "command:")  # in the names of runtimes that may use other memory


def refusal(block: Block, settings: Any) -> str:
    """Return why a block does not fit into the free memory; empty if it may fit, or if nobody knows."""
    if any(part in settings.runtime for part in ELSEWHERE):
        return ""
    free, needed = free_bytes(), needed_bytes(block, settings.batch, settings.precision)
    if free is None or needed <= free:
        return ""
    mib = 1 << 20
    text = "%s needs at least %d MiB of memory at batch %d; the device has %d MiB free"
    return text % (block.key, needed // mib, settings.batch, free // mib)


def refusal_of_file(key: str, path: str, inputs: Sequence[ModelInput], settings: Any) -> str:
    """Return why a model file and its inputs do not fit into the free memory; empty if they may fit."""
    if any(part in settings.runtime for part in ELSEWHERE):
        return ""
    free = free_bytes()
    needed = sum(np.dtype(each.kind).itemsize * product(each.shape) for each in inputs)
    needed += os.path.getsize(path) if path else 0
    if free is None or needed <= free:
        return ""
    mib = 1 << 20
    text = "%s and its inputs need at least %d MiB of memory; the device has %d MiB free"
    return text % (key, needed // mib, free // mib)


class Peak:
    """The most memory that this process used since this was created, above what it used then (Linux)."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # else a model could use memory that an earlier one has left
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # resets the peak
        except OSError:
            pass
        self._before = _counter("/proc/self/status", "VmRSS:")
        self._peak_before = _counter("/proc/self/status", "VmHWM:")

    def bytes(self) -> int:
        """Return the memory in bytes; 0 if unknown, or below an earlier peak that could not be reset."""
        peak = _counter("/proc/self/status", "VmHWM:")
        if peak is None or self._before is None or self._peak_before is None or peak <= self._peak_before:
            return 0
        return (peak - self._before) * 1024


def needed_bytes(block: Block, batch: int, precision: str) -> int:
    """Return the least memory that a block needs: its weights, and the values that live at the same time.

    A value lives until the last operator that reads it. A convolution with more than one channel per group and kernels
    larger than 1×1 may need a workspace, which depends on the runtime and is not counted.
    """
    sizes = [product(shape) for shape in block.shapes]
    names = [0]  # of the values: 0 is the input, i the output of operator i; Take gives a value another name
    ends: Dict[int, int] = {}  # by value: the last operator that reads it
    for number, operator in enumerate(block.operators, 1):
        read = [names[operator.value]] if isinstance(operator, (Add, Take)) else []
        read += [] if isinstance(operator, Take) else [names[-1]]
        ends.update((value, number) for value in read)
        names.append(read[0] if isinstance(operator, Take) else number)
    ends[names[-1]] = len(names)
    ended = [0] * (len(names) + 1)  # by operator: the sizes of the values that nothing reads later
    for value, number in ends.items():
        ended[number] += sizes[value]
    live = peak = sizes[0]
    for number, operator in enumerate(block.operators, 1):
        output = sizes[number] if number in ends else 0
        in_place = not isinstance(operator, (Conv, Linear, SqueezeExcite))  # a runtime may overwrite the input
        peak = max(peak, live if in_place and ended[number] >= output else live + output)
        live += output - ended[number]
    width = PRECISIONS.get(precision, 1)
    return width * (block.parameters + batch * peak)


def oom_kills() -> int:
    """Return how many processes the kernel has ended so far because memory ran out; 0 if it does not say."""
    paths = ["/proc/vmstat"] + [CGROUP + at + "/memory.events" for at in _own()]
    paths += [CGROUP + "/memory" + at + "/memory.oom_control" for at in _own("memory")]
    counts = [_counter(path, "oom_kill") for path in paths]
    return sum(count for count in counts if count is not None)


def free_bytes() -> Optional[int]:
    """Return the memory that this process can still allocate: of the machine and of its cgroups; None if unknown."""
    found = [available for available in [_available()] if available is not None]
    places = [(CGROUP + folder, ("max", "current"), "inactive_file") for folder in _own()]
    in_version_1 = ("limit_in_bytes", "usage_in_bytes")
    places += [(CGROUP + "/memory" + folder, in_version_1, "total_inactive_file") for folder in _own("memory")]
    for folder, names, unused in places:
        limit, used = (_number("%s/memory.%s" % (folder, name)) for name in names)
        cached = _counter(folder + "/memory.stat", unused) or 0
        if limit is not None and used is not None:
            found.append(max(0, limit - used + cached))
    return min(found) if found else None


def _available() -> Optional[int]:
    kib = _counter("/proc/meminfo", "MemAvailable:")
    return None if kib is None else kib * 1024


def _own(controller: str = "") -> List[str]:
    """Return the folders of the cgroups of this process, the innermost first: of a controller of version 1, or of
    version 2.
    """
    lines = [line.split(":", 2) for line in _lines("/proc/self/cgroup")]
    paths = [line[2].strip().rstrip("/") for line in lines if len(line) == 3 and controller in line[1].split(",")]
    folders = []
    for path in paths[:1]:
        parts = path.split("/")
        folders = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return folders


def _counter(path: str, name: str) -> Optional[int]:
    for key, value in _pairs(path):
        if key == name:
            return value
    return None


def _pairs(path: str) -> Iterator[Tuple[str, int]]:
    for line in _lines(path):
        words = line.split()
        if len(words) >= 2 and words[1].isdigit():
            yield words[0], int(words[1])


def _number(path: str) -> Optional[int]:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: str) -> List[str]:
    try:
        with open(path) as file:
            return file.readlines()
    except OSError:
        return []
