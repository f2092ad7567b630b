"""Find problems of a table: implausible, copied, noisy or missing entries.

A check is a function from a table to findings, listed in CHECKS. An error is implausible for any device or makes
predictions wrong. A warning is something to be aware of.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ofa_tables.estimates.entry import FEWEST_TRIALS, Entry
from ofa_tables.estimates.keys import width_and_kernel
from ofa_tables.identity import IMPORTED
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.model.space import Space
from ofa_tables.table import LatencyTable
from ofa_tables.words import counted

ERROR = "error"
WARNING = "warning"

# The largest accepted deviation, relative to the latency. Published tables contain such deviations.
NOISY = 1 / 3
# How much faster a block with a larger kernel or more channels may be, in addition to three standard errors. On real
# devices, padded and unpadded channels differ by some percent.
NOT_MONOTONE = 0.15
# The largest accepted ratio between a latency and its fit: a plane over log kernel and log expand of its kind.
OUT_OF_LINE = 1.6
FEWEST_SIMILAR = 6
SECONDS_A_DAY = 86400.0

Kind = tuple[str, int | None]  # place in the network, resolution of a published entry


@dataclass(frozen=True)
class Finding:
    """One problem. ``key`` is empty if it concerns the whole table. A larger ``size`` is worse."""

    check: str
    severity: str
    key: str
    text: str
    advice: str
    resolution_px: int | None = None
    size: float = 0.0


@dataclass(frozen=True)
class Inspected:
    """The input of the checks. ``others`` are tables that must not share rows with this one."""

    table: LatencyTable
    space: Space | None
    others: Sequence[LatencyTable] = ()
    max_age_days: float = 365.0
    now: float = field(default_factory=time.time)

    @property
    def entries(self) -> list[Entry]:
        return [entry for entry in self.table.entries if not entry.failure]

    @property
    def imported(self) -> bool:
        return self.table.identity.runtime == IMPORTED

    @property
    def again(self) -> str:
        """The advice for an implausible latency."""
        if self.imported:
            return "ask its publisher, or measure the table with ofa-profile"
        if self.table.simulated:
            return "correct the engine of the target, then compute the table again with ofa-profile --fresh"
        return f"measure it again with {self._command} --effort thorough"

    @property
    def _command(self) -> str:
        resolutions_px = [self.resolution_px] if self.resolution_px else []
        return self.table.profile_command(self.space.name if self.space else "SPACE", *resolutions_px)

    @cached_property
    def resolution_px(self) -> int | None:
        """The only resolution at which the table is complete, if there is exactly one."""
        complete = LatencyModel(self.table, self.space).resolutions_px if self.space else []
        return complete[0] if len(complete) == 1 else None


def check(inspected: Inspected) -> list[Finding]:
    """Run all checks and return the findings, errors first."""
    findings = [finding for look in CHECKS for finding in look(inspected)]
    return sorted(findings, key=lambda finding: finding.severity != ERROR)


def no_latency(inspected: Inspected) -> Iterator[Finding]:
    for entry in inspected.entries:
        if not entry.latency_ms > 0 or not np.isfinite(entry.latency_ms):
            name = "zero" if entry.latency_ms == 0 else "negative" if entry.latency_ms < 0 else "not a number"
            text = f"{entry.latency_ms:g} ms is not a latency"
            yield _of(entry, name, ERROR, text, inspected.again)


def failed(inspected: Inspected) -> Iterator[Finding]:
    with_latency = {entry.key for entry in inspected.entries}
    for entry in inspected.table.entries:
        if entry.failure and entry.key not in with_latency:
            yield _of(entry, "failed", ERROR, entry.failure, "fix what failed, then run ofa-profile again")


def duplicated(inspected: Inspected) -> Iterator[Finding]:
    """Find different keys with identical statistics; real measurements never agree in every digit.

    Values with few digits, such as a tool may print, do agree.
    """
    seen: dict[tuple[float, float], Entry] = {}
    for entry in inspected.entries:
        first = seen.setdefault(_statistics(entry), entry)
        if first.key != entry.key and entry.std_ms > 0 and float(f"{entry.mean_ms:.4g}") != entry.mean_ms:
            yield _of(entry, "duplicated", ERROR, f"has the same statistics as {first.key}", inspected.again)


def copied(inspected: Inspected) -> Iterator[Finding]:
    for other in inspected.others:
        theirs = {(entry.key, *_statistics(entry)) for entry in other.entries if not entry.failure}
        for entry in inspected.entries:
            if entry.std_ms > 0 and (entry.key, *_statistics(entry)) in theirs:
                text = f"has the same statistics as in {other.path}, measured on {other.identity.target}"
                yield _of(entry, "copied", ERROR, text, inspected.again)


def not_monotone(inspected: Inspected) -> Iterator[Finding]:
    """Find blocks that do more work than a block of the same kind but are faster."""
    for similar in _kinds(inspected.entries).values():
        for sizes, entry in similar.items():
            for axis, name in enumerate(("expand", "kernel")):
                smaller = [
                    (other_sizes, other)
                    for other_sizes, other in similar.items()
                    if other_sizes[axis] < sizes[axis] and other_sizes[1 - axis] == sizes[1 - axis]
                ]
                if not smaller:
                    continue
                of_smaller, slowest = max(smaller, key=lambda pair: pair[1].latency_ms)
                allowed = NOT_MONOTONE + 3 * np.hypot(entry.standard_error or 0, slowest.standard_error or 0)
                if entry.latency_ms < slowest.latency_ms * (1 - allowed):
                    text = (
                        f"{entry.latency_ms:.4g} ms with {name} {sizes[axis]}, "
                        f"but {slowest.latency_ms:.4g} ms with {of_smaller[axis]}"
                    )
                    size = slowest.latency_ms / entry.latency_ms
                    yield _of(entry, "not monotone", ERROR, text, inspected.again, size)
                    break


def out_of_line(inspected: Inspected) -> Iterator[Finding]:
    """Find latencies far from a robust fit to the other blocks of their kind."""
    for similar in _kinds(inspected.entries).values():
        if len(similar) < FEWEST_SIMILAR:
            continue
        rows = np.array([[1.0, *np.log(sizes)] for sizes in similar])
        logs = np.log([entry.latency_ms for entry in similar.values()])
        for index, entry in enumerate(similar.values()):
            others = np.arange(len(logs)) != index
            line = _robust(rows[others], logs[others])
            off = float(np.exp(logs[index] - rows[index] @ line))
            if max(off, 1 / off) > OUT_OF_LINE and not entry.simulated:
                text = f"takes {entry.latency_ms:.4g} ms, {off:.2g} × the fit to similar blocks"
                yield _of(entry, "out of line", ERROR, text, inspected.again, max(off, 1 / off))


def noisy(inspected: Inspected) -> Iterator[Finding]:
    for entry in inspected.entries:
        if not entry.latency_ms > 0:
            continue
        deviation, what = entry.spread, "its trials spread"
        if entry.trials == 1:
            deviation, what = entry.std_ms / entry.latency_ms, "its samples deviate"
        if deviation > NOISY:
            text = f"{what} by {deviation:.0%} of its latency, over {NOISY:.0%}"
            yield _of(entry, "noisy", ERROR, text, inspected.again, deviation)


def few_samples(inspected: Inspected) -> Iterator[Finding]:
    if inspected.imported or inspected.table.simulated:
        return
    for entry in inspected.entries:
        if entry.trials < FEWEST_TRIALS:
            trials = counted(entry.trials, "undisturbed trial")
            text = f"{trials}, {FEWEST_TRIALS} are needed to estimate a spread"
            yield _of(entry, "few samples", WARNING, text, inspected.again, -entry.trials)


def old(inspected: Inspected) -> Iterator[Finding]:
    last: dict[str, float] = defaultdict(float)
    for measurement in inspected.table.measurements:
        if measurement.ok and not inspected.imported:
            last[measurement.key] = max(last[measurement.key], measurement.received_at)
    for entry in inspected.entries:
        days = (inspected.now - last.get(entry.key, inspected.now)) / SECONDS_A_DAY
        if days > inspected.max_age_days and not entry.simulated:
            text = f"was measured {days:.0f} days ago; the software of the device may have changed"
            yield _of(entry, "old", ERROR, text, inspected.again, days)


def missing(inspected: Inspected) -> Iterator[Finding]:
    """Find missing keys at every resolution that the table covers: it has a key that only this resolution has."""
    if inspected.space is None:
        return
    at = Counter(key for px in inspected.space.resolutions_px for key in set(inspected.space.keys(px)))
    for px in inspected.space.resolutions_px:
        there = {key: inspected.table.entry(key, px) is not None for key in inspected.space.keys(px)}
        if not any(there[key] for key in there if at[key] == 1):
            continue
        for key, known in there.items():
            if not known:
                advice = (
                    f"import a file that has it, or leave {px} px out"
                    if inspected.imported
                    else inspected.table.profile_command(inspected.space.name, px)
                )
                yield Finding("missing", ERROR, key, f"{inspected.space.name} has it at {px} px", advice, px)


def simulated(inspected: Inspected) -> Iterator[Finding]:
    """Find tables with latencies that were computed instead of measured."""
    if inspected.table.simulated:
        entries = inspected.table.entries
        count = sum(entry.simulated for entry in entries)
        text = f"{count:,} of {counted(len(entries), 'entry', 'entries')} are computed, not measured"
        yield Finding("simulated", WARNING, "", text, "do not use them as measurements; their errors are unknown")


def no_provenance(inspected: Inspected) -> Iterator[Finding]:
    """Find tables without the origin of their measurements: device and runtime."""
    identity, device = inspected.table.identity, inspected.table.device
    unknown = [
        name
        for name, known in (
            ("the device's fingerprint", identity.fingerprint not in ("", IMPORTED)),
            ("the runtime", not inspected.imported and identity.runtime),
            ("the runtime's version", not inspected.imported and identity.runtime_version),
            ("the description of the device", device),
        )
        if not known
    ]
    if unknown:
        text = f"does not contain {', '.join(unknown)}"
        if inspected.imported:
            yield Finding("no provenance", WARNING, "", text, "published files have none; ask the publisher")
        else:
            yield Finding("no provenance", ERROR, "", text, inspected.again)


CHECKS: tuple[Callable[[Inspected], Iterator[Finding]], ...] = (
    no_latency,
    failed,
    missing,
    duplicated,
    copied,
    not_monotone,
    out_of_line,
    noisy,
    few_samples,
    old,
    simulated,
    no_provenance,
)


def _of(entry: Entry, check: str, severity: str, text: str, advice: str, size: float = 0.0) -> Finding:
    return Finding(check, severity, entry.key, text, advice, entry.resolution_px, float(size))


def _statistics(entry: Entry) -> tuple[float, float]:
    return entry.mean_ms, entry.std_ms


def _kinds(entries: Sequence[Entry]) -> dict[Kind, dict[tuple[int, int], Entry]]:
    """Group entries with a latency by kind, then by (expand, kernel), the only difference within a kind."""
    kinds: dict[Kind, dict[tuple[int, int], Entry]] = defaultdict(dict)
    for entry in entries:
        sized = width_and_kernel(entry.key)
        if sized and entry.latency_ms > 0:
            kind, width, kernel = sized
            kinds[kind, entry.resolution_px][width, kernel] = entry
    return kinds


def _robust(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Fit by least absolute deviations (iteratively reweighted least squares), robust against wrong entries."""
    weights = np.ones(len(values))
    for _ in range(30):
        line = np.linalg.lstsq(rows * weights[:, None], values * weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(rows @ line - values), 1e-3))
    return line
