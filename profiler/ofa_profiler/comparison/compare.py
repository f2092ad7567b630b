"""Predicted against measured: draw networks, measure them in two passes, fit the calibration."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ofa_nas.references import FAMILY, Reference, measured_references
from ofa_nas.spaces import ABSENT, Architecture, Space, parse_architecture
from ofa_profiler.campaign.campaign import Campaign, Outcome, Progress
from ofa_profiler.campaign.effort import NETWORK_BUDGET
from ofa_profiler.campaign.jobs import FileJob, Job, lower_jobs
from ofa_profiler.comparison.statistics import ComparedNetwork, Comparison, noise
from ofa_profiler.connections import Connection
from ofa_profiler.models.measuring import add_file, file_job
from ofa_profiler.models.model_file import ModelFile
from ofa_tables.errors import UsageError
from ofa_tables.estimates.estimates import PREDICTED
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import LatencyModel, write_calibration
from ofa_tables.model.passes import PASSES, network_passes_ms
from ofa_tables.table import CALIBRATION, REFERENCE, TEST, LatencyTable

# If the passes differ by more than wanted, there are more rounds: many short trials beat few long ones on a
# shared device.
ROUNDS = 10
MORE_ROUNDS = 10
MOST_ROUNDS = 60
# The same of a command template: a trial takes seconds, but contains many runs.
COMMAND_ROUNDS = (6, 6, 18)
WANTED_NOISE = 0.025
CANDIDATES = 20_000


@dataclass(frozen=True)
class Drawn:
    """The networks of a comparison by role; no network has two roles. ``retired`` counts the tested networks that
    calibrated before. ``names`` maps keys to the names in the file. ``files`` are model files, measured as references;
    ``accuracies`` are those that the user states, by name of the file.
    """

    tested: list[Architecture]
    calibration_networks: list[Architecture]
    references: Sequence[Reference] = ()
    retired: int = 0
    names: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[ModelFile] = ()
    accuracies: Mapping[str, float] = field(default_factory=dict)


def draw(
    model: LatencyModel, space: Space, tested: int | Sequence[Architecture], calibration_networks: int, seed: int
) -> Drawn:
    """Draw networks evenly over the range of predicted latency; the same seed draws the same networks.

    A calibration network is never drawn for a test, and a tested network never calibrates, whatever the seed. A
    profiled network, which provides latencies of the table, is neither.
    """
    roles = {key: role for key, _, _, role in model.table.store.networks()}
    chosen = {}
    if not isinstance(tested, int):
        chosen = {space.network(architecture).key: architecture for architecture in tested}
    retired = sum(roles.get(key) == CALIBRATION for key in chosen)
    if not isinstance(tested, int) and not calibration_networks:  # nothing is drawn, so no resolution must be complete
        return Drawn(list(chosen.values()), [], retired=retired)
    candidates = _Candidates(model, space, np.random.default_rng(seed))
    if isinstance(tested, int):
        chosen = candidates.take(tested, barred={key for key, role in roles.items() if role != TEST})
    barred = set(chosen) | {key for key, role in roles.items() if role != CALIBRATION}
    return Drawn(list(chosen.values()), list(candidates.take(calibration_networks, barred).values()), retired=retired)


class _Candidates:
    """Networks to draw from by predicted latency, each at most once."""

    def __init__(self, model: LatencyModel, space: Space, rng: np.random.Generator) -> None:
        self._space = space
        self._rng = rng
        self._resolutions = model.require()
        drawn = space.canonical(space.sample_spread(CANDIDATES, rng, self._resolutions))
        self._population = drawn[np.unique(drawn.genes, axis=1, return_index=True)[1]]
        self._predicted = model.raw(self._population)
        self._free = np.ones(len(self._population), dtype=bool)

    def take(self, count: int, barred: set[str]) -> dict[str, Architecture]:
        """Draw ``count`` networks by key: the nearest to one random point in each of ``count`` equal intervals."""
        low, high = self._predicted.min(), self._predicted.max()
        points = low + (high - low) * (np.arange(count) + self._rng.uniform(size=count)) / max(count, 1)
        return dict(self._nearest(float(point), barred) for point in points)

    def _nearest(self, wanted_ms: float, barred: set[str]) -> tuple[str, Architecture]:
        while self._free.any():
            index = int(np.argmin(np.where(self._free, np.abs(self._predicted - wanted_ms), np.inf)))
            self._free[index] = False
            architecture = self._space.decode(self._population[[index]])[0]
            key = self._space.network(architecture).key
            if key not in barred:
                return key, architecture
        at = ", ".join(map(str, self._resolutions))
        raise UsageError(f"{self._space.name} has too few networks at {at} px for so many; ask for fewer --networks")


class Comparer:
    """Measure networks on the device, keep the results in the table, and compare them with its predictions."""

    def __init__(self, table: LatencyTable, space: Space) -> None:
        self._table = table
        self._space = space
        self._model = LatencyModel(table, space)

    def measure(self, drawn: Drawn, connection: Connection, progress: Progress, first_round: int = 0) -> Outcome:
        """Measure what the table lacks of the rounds from the first one on."""
        identity = self._table.identity
        networks = []
        for role, architectures in ((TEST, drawn.tested), (CALIBRATION, drawn.calibration_networks)):
            for architecture in architectures:
                network = self._space.network(architecture)
                self._table.store.add_network(network.key, self._space.name, architecture.to_json(), role)
                networks.append(network)
        for reference in drawn.references:
            self._table.store.add_network(reference.block.key, FAMILY, {"name": reference.name}, REFERENCE)
            networks.append(reference.block)
        settings, command = identity.settings, self._table.command
        jobs: list[Job | FileJob] = []
        jobs += lower_jobs(networks, identity.runtime, settings.batch, precision=settings.precision, command=command)
        for file in drawn.files:
            add_file(self._table, file, drawn.accuracies.get(file.name))
            jobs.append(file_job(self._table, file, layers=False))
        outcome = Outcome()
        first, more, most = COMMAND_ROUNDS if command else (ROUNDS, MORE_ROUNDS, MOST_ROUNDS)
        for rounds in range(first, most + 1, more):
            purpose = f"ofa-compare {self._space.name}"
            planned: list[list[Job | FileJob]] = [[]] * first_round + [jobs] * rounds
            campaign = Campaign(self._table, planned, NETWORK_BUDGET, progress, purpose, adopts=not first_round)
            outcome = campaign.run(connection)
            apart = self._noise([job.key for job in jobs], first_round)
            if apart is None or apart <= WANTED_NOISE:
                break
            if outcome.trials and rounds < most:
                progress.say(
                    f"the two passes of all networks differ by {apart:.1%}, more than {WANTED_NOISE:.1%}: "
                    f"{more} more trials each, {rounds} of at most {most} are done"
                )
        return outcome

    def measure_anew(
        self, architecture: Architecture, connection: Connection, progress: Progress
    ) -> tuple[ComparedNetwork | None, Outcome]:
        """Measure one calibration network from scratch; None if it was not measured in both passes."""
        key = self._space.network(architecture).key
        first_round = self._unused_round(key)
        outcome = self.measure(Drawn(tested=[], calibration_networks=[architecture]), connection, progress, first_round)
        passes = network_passes_ms(self._table, key, first_round)
        return None if passes is None else self._compared(key, architecture, passes), outcome

    def _unused_round(self, key: str) -> int:
        """The first round of a pass without a trial of the network, which no other command continues."""
        used = max(self._table.rounds_of().get(key, ()), default=0)
        return max(MOST_ROUNDS, used + PASSES - used % PASSES)

    def calibrate(self) -> Calibration | None:
        """Fit the calibration to every calibration network of the table, and keep it there.

        Networks that were only measured while the device was disturbed count only if there are no others.
        """
        measured = list(self.measured(CALIBRATION))
        calibration_networks = [network for network in measured if not network.disturbed] or measured
        fitted = None
        if calibration_networks:
            population = self._space.encode(
                [parse_architecture(network.architecture) for network in calibration_networks]
            )
            fitted = self._model.fit_calibration(population, [network.measured_ms for network in calibration_networks])
        write_calibration(self._table, self._space, fitted)
        return fitted

    def compare(
        self, drawn: Drawn, device: dict[str, Any], condition_after: dict[str, Any], seconds: float
    ) -> Comparison:
        """Compare what was measured with the prediction. Failed networks are left out; the reference networks of the
        table are included.
        """
        calibration = self.calibrate()
        tested_keys = {self._space.network(architecture).key for architecture in drawn.tested}
        networks = [
            replace(network, name=drawn.names.get(network.key, network.name))
            for network in self.measured(TEST)
            if network.key in tested_keys
        ]
        return Comparison(
            table=str(self._table.path),
            space=self._space.name,
            identity=self._table.identity,
            device=device,
            condition_after=condition_after,
            stages=self._space.stages,
            networks=self._shifted(networks, calibration),
            calibration_networks=self._shifted(list(self.measured(CALIBRATION)), calibration),
            calibration=calibration,
            measured_at=time.time(),
            seconds=seconds,
            references=tuple(measured_references(self._table)),
        )

    def _shifted(self, networks: list[ComparedNetwork], calibration: Calibration | None) -> tuple[ComparedNetwork, ...]:
        if calibration is None or not networks:
            return tuple(networks)
        calibrated = LatencyModel(self._table, self._space, calibration)
        summed = calibrated.summed(self._space.encode([parse_architecture(n.architecture) for n in networks]))
        return tuple(replace(n, shifted_ms=float(ms)) for n, ms in zip(networks, summed, strict=True))

    def _noise(self, keys: Sequence[str], first_round: int) -> float | None:
        """The mean difference of the two passes of these networks, relative to the latency."""
        passes = [both for key in keys if (both := network_passes_ms(self._table, key, first_round)) is not None]
        return noise(np.array(passes).T).mape if passes else None

    def measured(self, role: str) -> Iterator[ComparedNetwork]:
        """The networks of the table with this role and space that were measured in both passes."""
        for key, space_name, value, stored_role in self._table.store.networks():
            passes = network_passes_ms(self._table, key)
            if space_name == self._space.name and stored_role == role and passes is not None:
                yield self._compared(key, parse_architecture(value), passes)

    def _compared(self, key: str, architecture: Architecture, passes: tuple[float, float]) -> ComparedNetwork:
        population = self._space.encode([architecture])
        figures = self._model.figures_ms[population.genes[-1, 0]]
        stage_ms = [0.0] * len(self._space.stages)
        for position, index in zip(self._space.positions, self._space.entry_indices(population)[:, 0], strict=True):
            if index != ABSENT:
                stage_ms[position.stage] += float(figures[index])
        entry = self._table.entry(key)
        blocks = (self._table.entry(block.key) for block in self._space.network_blocks(architecture))
        predicted = any(block is not None and PREDICTED in block.flags for block in blocks)
        return ComparedNetwork(
            name=key.removeprefix("network:")[:6],
            key=key,
            architecture=architecture.to_json(),
            resolution_px=architecture.resolution_px,
            macs=float(self._space.macs(population)[0]),
            raw_ms=float(self._model.raw(population)[0]),
            stage_ms=tuple(stage_ms),
            passes_ms=passes,
            flags=(*(entry.flags if entry else ()), *([PREDICTED] if predicted else [])),
        )
