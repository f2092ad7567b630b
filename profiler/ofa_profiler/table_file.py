"""The file of a table that a command builds or continues."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ofa_profiler.campaign.campaign import Outcome
from ofa_profiler.targets.target import Target
from ofa_tables.conditions import join_conditions
from ofa_tables.errors import TableUnreadable
from ofa_tables.identity import Identity
from ofa_tables.table import LatencyTable

Say = Callable[[str], None]


def default_path(device: Target, made: Identity) -> Path:
    settings = made.settings
    runtime = made.runtime.replace(":", "-")
    return Path(f"{device.file_stem}-{runtime}-{settings.precision}-t{settings.threads}-b{settings.batch}.lut")


def open_for_writing(
    path: Path, identity: Identity, description: dict[str, Any], fresh: bool, say: Say
) -> LatencyTable:
    """Open the table to continue, or create one. Raises TableMismatch if the existing one has another identity.

    A table of another identity without any latency is replaced: a run in which everything failed left it.
    """
    if fresh and path.exists():
        with contextlib.suppress(TableUnreadable):
            LatencyTable.open(path).close()  # merges the journal of a writer that was killed
        old = path.with_name(path.name + ".old")
        path.replace(old)
        say(f"the existing table is kept as {old}")
    if not path.exists():
        return LatencyTable.create(path, identity, description)
    table = LatencyTable.open(path)
    try:
        if table.identity == identity or any(measurement.ok for measurement in table.measurements):
            table.require_identity(identity)
            return table
    except BaseException:
        table.close()
        raise
    table.close()
    path.unlink()
    return LatencyTable.create(path, identity, description)


def record_conditions(table: LatencyTable, device: Target, outcome: Outcome) -> None:
    """Keep the conditions of a run in the table, beside those of earlier runs."""
    made_with = {"set": dict(device.conditions), "connection": dict(device.settings)}
    took_effect = {"not_set": outcome.not_set, "notes": outcome.notes, "warnings": outcome.warnings}
    table.keep_conditions(join_conditions(table.conditions, {**made_with, **took_effect}))
