"""LatencyTable: all measurements of one target, runtime and settings, and the entries derived from them."""

import contextlib
import hashlib
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

from ofa_agent.operators import Block
from ofa_tables.conditions import as_flags
from ofa_tables.errors import TableMismatch, TableUnreadable
from ofa_tables.estimates.device_speed import at_table_speed
from ofa_tables.estimates.entry import Entry, derive_entry
from ofa_tables.estimates.estimates import Estimates, estimate
from ofa_tables.estimates.keys import kind_and_size
from ofa_tables.estimates.measured import Measured
from ofa_tables.estimates.prior import PriorTable
from ofa_tables.identity import ALONE, LAYERS, Identity, Settings
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
        self._blocks: dict[str, Block] = {}

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
        of_models = identity.blocks == LAYERS
        words = ["ofa-profile", "--target", identity.target]
        words += ["--model", "FILE"] if of_models else ["--space", space]
        words += ["--resolutions", ",".join(map(str, resolutions_px))] if resolutions_px else []
        words += ["--runtime", identity.runtime]
        words += ["--threads", str(settings.threads)] if settings.threads != 1 else []
        words += ["--batch", str(settings.batch)] if settings.batch != 1 else []
        words += ["--precision", settings.precision] if settings.precision != "fp32" else []
        words += ["--blocks", ALONE] if identity.blocks == ALONE and identity.runtime != SIMULATED else []
        words += [as_flags(self.conditions)] if as_flags(self.conditions) else []
        return " ".join(words if of_models else [*words, "--out", str(self.path)])

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
        self._forget("measurements", "simulated", "measured", "made_of", "estimates", "_entries", "_any_resolution")

    def _forget(self, *derived: str) -> None:
        for name in derived:
            self.__dict__.pop(name, None)

    @cached_property
    def measurements(self) -> list[Measurement]:
        """All measurements, without raw samples."""
        return list(self.store.measurements())

    @cached_property
    def measured(self) -> Measured:
        """The measured entries, without estimates."""
        return Measured(self.measurements, self.identity.runtime)

    @property
    def reference_ms(self) -> float | None:
        """The device speed of the table: the latency of the reference job in ms."""
        return self.measured.reference_ms

    @cached_property
    def simulated(self) -> bool:
        """Whether latencies were computed instead of measured: all of them, or some of an imported table."""
        return self.identity.runtime == SIMULATED or any(trial.was(SIMULATED) for trial in self.measurements)

    def rounds_of(self) -> dict[str, set[int]]:
        """Return the rounds with a successful trial, by key."""
        rounds: dict[str, set[int]] = defaultdict(set)
        for measurement in self.measurements:
            if measurement.ok:
                rounds[measurement.key].add(measurement.round)
        return rounds

    @cached_property
    def _entries(self) -> dict[tuple[str, int | None], Entry]:
        """The measured entries, combined with their estimates."""
        estimates = None if self.is_old else self.estimates
        if estimates is None:
            return self.measured.entries
        common = self.measured.common_error
        estimated = {}
        for place, entry in self.measured.entries.items():
            estimated[place] = estimates.entry(place[0], entry, common) or entry
        return estimated

    def entry(self, key: str, resolution_px: int | None = None) -> Entry | None:
        """Return the entry of a key, or None. A published entry for this resolution is preferred.

        An entry that was not measured is predicted if the table was asked for it (``estimate``).
        """
        return (
            self._entries.get((key, resolution_px))
            or self._entries.get((key, None))
            or self._any_resolution.get(key)
            or self._predicted(key)
        )

    # Estimates: see estimates/estimates.py.

    @cached_property
    def estimates(self) -> Estimates | None:
        """The estimates of all entries that were asked for; None if the table contains only what was measured.

        Those in the file are used if no trial came after them. Otherwise they are made again, if ``expect`` was called.
        """
        stored = self._stored_estimates
        if stored is not None and stored.of == self.made_of:
            return stored
        asked = None if stored is None else set(stored.keys)
        blocks = [key_block for key, key_block in self._blocks.items() if asked is None or key in asked]
        if (stored is None and not self.is_old) or not blocks:
            return None
        return estimate(blocks, self.measured.of_blocks, self.made_of)

    def estimate(self, blocks: Iterable[Block], priors: Sequence[PriorTable] = ()) -> Estimates | None:
        """Estimate the latencies of ``blocks``, measured or not, and store them. None if nothing was measured."""
        distinct = list({block.key: block for block in blocks}.values())
        made = estimate(distinct, self.measured.of_blocks, self.made_of, priors)
        if made is not None:
            self.keep_estimates(made)
        return made

    def keep_estimates(self, estimates: Estimates) -> None:
        self.store.put("estimates", estimates.to_json())
        self._forget("_stored_estimates", "estimates", "_entries", "_any_resolution", "is_old")

    @property
    def asked(self) -> set[str]:
        """The keys that the stored estimates were made for."""
        return set() if self._stored_estimates is None else set(self._stored_estimates.keys)

    def expect(self, blocks: Iterable[Block]) -> None:
        """Tell what the blocks behind the keys are, for estimates that are missing or older than the last trial."""
        new = {
            block.key: block
            for block in blocks
            if block.key not in self._blocks and (not self.is_old or self._is_between(block.key))
        }
        if new:
            self._blocks |= new
            self._forget("estimates", "_entries", "_any_resolution")

    @property
    def needs_blocks(self) -> bool:
        """Whether there are no estimates until ``expect`` is called."""
        stored = self._stored_estimates
        return self.is_old if stored is None else stored.of != self.made_of

    @cached_property
    def is_old(self) -> bool:
        """Whether an earlier version made the table and interpolated between the map sizes that it measured.

        Its measured entries stay as they are, and what it interpolated is predicted.
        """
        return bool(self.store.get("interpolates")) and self._stored_estimates is None

    @cached_property
    def _stored_estimates(self) -> Estimates | None:
        value = self.store.get("estimates")
        try:
            return None if value is None else Estimates.from_json(value)
        except ValueError as error:
            raise TableUnreadable(f"{self.path}: {error}; restore a copy, or measure again") from None

    @cached_property
    def made_of(self) -> str:
        """A hash of the trials of blocks and their latencies."""
        blocks = (trial for trial in self.measurements if not trial.key.startswith(NETWORK))
        trials = sorted(f"{trial.trial_id} {trial.median_ms}" for trial in blocks)
        return hashlib.sha256("\n".join(trials).encode()).hexdigest()[:16]

    def _predicted(self, key: str) -> Entry | None:
        if self.estimates is None or (self.is_old and not self._is_between(key)):
            return None
        entry = self.estimates.entry(key, None, self.measured.common_error)
        return entry.flagged(SIMULATED) if entry is not None and self.simulated else entry

    def _is_between(self, key: str) -> bool:
        """Whether blocks of this kind were measured with smaller and with larger maps."""
        place = kind_and_size(key)
        sizes = self.measured.sizes.get(place[0], set()) if place else set()
        return bool(place and sizes and min(sizes) <= place[1] <= max(sizes))

    def entries_at(self, reference_ms: float | None) -> dict[str, Entry]:
        """Return the entries of blocks by key, without intervals, at the device speed of another table."""
        trials: dict[str, list[Measurement]] = defaultdict(list)
        for trial in at_table_speed(self.measurements, reference_ms):
            if not trial.key.startswith(NETWORK):
                trials[trial.key].append(trial)
        return {key: derive_entry(key, self.measured.steady(of_key)) for key, of_key in trials.items()}

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
