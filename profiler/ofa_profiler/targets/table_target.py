"""Find the device on which a table was measured."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ofa_profiler.targets.target import Target, choose_runtime, find_target
from ofa_tables.conditions import as_flags
from ofa_tables.errors import TableMismatch
from ofa_tables.identity import IMPORTED, Identity
from ofa_tables.table import LatencyTable


def find_again(table: LatencyTable, target: str | None, changed: Mapping[str, str]) -> Target:
    """Return the target of the table, or the named one, with the settings that the table was measured with.

    Raises TableMismatch if the table was imported or simulated.
    """
    if table.simulated:
        raise TableMismatch(
            f"{table.path} is simulated: its latencies were computed, and there is no device to measure on; measure a "
            "table with ofa-profile"
        )
    if table.identity.runtime == IMPORTED:
        raise TableMismatch(
            f"{table.path} was imported and has no device to measure on; measure a table with ofa-profile"
        )
    made_with = table.conditions
    same = target in (None, table.identity.target)
    settings = {**(made_with.get("connection", {}) if same else {}), **made_with.get("set", {})}
    settings.update(changed)
    return find_target(target or table.identity.target, settings, table.identity.runtime)


def require_same(table: LatencyTable, target: Target, description: dict[str, Any]) -> None:
    """Raise TableMismatch if the connected device, or its conditions, are not those of the table."""
    table.require_identity(identity_now(target, table.identity, description))
    require_conditions(table, target)


def require_conditions(table: LatencyTable, target: Target) -> None:
    """Raise TableMismatch if the conditions to set are not those with which the table was measured."""
    same = dict(table.conditions.get("set", {})) == dict(target.conditions)
    if same or not table.conditions or not table.measurements:
        return
    raise TableMismatch(
        f"{table.path} was measured with {as_flags(table.conditions) or 'no --set'}, this command uses "
        f"{as_flags({'set': target.conditions}) or 'no --set'}; use the same --set, or another table (ofa-profile: "
        "--out FILE, or --fresh to start over)"
    )


def identity_now(target: Target, made: Identity, description: dict[str, Any]) -> Identity:
    """Return the identity that a new table would have, measured now with the settings of ``made``."""
    runtime = choose_runtime(target, made.runtime, description)
    return replace(
        made,
        target=target.name,
        fingerprint=description["fingerprint"],
        runtime_version=description["runtimes"][runtime],
    )
