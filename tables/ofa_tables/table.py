"""LatencyTable: all measurements of one target, runtime and settings, and the entries derived from them."""

import contextlib
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_tables.conditions import as_flags
from ofa_tables.errors import TableMismatch, TableUnreadable
from ofa_tables.estimates.device_speed import SpeedErrors, at_table_speed, interrupted, off_speed, usual_reference_ms
from ofa_tables.estimates.entry import FEWEST_TRIALS, Entry, derive_entry, with_standard_errors
from ofa_tables.estimates.interpolation import Interpolation
from ofa_tables.identity import ALONE, IMPORTED, Identity, Settings
from ofa_tables.store.measurement import NETWORK, SIMULATED, Measurement
from ofa_tables.store.sqlite import Store
from ofa_tables.words import counted

if TYPE_CHECKING:
    import pandas as pd

# Roles of whole networks.
TEST = "test"
CALIBRATION = "calibration"
PROFILED = "profiled"  # blocks are timed in it
REFERENCE = "reference"  # a published network, for comparison


class LatencyTable:
    """An open table: its identity, conditions, measurements, and the entries derived from them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        value = store.get("identity")
        if value is None:
            raise TableUnreadable(f"{store.path} does not contain its identity; restore a copy, or measure again")
        self.identity = Identity(**{**value, "settings": Settings(**value["settings"])})
        self.conditions: dict[str, Any] = store.get("conditions") or {}

    @classmethod
    @contextlib.contextmanager
    def building(cls, path: Path, identity: Identity, device: dict[str, Any]) -> Iterator["LatencyTable"]:
        """Create a table and fill it inside the block. ``path`` appears only if the block succeeds.

        Raises TableError if ``path`` exists, or if the folder is missing, not writable or full.
        """
        with Store.building(path) as store:
            store.put("id", uuid.uuid4().hex)
            store.put("created_at", time.time())
            store.put("device", device)
            store.put("identity", asdict(identity))
            yield cls(store)

    @classmethod
    def create(cls, path: Path, identity: Identity, device: dict[str, Any]) -> "LatencyTable":
        """Create an empty table and open it for writing. Raises as ``building`` does."""
        with cls.building(path, identity, device):
            pass
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "LatencyTable":
        """Open for writing, by one process at a time. Raises TableUnreadable."""
        return cls._of(Store.open(path))

    @classmethod
    def read(cls, path: Path) -> "LatencyTable":
        """Open for reading; the file does not change. Raises TableUnreadable."""
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
        """The device as the agent describes it in ``ofa-agent info --json``; empty for imported tables."""
        return dict(self.store.get("device") or {})

    @property
    def command(self) -> str:
        """The command template that the table was measured with, as JSON; empty for other runtimes."""
        return str(self.device.get("commands", {}).get(self.identity.runtime, ""))

    def require_identity(self, identity: Identity) -> None:
        """Check that new measurements would be comparable. Raises TableMismatch."""
        differences = self.identity.differences(identity)
        if differences:
            raise TableMismatch(
                f"{self.path} was made under different conditions ({'; '.join(differences)}); "
                "choose another file with --out, or start over with --fresh"
            )

    def keep_conditions(self, conditions: dict[str, Any]) -> None:
        self.store.put("conditions", conditions)
        self.conditions = conditions

    def profile_command(self, space: str, *resolutions_px: int) -> str:
        """Return the ofa-profile command that continues this table."""
        identity, settings = self.identity, self.identity.settings
        words = ["ofa-profile", "--target", identity.target, "--space", space]
        words += ["--resolutions", ",".join(map(str, resolutions_px))] if resolutions_px else []
        words += ["--runtime", identity.runtime]
        words += ["--threads", str(settings.threads)] if settings.threads != 1 else []
        words += ["--batch", str(settings.batch)] if settings.batch != 1 else []
        words += ["--precision", settings.precision] if settings.precision != "fp32" else []
        words += ["--blocks", ALONE] if identity.blocks == ALONE and identity.runtime != SIMULATED else []
        words += [as_flags(self.conditions)] if as_flags(self.conditions) else []
        return " ".join([*words, "--out", str(self.path)])

    # Display in consoles and notebooks.

    def __repr__(self) -> str:
        made = self.identity
        return (
            f"LatencyTable({str(self.path)!r}: {made.target}, {made.runtime} {made.runtime_version}, {made.settings}, "
            f"{counted(len(self.entries), 'entry', 'entries')}{', simulated' if self.simulated else ''})"
        )

    def _repr_html_(self) -> str:
        html: str = self.to_pandas().head(10).to_html(index=False)
        return f"<p>{escape(repr(self))}</p>{html}"

    def to_pandas(self) -> "pd.DataFrame":
        """Return a frame with one row per entry.

        Columns: key, resolution, latencies in ms, spread (a fraction), trials, samples, flags, failure.
        """
        from ofa_tables.formats.frame import entries_frame  # pandas takes half a second to import

        return entries_frame(self, None)

    # Measurements and entries.

    def add(self, measurements: Sequence[Measurement]) -> None:
        """Commit measurements; those with a known trial_id are dropped."""
        self.store.add(list(measurements))
        for derived in (
            "measurements",
            "simulated",
            "reference_ms",
            "trials",
            "_at_table_speed",
            "_far",
            "_interrupted",
            "_entries",
            "_any_resolution",
            "_interpolation",
        ):
            self.__dict__.pop(derived, None)

    @cached_property
    def measurements(self) -> list[Measurement]:
        """All measurements, without raw samples."""
        return list(self.store.measurements())

    @cached_property
    def simulated(self) -> bool:
        """Whether latencies were computed instead of measured: all of them, or some of an imported table."""
        return self.identity.runtime == SIMULATED or any(trial.was(SIMULATED) for trial in self.measurements)

    @cached_property
    def reference_ms(self) -> float | None:
        """The device speed of the table: the latency of the reference job in ms."""
        return usual_reference_ms(self.measurements)

    @cached_property
    def trials(self) -> dict[tuple[str, int | None], list[Measurement]]:
        """Trials by key and resolution, corrected to the device speed of the table."""
        trials: dict[tuple[str, int | None], list[Measurement]] = defaultdict(list)
        for measurement in self._at_table_speed:
            trials[measurement.key, measurement.resolution_px].append(measurement)
        return dict(trials)

    @cached_property
    def _at_table_speed(self) -> list[Measurement]:
        return at_table_speed(self.measurements, self.reference_ms)

    @cached_property
    def _far(self) -> set[str]:
        """The ids of trials with a device speed far from that of the table."""
        both = zip(self.measurements, self._at_table_speed, strict=True)
        return {trial.trial_id for trial, scaled in both if off_speed(trial.median_ms, scaled.median_ms)}

    @cached_property
    def _interrupted(self) -> set[str]:
        """The ids of trials that other processes interrupted more than usual.

        Profiled networks have their own usual value, so that networks measured later do not change the entries.
        """
        with_blocks = {trial.taken_with for trial in self.measurements if not trial.key.startswith(NETWORK)}
        means_ms: tuple[dict[str, float], dict[str, float]] = ({}, {})
        for trial in self.measurements:
            if trial.taken_with == trial.trial_id and (mean_ms := trial.reference_mean_ms):
                means_ms[trial.trial_id in with_blocks][trial.trial_id] = mean_ms
        found = set()
        for of_kind in filter(None, means_ms):
            usual_ms = float(np.median(list(of_kind.values())))
            found |= {trial_id for trial_id, mean_ms in of_kind.items() if interrupted(mean_ms, usual_ms)}
        return found

    def rounds_of(self) -> dict[str, set[int]]:
        """Return the rounds with a successful trial, by key."""
        rounds: dict[str, set[int]] = defaultdict(set)
        for measurement in self.measurements:
            if measurement.ok:
                rounds[measurement.key].add(measurement.round)
        return rounds

    def steady(self, trials: Sequence[Measurement]) -> list[Measurement]:
        """Return the undisturbed trials, or all trials if none of the undisturbed ones succeeded.

        A trial is disturbed if the device speed changed, if it was far from that of the table, or if other processes
        interrupted the trial.
        """
        kept = [trial for trial in trials if not self._disturbed(trial)]
        return kept if any(trial.ok for trial in kept) else list(trials)

    def _disturbed(self, trial: Measurement) -> bool:
        return trial.disturbed or trial.trial_id in self._far or trial.taken_with in self._interrupted

    @cached_property
    def _entries(self) -> dict[tuple[str, int | None], Entry]:
        steady = {place: self.steady(trials) for place, trials in self.trials.items()}
        entries = {place: derive_entry(place[0], trials) for place, trials in steady.items()}
        for place, trials in steady.items():
            if all(self._disturbed(trial) for trial in trials):
                entries[place] = entries[place].flagged("disturbed")
            if 0 < entries[place].trials < FEWEST_TRIALS and self.identity.runtime not in (IMPORTED, SIMULATED):
                entries[place] = entries[place].flagged("few-samples")
        profiled_networks = {trial.trial_id: trial.key for trial in self.measurements if trial.key.startswith(NETWORK)}
        return with_standard_errors(
            entries, steady, profiled_networks, SpeedErrors(self.measurements, self._at_table_speed)
        )

    def entry(self, key: str, resolution_px: int | None = None) -> Entry | None:
        """Return the entry of a key, or None. A published entry for this resolution is preferred.

        An interpolating table also returns entries between measured sizes.
        """
        return (
            self._entries.get((key, resolution_px))
            or self._entries.get((key, None))
            or self._any_resolution.get(key)
            or (self._interpolation(key) if self.interpolates else None)
        )

    @cached_property
    def interpolates(self) -> bool:
        """Whether ofa-profile measured only some sizes, so that other entries are interpolated."""
        return bool(self.store.get("interpolates"))

    def interpolate(self) -> None:
        """Interpolate from now on."""
        self.store.put("interpolates", True)
        self.interpolates = True

    @cached_property
    def _interpolation(self) -> Interpolation:
        return Interpolation(entry for entry in self.entries if not entry.failure)

    def entries_at(self, reference_ms: float | None) -> dict[str, Entry]:
        """Return the entries of blocks by key, without intervals, at the device speed of another table."""
        trials: dict[str, list[Measurement]] = defaultdict(list)
        for trial in at_table_speed(self.measurements, reference_ms):
            if not trial.key.startswith(NETWORK):
                trials[trial.key].append(trial)
        return {key: derive_entry(key, self.steady(of_key)) for key, of_key in trials.items()}

    @property
    def network_keys(self) -> set[str]:
        return {key for key, *_ in self.store.networks()}

    @property
    def entries(self) -> list[Entry]:
        """The entries of all blocks, in the order of their first measurement; whole networks are not entries.

        A published table may have one entry per key and resolution.
        """
        return [entry for (key, _), entry in self._entries.items() if not key.startswith(NETWORK)]

    @cached_property
    def _any_resolution(self) -> dict[str, Entry]:
        return {key: entry for (key, _), entry in self._entries.items()}

    def figures_ms(self, keys: Iterable[str], resolution_px: int | None = None) -> np.ndarray:
        """Return (keys,) latencies in ms; NaN if the table has no entry."""
        entries = (self.entry(key, resolution_px) for key in keys)
        return np.array([np.nan if entry is None else entry.latency_ms for entry in entries])

    def published_resolutions_px(self) -> list[int]:
        """Return the resolutions of imported files; empty for a measured table."""
        return sorted({px for _, px in self._entries if px is not None})
