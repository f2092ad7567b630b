"""The device that a table was made on, to be measured once more."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ofa_profiler.targets.target import Target, choose_runtime, find_target
from ofa_tables.errors import TableMismatch
from ofa_tables.table import IMPORTED, Identity, LatencyTable


def find_again(table: LatencyTable, target: str | None, changed: Mapping[str, str]) -> Target:
    """The table's Target, or another one of this name, with the settings that it was reached and measured with.

    Raises TableMismatch where the table was imported.
    """
    if table.identity.runtime == IMPORTED:
        raise TableMismatch(
            f"{table.path} was imported, so no device is known to hold it against; measure one with ofa-profile"
        )
    made_with = table.store.get("conditions") or {}
    same = target in (None, table.identity.target)
    settings = {**(made_with.get("connection", {}) if same else {}), **made_with.get("set", {})}
    settings.update(changed)
    return find_target(target or table.identity.target, settings, table.identity.runtime)


def require_same(table: LatencyTable, target: Target, description: dict[str, Any]) -> None:
    """Raises TableMismatch where the device that answered is not the one that the table was made on."""
    table.require_identity(identity_now(target, table.identity, description))


def identity_now(target: Target, made: Identity, description: dict[str, Any]) -> Identity:
    """What a table would be of, if it were made as this one was, but now."""
    runtime = choose_runtime(target, made.runtime, description)
    return replace(
        made,
        target=target.name,
        fingerprint=description["fingerprint"],
        runtime_version=description["runtimes"][runtime],
    )
