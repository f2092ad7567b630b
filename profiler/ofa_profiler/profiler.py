"""Profiling: the campaigns that give a table the entries of a Space at some resolutions."""

from collections.abc import Sequence

from ofa_agent.timing import Budget
from ofa_nas.spaces import Space
from ofa_profiler.campaign import OTHERS_BYTES, Campaign, Outcome, Progress, Task, lower_tasks
from ofa_profiler.carriers import carrier_rounds
from ofa_profiler.connections import Connection
from ofa_profiler.economy import measured_resolutions, next_resolution
from ofa_profiler.efforts import EFFORTS, NETWORK_BUDGET, Effort
from ofa_tables.table import IN_NETWORKS, LatencyTable

# So many rounds tell whether a resolution between those measured needs measuring, too.
SCOUTING_ROUNDS = 2


class Profiler:
    """Measures into ``table`` what it lacks; ``effort`` says in how many rounds each entry is visited."""

    def __init__(
        self, table: LatencyTable, space: Space, effort: Effort, connection: Connection, progress: Progress
    ) -> None:
        self._table = table
        self._space = space
        self._effort = effort
        self._connection = connection
        self._progress = progress

    def measure(self, resolutions_px: Sequence[int]) -> Outcome:
        """Every entry at these resolutions."""
        return self._run(resolutions_px, self._effort.rounds)

    def measure_some(self, resolutions_px: Sequence[int]) -> Outcome:
        """The entries at those of the resolutions from which the others can be interpolated."""
        self._table.interpolate()
        outcome = Outcome()
        chosen: list[int] = []
        while (px := next_resolution(self._table, self._space, resolutions_px)) is not None and px not in chosen:
            chosen.append(px)
            outcome.include(self._run([px], SCOUTING_ROUNDS, announced=False))
        measured = measured_resolutions(self._table, self._space, resolutions_px)
        self._progress.say(
            f"measuring {', '.join(map(str, measured))} px; the other {len(resolutions_px) - len(measured)} "
            "resolutions are interpolated"
        )
        outcome.include(self._run(measured, self._effort.rounds))
        return outcome

    def _run(self, resolutions_px: Sequence[int], rounds: int, announced: bool = True) -> Outcome:
        tasks, budget = self._plan(resolutions_px, rounds)
        campaign = Campaign(self._table, tasks, budget, self._progress, f"ofa-profile {self._space.name}")
        left = campaign.visits_left()
        if left and announced:
            bursts = 2 if self._table.identity.blocks == IN_NETWORKS else 1
            seconds = campaign.probe(self._connection).expected_s(left, budget, bursts)
            self._progress.say(f"{len(left)} visits, about {_duration(seconds)}{self._of_other_efforts(seconds)}")
        return campaign.run(self._connection)

    def _of_other_efforts(self, seconds: float) -> str:
        others = [
            f"{name}: {_duration(seconds * effort.rounds / self._effort.rounds)}"
            for name, effort in EFFORTS.items()
            if effort is not self._effort
        ]
        return f" ({', '.join(others)})"

    def _plan(self, resolutions_px: Sequence[int], rounds: int) -> tuple[list[list[Task]], Budget]:
        """What to visit in each round, and how long each burst may take."""
        if self._table.identity.blocks == IN_NETWORKS:
            return carrier_rounds(self._table, self._space, resolutions_px, rounds), NETWORK_BUDGET
        blocks = [block for px in resolutions_px for block in self._space.blocks(px)]
        identity = self._table.identity
        tasks = lower_tasks(blocks, identity.runtime, identity.settings.batch, OTHERS_BYTES)
        return [tasks] * rounds, self._effort.budget


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
