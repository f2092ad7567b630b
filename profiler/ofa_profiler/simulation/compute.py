"""Compute the table of a simulated target."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ofa_agent.operators import Block
from ofa_nas.spaces import Space
from ofa_nas.spaces.recorded import record
from ofa_profiler.simulation.engine import Engine
from ofa_profiler.simulation.fit import Fit, fit
from ofa_profiler.table_file import default_path, open_for_writing
from ofa_profiler.targets.target import Target
from ofa_tables.errors import UsageError
from ofa_tables.identity import Identity, Settings
from ofa_tables.store.measurement import SIMULATED, Measurement, simulated
from ofa_tables.table import LatencyTable

VERSION = "roofline 1"  # of the model, as the runtime version of its tables


def compute_table(
    target: Target,
    space: Space,
    resolutions_px: Sequence[int],
    settings: Settings,
    out: str | Path | None,
    fresh: bool,
    measured: str | Path | None,
    say: Callable[[str], None],
) -> tuple[Path, dict[str, Any]]:
    """Compute the entries that the table lacks, and return its path and the JSON of ``ofa-profile``.

    ``measured`` is a CSV file to fit the engine to. Every entry has the flag ``simulated``.
    """
    started = time.perf_counter()
    engine, fitted = Engine.of(target.name, target.engine), None
    if measured is not None:
        engine, fitted = fit(engine, Path(measured), space, settings.batch, settings.precision)
        say(f"engine fitted to {measured}: {fitted}")
    identity = Identity(target.name, engine.fingerprint, SIMULATED, VERSION, settings)
    path = Path(out) if out is not None else default_path(target, identity)
    with open_for_writing(path, identity, _description(target, engine, fitted), fresh, say) as table:
        record(table, space)
        known = {measurement.key for measurement in table.measurements}
        blocks = {block.key: block for px in resolutions_px for block in space.blocks(px)}
        table.add([_entry(engine, blocks[key], settings) for key in blocks if key not in known])
        return path, _summary(table, space, set(blocks), known, time.perf_counter() - started, fitted)


def require_supported(
    target: Target, settings: Settings, runtime: str | None, blocks: str | None, others: Mapping[str, Any]
) -> None:
    """Raise UsageError for a flag that has no meaning without a device."""
    wrong = {
        "--runtime": runtime not in (None, SIMULATED),
        "--threads": settings.threads != 1,
        f"--precision (its engine computes in {target.precision})": settings.precision != target.precision,
        "--blocks": blocks is not None,
        **{f"--{name}": bool(value) for name, value in others.items()},
        "--set": bool(target.settings or target.conditions),
    }
    for flag in (flag for flag, given in wrong.items() if given):
        raise UsageError(f"{target.name} is simulated and does not support {flag}; remove the flag")


def _entry(engine: Engine, block: Block, settings: Settings) -> Measurement:
    latency_ms = engine.latency_ms(block, settings.batch, settings.precision)
    digest = hashlib.sha256(f"{engine.fingerprint} {settings} {block.key}".encode()).hexdigest()
    return simulated(f"{SIMULATED}:{digest[:32]}", block.key, latency_ms)


def _description(target: Target, engine: Engine, fitted: Fit | None) -> dict[str, Any]:
    described = {"chip": target.description, "engine": asdict(engine)}
    return described if fitted is None else {**described, "fit": asdict(fitted)}


def _summary(
    table: LatencyTable, space: Space, keys: set[str], known: set[str], seconds: float, fitted: Fit | None
) -> dict[str, Any]:
    reused = len(keys & known)
    return {
        "table": str(table.path),
        "target": table.identity.target,
        "space": space.name,
        "simulated": True,
        "entries": len(keys),
        "computed": len(keys) - reused,
        "measured": 0,
        "reused": reused,
        "failed": 0,
        "partly_measured": 0,
        "predicted": 0,
        "flagged": len(keys),
        "trials": 0,
        "seconds": round(seconds, 3),
        "timed_seconds": 0.0,
        "waited_seconds": 0.0,
        **({} if fitted is None else {"fit": asdict(fitted)}),
    }
