"""The conditions of the device that a table keeps: ``set``, ``connection``, ``not_set``, ``notes``, ``warnings``."""

import shlex
from collections.abc import Mapping
from typing import Any


def as_flags(conditions: Mapping[str, Any]) -> str:
    """Return the conditions that were set as flags (``--set affinity=big``); empty if there are none."""
    pairs = sorted(conditions.get("set", {}).items())
    return " ".join(f"--set {shlex.quote(f'{name}={value}')}" for name, value in pairs)


def join_conditions(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions of two runs: every reason, note and warning of both, and the settings of the later one."""
    joined: dict[str, Any] = {**earlier, **later}
    joined["not_set"] = {**earlier.get("not_set", {}), **later.get("not_set", {})}
    for name in ("notes", "warnings"):
        joined[name] = list(dict.fromkeys([*earlier.get(name, ()), *later.get(name, ())]))
    return joined
