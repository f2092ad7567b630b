"""LatencyTable: every Measurement of one Target × Runtime × Settings, and the figure derived for each entry."""

import contextlib
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ofa_tables.errors import TableMismatch, TableUnreadable
from ofa_tables.measurement import Measurement
from ofa_tables.store import Store

IMPORTED = "imported"

NETWORK = "network:"  # keys of whole networks begin so

# What whole networks were measured for.
TEST = "test"
CALIBRATION = "calibration"
CARRIER = "carrier"  # to time Blocks inside

# How Blocks were timed.
ALONE = "alone"
IN_NETWORKS = "in-networks"

# Entries whose 95 % interval reaches further than this to either side are flagged.
UNSTABLE_HALF_WIDTH = 0.10

# Up to here other Jobs slow down with the reference, near enough; beyond, their own shares of what disturbs show.
OFF_PACE = 0.4

# What is usual in a table counts as much as so many Visits of the entry's own.
USUAL_WEIGHT = 4
# A median of normally distributed values is so much less certain than their mean.
MEDIAN_TO_MEAN = 1.2533


@dataclass(frozen=True)
class Settings:
    """How a Job is run: what must be equal for figures to be comparable."""

    precision: str = "fp32"
    threads: int = 1
    batch: int = 1

    def __str__(self) -> str:
        return f"{self.precision}, {self.threads} thread{'s' if self.threads > 1 else ''}, batch {self.batch}"


@dataclass(frozen=True)
class Identity:
    """What a table is of. ``fingerprint`` is the device's own; "imported" where a published file gave the figures.

    ``blocks`` says how they were timed: each alone, or inside whole networks.
    """

    target: str
    fingerprint: str
    runtime: str
    runtime_version: str
    settings: Settings = field(default_factory=Settings)
    blocks: str = ALONE

    def differences(self, other: "Identity", mine_is: str = "there", other_is: str = "here") -> list[str]:
        """In words, such as "threads 1 there, 4 here"; none where the two are equal."""
        mine, theirs = asdict(self), asdict(other)
        mine.update(mine.pop("settings"))
        theirs.update(theirs.pop("settings"))
        return [
            f"{name.replace('_', ' ')} {mine[name]} {mine_is}, {theirs[name]} {other_is}"
            for name in mine
            if mine[name] != theirs[name]
        ]


@dataclass(frozen=True)
class Entry:
    """One key's figure and what it rests on.

    ``latency_ms`` is the median of the Visits' medians, each at the table's pace; ``spread`` their interquartile range,
    relative to it;
    ``mean_ms`` and ``std_ms`` are of all samples; ``failure`` is the last failed Visit's text where none succeeded.
    ``resolution_px`` is set only where a published file gave the figure for one resolution. ``standard_error`` is that
    of ``latency_ms``, relative to it, from how the Visits lie apart; None where no Visits tell of it.
    """

    key: str
    latency_ms: float
    mean_ms: float
    std_ms: float
    spread: float
    visits: int
    samples: int
    flags: tuple[str, ...] = ()
    failure: str = ""
    resolution_px: int | None = None
    standard_error: float | None = None
    degrees_of_freedom: float = 0.0

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of ``latency_ms``, relative to it; None where nothing tells of it."""
        if self.standard_error is None:
            return None
        return students_t(self.degrees_of_freedom) * self.standard_error


class LatencyTable:
    def __init__(self, store: Store) -> None:
        self.store = store
        value = store.get("identity")
        if value is None:
            raise TableUnreadable(f"{store.path} does not say what it is of; restore a copy, or measure anew")
        self.identity = Identity(**{**value, "settings": Settings(**value["settings"])})

    @classmethod
    @contextlib.contextmanager
    def building(cls, path: Path, identity: Identity, device: dict[str, Any]) -> Iterator["LatencyTable"]:
        """A new table, to be filled inside the block: it appears at ``path`` whole where the block ends well, or not at
        all. Raises TableError where the path is taken, or the folder absent, unwritable or full."""
        with Store.building(path) as store:
            store.put("id", uuid.uuid4().hex)
            store.put("created_at", time.time())
            store.put("device", device)
            store.put("identity", asdict(identity))
            yield cls(store)

    @classmethod
    def create(cls, path: Path, identity: Identity, device: dict[str, Any]) -> "LatencyTable":
        """A new table, open for writing. Raises as ``building`` does."""
        with cls.building(path, identity, device):
            pass
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "LatencyTable":
        """For writing, by one process at a time. Raises TableUnreadable."""
        return cls._of(Store.open(path))

    @classmethod
    def read(cls, path: Path) -> "LatencyTable":
        """For reading alone: no byte of the file changes. Raises TableUnreadable."""
        return cls._of(Store.read(path))

    @classmethod
    def _of(cls, store: Store) -> "LatencyTable":
        try:
            return cls(store)
        except TableUnreadable:
            store.close()
            raise

    def close(self) -> None:
        self.store.close()

    def __enter__(self) -> "LatencyTable":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        return self.store.path

    @cached_property
    def id(self) -> str:
        return str(self.store.get("id"))

    @cached_property
    def device(self) -> dict[str, Any]:
        """What the agent said of the device, as ``ofa-agent info --json`` prints it; empty for imported tables."""
        return dict(self.store.get("device") or {})

    def require_identity(self, identity: Identity) -> None:
        """Raises TableMismatch where going on would mix what cannot be compared."""
        differences = self.identity.differences(identity)
        if differences:
            raise TableMismatch(
                f"{self.path} was made under other conditions ({'; '.join(differences)}); "
                "choose another file with --out, or begin anew with --fresh"
            )

    def profile_command(self, space: str, resolution_px: int | None = None) -> str:
        """The ofa-profile command that goes on with this table."""
        identity, settings = self.identity, self.identity.settings
        words = ["ofa-profile", "--target", identity.target, "--space", space]
        words += ["--resolutions", str(resolution_px)] if resolution_px else []
        words += ["--threads", str(settings.threads)] if settings.threads != 1 else []
        words += ["--batch", str(settings.batch)] if settings.batch != 1 else []
        words += ["--precision", settings.precision] if settings.precision != "fp32" else []
        words += ["--blocks", ALONE] if identity.blocks == ALONE else []
        return " ".join([*words, "--out", str(self.path)])

    # Measurements and entries.

    def add(self, measurements: Sequence[Measurement]) -> None:
        """Commits them; a repeat of a visit_id is dropped."""
        self.store.add(list(measurements))
        for derived in ("measurements", "reference_ms", "visits", "_entries", "_any_resolution"):
            self.__dict__.pop(derived, None)

    @cached_property
    def measurements(self) -> list[Measurement]:
        """Without raw samples."""
        return list(self.store.measurements())

    @cached_property
    def reference_ms(self) -> float | None:
        """The table's pace: how long the reference Job took while its Blocks were measured, in the median."""
        readings = [
            measurement.reference_ms
            for measurement in self.measurements
            if measurement.reference_ms is not None and not measurement.key.startswith(NETWORK)
        ]
        return float(np.median(readings)) if readings else None

    @cached_property
    def visits(self) -> dict[tuple[str, int | None], list[Measurement]]:
        """By key and resolution, at the table's pace.

        Visits during which the device changed its pace, or was far from the table's, only where there are no others.
        """
        visits: dict[tuple[str, int | None], list[Measurement]] = defaultdict(list)
        for measurement in self.measurements:
            visits[measurement.key, measurement.resolution_px].append(measurement.at_pace(self.reference_ms))
        return {place: _undisturbed(group, self.reference_ms) for place, group in visits.items()}

    def visits_at_pace(self, key: str) -> list[Measurement]:
        """Every Visit of a key at the table's pace, disturbed ones too."""
        return [visit.at_pace(self.reference_ms) for visit in self.measurements if visit.key == key]

    @cached_property
    def _entries(self) -> dict[tuple[str, int | None], Entry]:
        entries = {place: derive_entry(place[0], group) for place, group in self.visits.items()}
        return with_standard_errors(entries, self.visits)

    def entry(self, key: str, resolution_px: int | None = None) -> Entry | None:
        """The entry, or None. Where a published file gave a figure of its own for this resolution, that one."""
        return (
            self._entries.get((key, resolution_px)) or self._entries.get((key, None)) or self._any_resolution.get(key)
        )

    @property
    def network_keys(self) -> set[str]:
        return {key for key, *_ in self.store.networks()}

    @property
    def entries(self) -> list[Entry]:
        """Every Block's entry (whole networks are not entries), in the order of first measurement; one for each
        resolution that a published file gave a figure for."""
        return [entry for (key, _), entry in self._entries.items() if not key.startswith(NETWORK)]

    @cached_property
    def _any_resolution(self) -> dict[str, Entry]:
        return {key: entry for (key, _), entry in self._entries.items()}

    def figures_ms(self, keys: Iterable[str], resolution_px: int | None = None) -> np.ndarray:
        """(keys,) latencies in ms; NaN where the table has none."""
        entries = (self.entry(key, resolution_px) for key in keys)
        return np.array([np.nan if entry is None else entry.latency_ms for entry in entries])

    def published_resolutions_px(self) -> list[int]:
        """The resolutions that imported files gave figures for; none in a table that was measured."""
        return sorted({px for _, px in self._entries if px is not None})


def derive_entry(key: str, visits: Sequence[Measurement]) -> Entry:
    """The figure of one key (at one resolution) from its Visits; NaN where none succeeded."""
    good = [visit for visit in visits if visit.ok and visit.median_ms is not None]
    px = visits[0].resolution_px
    if not good:
        nan = float("nan")
        failure = f"{visits[-1].status}: {visits[-1].error}"
        return Entry(key, nan, nan, nan, 0.0, 0, 0, ("failed",), failure, px)
    medians = np.array([visit.median_ms for visit in good], dtype=float)
    latency = float(np.median(medians))
    low, high = np.quantile(medians, (0.25, 0.75))
    spread = float((high - low) / latency) if latency > 0 else 0.0
    counts = np.array([visit.count for visit in good], dtype=float)
    means = np.array([visit.mean_ms for visit in good], dtype=float)
    stds = np.array([visit.std_ms for visit in good], dtype=float)
    weights = counts / counts.sum() if counts.sum() else np.full(len(good), 1 / len(good))
    mean = float(weights @ means)
    std = float(np.sqrt(max(0.0, weights @ (stds**2 + (means - mean) ** 2))))
    return Entry(key, latency, mean, std, spread, len(good), int(counts.sum()), _flags(good), "", px)


def with_standard_errors(
    entries: dict[tuple[str, int | None], Entry], visits: Mapping[tuple[str, int | None], Sequence[Measurement]]
) -> dict[tuple[str, int | None], Entry]:
    """The entries with their standard errors: what each one's few Visits say of their spread, drawn towards what is
    usual in the table (Smyth 2004, "Linear models and empirical Bayes", with a fixed weight for the usual)."""
    logs = {place: _log_medians(group) for place, group in visits.items()}
    variances = {place: float(np.var(of_key, ddof=1)) for place, of_key in logs.items() if len(of_key) > 1}
    if not variances:
        return entries
    # Over its chi-square's median (Wilson-Hilferty), so that a few wild entries do not make all of them uncertain.
    usual = float(
        np.median([variance / (1 - 2 / (9 * (len(logs[place]) - 1))) ** 3 for place, variance in variances.items()])
    )
    errors = {}
    for place, variance in variances.items():
        visits_less_one = len(logs[place]) - 1
        freedom = visits_less_one + USUAL_WEIGHT
        pooled = (visits_less_one * variance + USUAL_WEIGHT * usual) / freedom
        error = MEDIAN_TO_MEAN * np.sqrt(pooled / len(logs[place]))
        entry = replace(entries[place], standard_error=float(error), degrees_of_freedom=float(freedom))
        unstable = entry.half_width is not None and entry.half_width > UNSTABLE_HALF_WIDTH
        errors[place] = replace(entry, flags=("unstable", *entry.flags)) if unstable else entry
    return {**entries, **errors}


def students_t(degrees_of_freedom: float) -> float:
    """The 97.5 % quantile of Student's t, to 1 % from 4 degrees of freedom on (Cornish-Fisher expansion)."""
    z, nu = 1.959964, degrees_of_freedom
    return z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)


def _log_medians(visits: Sequence[Measurement]) -> np.ndarray:
    return np.log([visit.median_ms for visit in visits if visit.ok and visit.median_ms and visit.median_ms > 0])


def off_pace(reference_ms: float | None, usual_ms: float | None) -> bool:
    """Whether the reference Job took so much more or less than it usually does that the device was another one."""
    if reference_ms is None or usual_ms is None:
        return False
    return max(reference_ms, usual_ms) > (1 + OFF_PACE) * min(reference_ms, usual_ms)


def _undisturbed(visits: list[Measurement], usual_ms: float | None) -> list[Measurement]:
    kept = [visit for visit in visits if not visit.disturbed and not off_pace(visit.reference_ms, usual_ms)]
    return kept if any(visit.ok for visit in kept) else visits


def _flags(visits: Sequence[Measurement]) -> tuple[str, ...]:
    flags = []
    if all(visit.disturbed for visit in visits):
        flags.append("disturbed")
    if not all(visit.warm for visit in visits):
        flags.append("cold")
    return tuple(flags)
