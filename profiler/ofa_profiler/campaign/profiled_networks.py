"""Profiled networks: whole networks in which the blocks of a space are timed in place.

A block timed alone pays for a separate call and for layout changes at its edges, and finds the caches as it left them
itself; inside a network it does not. docs/measuring.md quantifies this.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ofa_nas.spaces import ABSENT, Architecture, Population, Space
from ofa_profiler.campaign.jobs import Job
from ofa_profiler.lowering import lower
from ofa_tables.table import PROFILED, LatencyTable

# Small blocks occur in small networks and large ones in large networks, also in what a search finds. So
# profiled networks are taken from this number of groups of candidates, from the smallest to the largest, in rotation.
CANDIDATES = 900
GROUPS = 9
# After this number of rounds the networks repeat: the device has their models by then.
DIFFERENT_ROUNDS = 4


def profiled_network_rounds(
    table: LatencyTable, space: Space, resolutions_px: Sequence[int], rounds: int
) -> list[list[Job]]:
    """For each round, choose profiled networks that contain every entry without a trial in it, and store them."""
    covered: dict[int, set[str]] = defaultdict(set)
    for key, numbers in table.rounds_of().items():
        for number in numbers:
            covered[number].add(key)
    others = networks_kept_out(table)
    lowered: dict[str, Job] = {}  # networks repeat, and lowering in int8 takes half a second
    jobs = []
    for number in range(rounds):
        in_round = []
        for px in resolutions_px:
            for architecture in _cover(
                space, px, covered[number], np.random.default_rng((number % DIFFERENT_ROUNDS, px))
            ):
                network = space.network(architecture)
                if network.key in others:
                    continue
                if network.key not in lowered:
                    lowered[network.key] = profiled_network_job(table, space, architecture)
                covered[number].update(block.key for block in lowered[network.key].parts)
                in_round.append(lowered[network.key])
        jobs.append(in_round)
    return jobs


def profiled_network_job(table: LatencyTable, space: Space, architecture: Architecture) -> Job:
    """Store a profiled network and return its job."""
    network, settings = space.network(architecture), table.identity.settings
    table.store.add_network(network.key, space.name, architecture.to_json(), PROFILED)
    model = lower(table.identity.runtime, network, settings.batch, settings.precision, table.command)
    return Job(network, model, parts=tuple(space.network_blocks(architecture)))


def networks_kept_out(table: LatencyTable) -> set[str]:
    """Return the keys of the calibration and test networks, which must not provide latencies of blocks."""
    return {key for key, _, _, role in table.store.networks() if role != PROFILED}


def _cover(space: Space, px: int, covered: set[str], rng: np.random.Generator) -> Iterator[Architecture]:
    """Yield networks until ``covered``, which the caller extends, has every entry: greedily, in rotation over the
    groups.
    """
    keys = space.keys(px)
    while any(key not in covered for key in keys):
        candidates = space.canonical(space.sample_spread(CANDIDATES, rng, [px]))
        candidates = candidates[np.argsort(space.macs(candidates), kind="stable")]
        standing = _standing(space, candidates)
        for turn in range(CANDIDATES):
            missing = np.array([key not in covered for key in keys])
            group = np.array_split(np.arange(CANDIDATES), GROUPS)[turn % GROUPS]
            gains = (standing[group] & missing).sum(axis=1)
            if gains.any():
                chosen = group[[int(np.argmax(gains))]]
                standing[chosen] = False
                yield space.decode(candidates[chosen])[0]
            elif not (standing & missing).any():
                break


def _standing(space: Space, population: Population) -> np.ndarray:
    """(N, entries): which entries each network contains."""
    indices = space.entry_indices(population)
    standing = np.zeros((indices.shape[1], len(space.keys(space.resolutions_px[0])) + 1), dtype=bool)
    standing[np.arange(indices.shape[1]), indices] = True  # ABSENT is the last column
    return standing[:, :ABSENT]
