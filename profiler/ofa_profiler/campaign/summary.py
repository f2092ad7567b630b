"""What a campaign did to a table, as counts: the JSON of ``ofa-profile``."""

from collections.abc import Sequence
from typing import Any

from ofa_nas.spaces import Space
from ofa_profiler.campaign.campaign import Outcome
from ofa_tables.estimates.estimates import PARTLY, PREDICTED
from ofa_tables.table import LatencyTable


def timed_in_all(table: LatencyTable, rounds: int) -> set[str]:
    """The keys that were timed in every round."""
    return {key for key, numbers in table.rounds_of().items() if numbers.issuperset(range(rounds))}


def summarise(
    table: LatencyTable,
    space: Space,
    resolutions: Sequence[int],
    outcome: Outcome,
    finished: set[str],
    seconds: float,
) -> dict[str, Any]:
    """Count the entries of a space at some resolutions: the JSON of ``ofa-profile``. ``finished`` were so before."""
    keys = {key for px in resolutions for key in space.keys(px)}
    entries = [entry for key in keys if (entry := table.entry(key)) is not None and not entry.failure]
    reused = sum(entry.key in finished or (entry.trials > 0 and not outcome.trials[entry.key]) for entry in entries)
    predicted = sum(PREDICTED in entry.flags for entry in entries)
    return {
        "table": str(table.path),
        "target": table.identity.target,
        "space": space.name,
        "simulated": False,
        "entries": len(keys),
        "measured": len(entries) - reused - predicted,
        "reused": reused,
        "failed": len(keys) - len(entries),
        "partly_measured": sum(PARTLY in entry.flags for entry in entries),
        "predicted": predicted,
        "flagged": sum(bool(set(entry.flags) - {PARTLY, PREDICTED}) for entry in entries),
        "trials": sum(outcome.trials[key] for key in keys),
        "seconds": round(seconds, 3),
        "timed_seconds": round(outcome.timed_seconds, 3),
        "waited_seconds": round(outcome.waited_seconds, 3),
        **({"devices": list_devices(outcome)} if outcome.factors or outcome.set_aside else {}),
    }


def list_devices(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Describe each device that shared the work: trials, latency relative to the median device, reason if excluded."""
    return {
        name: {
            "trials": outcome.shares[name],
            "factor": outcome.factors.get(name),
            "set_aside": outcome.set_aside.get(name),
        }
        for name in sorted({*outcome.shares, *outcome.factors, *outcome.set_aside})
    }
