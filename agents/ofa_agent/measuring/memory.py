"""The memory of this machine: what is free, and whether the kernel has ended processes for lack of it."""

from typing import Iterator, List, Optional, Tuple

CGROUP = "/sys/fs/cgroup"


def oom_kills() -> int:
    """Return how many processes the kernel has ended so far because memory ran out; 0 if it does not say."""
    counts = [
        _counter(path, "oom_kill") for path in ["/proc/vmstat"] + [CGROUP + at + "/memory.events" for at in _own()]
    ]
    return sum(count for count in counts if count is not None)


def free_bytes() -> Optional[int]:
    """Return the memory that this process can still allocate: of the machine and of its cgroups; None if unknown."""
    found = [available for available in [_available()] if available is not None]
    for folder in _own():
        limit, used = (_number(CGROUP + folder + "/memory." + name) for name in ("max", "current"))
        cached = _counter(CGROUP + folder + "/memory.stat", "inactive_file") or 0
        if limit is not None and used is not None:
            found.append(max(0, limit - used + cached))
    return min(found) if found else None


def _available() -> Optional[int]:
    kib = _counter("/proc/meminfo", "MemAvailable:")
    return None if kib is None else kib * 1024


def _own() -> List[str]:
    """Return the folders of the cgroups (version 2) of this process, the innermost first."""
    lines = [line.split(":", 2) for line in _lines("/proc/self/cgroup")]
    paths = [line[2].strip().rstrip("/") for line in lines if len(line) == 3 and line[0] == "0"]
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
