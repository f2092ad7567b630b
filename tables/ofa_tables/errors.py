"""The tree of errors. Every message says what happened, to what, and what to do.

OfaError                    the work failed; commands exit 1
├── UsageError              the call was wrong; commands exit 2
│   └── UnknownName         unknown target, space, runtime, resolution …; suggests similar names
├── TableError              a table file
│   ├── TableUnreadable     truncated, not a table, written by a newer version, or in use
│   ├── TableMismatch       made with another device, version or settings
│   └── EntriesMissing      the table lacks entries of a space
├── FileError               another file: YAML, CSV, JSON, an accuracy model
└── DeviceError             a target and its agent
    ├── Unreachable         no connection to the device; it may come back
    ├── DeviceHeld          another agent or another host uses the device
    ├── ProtocolMismatch    host and agent have different protocol versions
    └── AgentLost           the agent stopped answering; results received so far are kept
"""

import difflib
from collections.abc import Iterable


class OfaError(Exception):
    exit_code = 1


class UsageError(OfaError):
    exit_code = 2


class UnknownName(UsageError):
    def __init__(self, kind: str, name: str, known: Iterable[str], otherwise: str = "") -> None:
        names = sorted(known)
        name = name if len(name) <= 100 else name[:97] + "…"  # it may come from a file
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"available: {', '.join(names)}"
        super().__init__(f"no {kind} named {name!r}; {hint}" + (f"; {otherwise}" if otherwise else ""))


class TableError(OfaError):
    pass


class TableUnreadable(TableError):
    pass


class TableMismatch(TableError):
    pass


class EntriesMissing(TableError):
    pass


class FileError(OfaError):
    pass


class DeviceError(OfaError):
    pass


class Unreachable(DeviceError):
    pass


class DeviceHeld(DeviceError):
    pass


class ProtocolMismatch(DeviceError):
    pass


class AgentLost(DeviceError):
    pass
