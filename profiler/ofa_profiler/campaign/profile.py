"""Plan and run the campaigns that measure the entries of a space."""

import math
import time
from collections.abc import Callable, Sequence

from ofa_agent.measuring.timing import Budget
from ofa_nas.cli import duration
from ofa_nas.search.neighbours import changed, changes
from ofa_nas.spaces import Population, Space
from ofa_profiler.campaign.campaign import Campaign, Outcome, Progress
from ofa_profiler.campaign.choice import Choice
from ofa_profiler.campaign.effort import EFFORTS, NETWORK_BUDGET, Effort
from ofa_profiler.campaign.jobs import OTHERS_BYTES, Job, lower_jobs
from ofa_profiler.campaign.profiled_networks import profiled_network_rounds
from ofa_profiler.connections import Connection
from ofa_tables.estimates.prior import PriorTable
from ofa_tables.identity import IN_NETWORKS
from ofa_tables.table import LatencyTable

OF_WHAT_IS_LEFT = 0.9  # some trials take longer than expected, and disturbed ones are repeated
# Trials no longer help if the expected error falls by less than this fraction in this number of batches, after as many
# trials as measuring every block would take. Before, it can rise, because trials show how irregular a device is.
LEAST_FALL = 0.05
STALLED_BATCHES = 2


class Profiler:
    """Measure what ``table`` lacks; ``effort`` decides in how many rounds each entry is timed."""

    def __init__(
        self,
        table: LatencyTable,
        space: Space,
        effort: Effort,
        connection: Connection,
        progress: Progress,
        priors: Sequence[PriorTable] = (),
    ) -> None:
        self._table = table
        self._space = space
        self._effort = effort
        self._connection = connection
        self._progress = progress
        self._priors = priors

    def measure(self, resolutions_px: Sequence[int]) -> Outcome:
        """Measure every entry at these resolutions."""
        outcome = self._campaign(resolutions_px, self._effort.rounds, self._announce).run(self._connection)
        self._choice(resolutions_px).fit()
        return outcome

    def measure_until(self, resolutions_px: Sequence[int], error: float, deadline: float = math.inf) -> Outcome:
        """Measure what takes most off the expected error of networks, and estimate the rest.

        It ends when half the 95 % interval of networks, relative to the latency, is below ``error``, or at ``deadline``
        in seconds of ``time.monotonic``. Without a deadline, it also ends when more trials no longer help.
        """
        outcome, widths = Outcome(), list[float]()
        choice = self._choice(resolutions_px)
        while True:
            began = time.monotonic()
            half_width = choice.fit()
            ending_s = 2 * (time.monotonic() - began)  # the last trials are fitted, and the table and agent are closed
            left_s = deadline - time.monotonic() - ending_s
            if half_width is not None:
                self._progress.say(f"expected error of networks: ±{half_width:.1%}{choice.weights()}")
                widths.append(half_width)
                if half_width <= error or left_s <= 0:
                    break
                full = self._effort.rounds * choice.blocks  # trials of blocks, if all are measured
                if math.isinf(deadline) and has_stalled(widths) and self._succeeded() > full:
                    self._progress.say(f"more trials no longer help; ±{error:.1%} is out of reach on this device now")
                    break
            rounds, budget = choice.rounds(OF_WHAT_IS_LEFT * left_s)
            began, succeeded = time.monotonic(), self._succeeded()
            until = math.inf if half_width is None else deadline - ending_s
            campaign = Campaign(self._table, rounds, budget, self._progress, self._purpose, until=until)
            found = campaign.run(self._connection)
            outcome.include(found)
            choice.took(time.monotonic() - began)
            if self._succeeded() == succeeded:
                break  # more of the same would fail, too
        return outcome

    def measure_near(self, network: Population, seconds: float) -> Outcome:
        """Measure for about ``seconds`` what takes most off the error of the differences between one network and those
        that differ from it in one gene.
        """
        px = self._space.resolutions_px[int(network.genes[-1, 0])]
        rows, values = changes(self._space, [px], network.genes[:, 0])
        near = changed(network, rows[:, None], values[:, None])
        choice = self._choice([px], near)
        choice.fit()
        rounds, budget = choice.rounds(seconds)
        outcome = Campaign(self._table, rounds, budget, self._progress, self._purpose).run(self._connection)
        choice.fit()
        return outcome

    def _succeeded(self) -> int:
        return sum(trial.ok for trial in self._table.measurements)

    def _campaign(
        self, resolutions_px: Sequence[int], rounds: int, announce: Callable[[float], None] | None = None
    ) -> Campaign:
        jobs, budget = self._plan(resolutions_px, rounds)
        return Campaign(self._table, jobs, budget, self._progress, self._purpose, announce)

    def _choice(self, resolutions_px: Sequence[int], networks: Population | None = None) -> Choice:
        return Choice(self._table, self._space, resolutions_px, self._priors, self._effort.budget, networks)

    @property
    def _purpose(self) -> str:
        return f"ofa-profile {self._space.name}"

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


def has_stalled(widths: Sequence[float]) -> bool:
    """Return whether the expected error hardly fell during the last batches."""
    return len(widths) > STALLED_BATCHES and widths[-1] > (1 - LEAST_FALL) * min(widths[:-STALLED_BATCHES])
