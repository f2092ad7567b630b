"""Plan and run the campaigns that measure the entries of a space."""

from collections.abc import Callable, Sequence

from ofa_agent.measuring.timing import Budget
from ofa_nas.cli import duration
from ofa_nas.spaces import Space
from ofa_profiler.campaign.campaign import Campaign, Outcome, Progress
from ofa_profiler.campaign.choosing_resolutions import measured_resolutions, next_resolution
from ofa_profiler.campaign.effort import EFFORTS, NETWORK_BUDGET, Effort
from ofa_profiler.campaign.jobs import OTHERS_BYTES, Job, lower_jobs
from ofa_profiler.campaign.profiled_networks import profiled_network_rounds
from ofa_profiler.connections import Connection
from ofa_tables.identity import IN_NETWORKS
from ofa_tables.table import LatencyTable

# Rounds that decide whether a resolution between those measured must be measured, too.
SCOUTING_ROUNDS = 2


class Profiler:
    """Measure what ``table`` lacks; ``effort`` decides in how many rounds each entry is timed."""

    def __init__(
        self, table: LatencyTable, space: Space, effort: Effort, connection: Connection, progress: Progress
    ) -> None:
        self._table = table
        self._space = space
        self._effort = effort
        self._connection = connection
        self._progress = progress

    def measure(self, resolutions_px: Sequence[int]) -> Outcome:
        """Measure every entry at these resolutions."""
        return self._campaign(resolutions_px, self._effort.rounds, self._announce).run(self._connection)

    def measure_some(self, resolutions_px: Sequence[int]) -> Outcome:
        """Measure the entries at some of the resolutions, so that the others can be interpolated."""
        self._table.interpolate()
        outcome = Outcome()
        chosen: list[int] = []
        while (px := next_resolution(self._table, self._space, resolutions_px)) is not None and px not in chosen:
            chosen.append(px)
            outcome.include(self._campaign([px], SCOUTING_ROUNDS).run(self._connection))
        measured = measured_resolutions(self._table, self._space, resolutions_px)
        if not measured:
            return outcome  # nothing could be measured
        self._progress.say(
            f"measuring {', '.join(map(str, measured))} px; the other {len(resolutions_px) - len(measured)} "
            "resolutions are interpolated"
        )
        outcome.include(self.measure(measured))
        return outcome

    def _campaign(
        self, resolutions_px: Sequence[int], rounds: int, announce: Callable[[float], None] | None = None
    ) -> Campaign:
        jobs, budget = self._plan(resolutions_px, rounds)
        return Campaign(self._table, jobs, budget, self._progress, f"ofa-profile {self._space.name}", announce)

    def _announce(self, seconds: float) -> None:
        others = [
            f"{name}: {duration(seconds * effort.rounds / self._effort.rounds)}"
            for name, effort in EFFORTS.items()
            if effort is not self._effort
        ]
        self._progress.say(f"it will take about {duration(seconds)} ({', '.join(others)})")

    def _plan(self, resolutions_px: Sequence[int], rounds: int) -> tuple[list[list[Job]], Budget]:
        """The jobs of each round, and the budget of a burst."""
        if self._table.identity.blocks == IN_NETWORKS:
            return profiled_network_rounds(self._table, self._space, resolutions_px, rounds), NETWORK_BUDGET
        blocks = [block for px in resolutions_px for block in self._space.blocks(px)]
        runtime, settings = self._table.identity.runtime, self._table.identity.settings
        jobs = lower_jobs(blocks, runtime, settings.batch, OTHERS_BYTES, settings.precision, self._table.command)
        return [jobs] * rounds, self._effort.budget
