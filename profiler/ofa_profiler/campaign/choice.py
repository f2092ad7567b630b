"""The choice of trials during a campaign: the cost model fitted to the table so far, and the next batch of jobs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ofa_agent.measuring.timing import Budget
from ofa_nas.spaces import Population, Space, find_blocks
from ofa_nas.spaces.recorded import recorded
from ofa_profiler.campaign.choosing import (
    TRIAL_ERROR,
    Candidate,
    FloatArray,
    Targets,
    block_candidates,
    choose,
    network_candidates,
)
from ofa_profiler.campaign.effort import NETWORK_BUDGET
from ofa_profiler.campaign.jobs import OTHERS_BYTES, Job, lower_jobs
from ofa_profiler.campaign.profiled_networks import networks_kept_out, profiled_network_job
from ofa_tables.estimates.estimates import estimates_of, fitted
from ofa_tables.estimates.prior import NO_PRIOR, Hypotheses, Mixture, PriorTable
from ofa_tables.identity import IN_NETWORKS
from ofa_tables.table import LatencyTable

# The expected cost of a trial before the first one: in s without the iterations, and iterations; of a network and of a
# block. A network that the device has already costs less.
UNTIMED_S = {True: 0.5, False: 0.05}
AGAIN_S = 0.2
RUNS = {True: 30, False: 40}
# The first trials are chosen by what is known of devices in general. Later batches are larger: each trial helps less.
FIRST_TRIALS = 10
BATCH_GROWTH = 0.6
FEWEST_FOR_ERROR = 10  # entries with several trials that show the error of one trial
FIRST_NETWORK_MS = 10.0


class Choice:
    """Chooses trials for one table; ``fit`` and ``rounds`` take turns.

    They lower the expected error of ``networks``, or of the whole space without these.
    """

    def __init__(
        self,
        table: LatencyTable,
        space: Space,
        resolutions_px: Sequence[int],
        priors: Sequence[PriorTable],
        budget: Budget,
        networks: Population | None = None,
    ) -> None:
        self._table = table
        self._space = space
        blocks = {block.key: block for px in resolutions_px for block in space.blocks(px)}
        blocks |= find_blocks(table.asked - blocks.keys(), [space, *recorded(table)])  # what earlier commands asked for
        self._blocks = list(blocks.values())
        self._hypotheses = Hypotheses(self._blocks, priors)
        self._mixture: Mixture | None = None
        keys = [block.key for block in self._blocks]
        if networks is None:
            self._targets = Targets.of_space(space, resolutions_px, keys)
        else:
            self._targets = Targets(space, networks, keys)
        self._in_networks = table.identity.blocks == IN_NETWORKS
        self._budget = NETWORK_BUDGET if self._in_networks else budget
        self._on_device: dict[str, Candidate] = {}
        self._batches = self._trials = 0
        self._expected_s = 0.0
        self._slower = 1.0  # how much longer trials take than expected

    def fit(self) -> float | None:
        """Fit the model, and store the estimates. Return the expected error of networks; None without measurements.

        The error is half the 95 % interval, relative to the latency.
        """
        entries = self._table.measured.of_blocks
        mixture = fitted(self._hypotheses, self._blocks, entries)
        if mixture is None:
            return None
        self._mixture = mixture
        self._table.keep_estimates(estimates_of(mixture, self._blocks, entries, self._table.made_of))
        return self._targets.half_width(mixture)

    @property
    def blocks(self) -> int:
        """The number of blocks, measured or predicted."""
        return len(self._blocks)

    def weights(self) -> str:
        """Describe the weights of the prior tables; empty without any."""
        fitted_weights = self._mixture.weights if self._mixture is not None else {}
        weights = [f"{name} {weight:.0%}" for name, weight in fitted_weights.items() if name != NO_PRIOR]
        return f" (prior: {', '.join(weights)})" if weights else ""

    def rounds(self, seconds: float) -> tuple[list[list[Job]], Budget]:
        """Return the next jobs, which take about ``seconds``, by round; and the budget of a burst."""
        mixture = self._mixture or self._hypotheses.before()
        log_ms = mixture.mean
        if self._mixture is None:  # the speed of the device is unknown
            log_ms = log_ms + np.log(FIRST_NETWORK_MS / (np.exp(log_ms).mean() * len(self._space.positions)))
        if self._in_networks:
            rng = np.random.default_rng((self._batches, len(self._table.measurements)))
            candidates = network_candidates(self._targets, self._seconds, log_ms, rng) + self._again(log_ms)
        else:
            candidates = block_candidates(log_ms, self._seconds)
        most = max(FIRST_TRIALS, int(BATCH_GROWTH * self._trials))
        chosen = choose(self._targets, mixture, candidates, self._trial_error(), seconds, most)
        self._trials += len(chosen)
        self._batches += 1
        self._expected_s = sum(candidate.seconds for candidate in chosen)
        if self._in_networks:
            self._on_device |= {str(candidate.network): candidate for candidate in chosen}
        return self._in_free_rounds(self._jobs(chosen)), self._budget

    def took(self, seconds: float) -> None:
        """Learn how long the last batch took."""
        if self._expected_s:
            self._slower *= min(4.0, max(0.25, seconds / self._expected_s))

    def _seconds(self, latency_ms: float, on_device: bool = False) -> float:
        untimed_s = AGAIN_S if on_device else UNTIMED_S[self._in_networks]
        return (untimed_s + RUNS[self._in_networks] * latency_ms / 1e3) * self._slower

    def _again(self, log_ms: FloatArray) -> list[Candidate]:
        """The networks of earlier batches, whose models the device has."""
        return [
            replace(known, seconds=self._seconds(float(np.exp(log_ms[known.rows]).sum()), on_device=True))
            for known in self._on_device.values()
        ]

    def _trial_error(self) -> float:
        """The relative error of one trial of a block, from the entries with several trials."""
        entries = self._table.measured.of_blocks
        errors = [entry.trial_error * np.sqrt(entry.trials) for entry in entries if entry.trial_error is not None]
        return float(np.median(errors)) if len(errors) >= FEWEST_FOR_ERROR else TRIAL_ERROR

    def _jobs(self, chosen: Sequence[Candidate]) -> list[Job]:
        if self._in_networks:
            kept_out = networks_kept_out(self._table)
            networks = [candidate.network for candidate in chosen if candidate.network is not None]
            return [
                profiled_network_job(self._table, self._space, network)
                for network in networks
                if self._space.network(network).key not in kept_out
            ]
        blocks = [self._blocks[int(candidate.rows[0])] for candidate in chosen]
        runtime, settings = self._table.identity.runtime, self._table.identity.settings
        return lower_jobs(blocks, runtime, settings.batch, OTHERS_BYTES, settings.precision, self._table.command)

    def _in_free_rounds(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Put each job into the first round in which it has no trial yet."""
        done, rounds = self._table.rounds_of(), defaultdict(list)
        for job in jobs:
            taken = done.setdefault(job.block.key, set())
            number = min(set(range(len(taken) + 1)) - taken)
            taken.add(number)
            rounds[number].append(job)
        return [rounds[number] for number in range(max(rounds, default=-1) + 1)]
