"""Accuracies of many sub-networks of a trained supernet. Needs torch."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ofa_nas.accuracy.pairs import Pair, Pairs, add_pair, begin_pairs
from ofa_nas.spaces import Architecture, Population, Space
from ofa_nas.supernet import Supernet, estimated
from ofa_nas.training.data import Data, evaluation_batches, loader
from ofa_nas.training.evaluation import BATCH, statistics_batches
from ofa_nas.training.processes import Processes
from ofa_tables.model import LatencyModel

CANDIDATES = 64  # to each network, where they are stratified by latency
KEPT_BYTES = 2 << 30  # so much of decoded images is kept while the networks of one resolution are evaluated

Progress = Callable[[int, int], None]


def networks_to_collect(
    space: Space, count: int, resolutions_px: tuple[int, ...], latency: LatencyModel | None, seed: int
) -> list[Architecture]:
    """Different ones, half of them uniform over the genes and half from small to large; with a table evenly over
    latency instead. In the order of their resolutions; the first of a longer list are not those of a shorter one."""
    rng = np.random.default_rng(seed)
    found = space.sample_spread(count * (CANDIDATES if latency else 2), rng, resolutions_px)
    if latency is None:
        found = Population.concatenate([found, space.sample(2 * count, rng, resolutions_px)])
    found = Population(np.unique(space.canonical(found).genes, axis=1))
    chosen = rng.permutation(len(found))[:count] if latency is None else _evenly(latency.predict(found), count, rng)
    networks = found[np.sort(chosen)]
    return space.decode(networks[np.argsort(networks.genes[-1], kind="stable")])


def collect(
    supernet: Supernet,
    data: Data,
    networks: list[Architecture],
    out: Path,
    about: dict[str, object],
    processes: Processes,
    images: int | None,
    statistics_images: int,
    progress: Progress,
) -> Pairs:
    """Evaluates each on ``images`` of the held-out ones (None: all), with batch-norm statistics of its own; adds each
    pair to ``out`` as it comes, and leaves out those that are there already."""
    begun = begin_pairs(out, about) if processes.is_first else None
    known = set(processes.from_first([str(pair.architecture.to_json()) for pair in begun.pairs] if begun else None))
    waiting = [network for network in networks if str(network.to_json()) not in known]
    kept = data.held_out.subset(range(min(images or len(data.held_out), len(data.held_out))))
    alone = Processes(0, 1, processes.device)

    @lru_cache(maxsize=1)
    def prepared(px: int) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]] | None]:
        statistics = statistics_batches(data.train, statistics_images, px, 0, alone)
        small = len(kept) * 3 * px * px * 4 <= KEPT_BYTES
        return statistics, list(_batches(px)) if small else None

    def _batches(px: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in loader(kept, evaluation_batches(kept, px=px, batch_size=BATCH)):
            yield batch.images.to(processes.device), batch.labels.to(processes.device)

    def evaluate(network: Architecture) -> Pair:
        statistics, batches = prepared(network.resolution_px)
        forward: Callable[[Tensor], Tensor] = lambda x: supernet(x, network)  # noqa: E731
        with estimated(supernet, forward, statistics):
            plain = supernet.extract(network).fold().to(processes.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            found = batches if batches is not None else _batches(network.resolution_px)
            hits = torch.cat([plain(x).argmax(1) == labels for x, labels in found]).float().cpu()
        return Pair(network, float(hits.mean()), (float(hits[::2].mean()), float(hits[1::2].mean())))

    done = len(networks) - len(waiting)
    progress(done, len(networks))
    for start in range(0, len(waiting), processes.world):
        own = waiting[start : start + processes.world][processes.rank : processes.rank + 1]
        for pairs in processes.gathered([evaluate(network) for network in own]):
            for pair in pairs:
                done += 1
                if processes.is_first:
                    add_pair(out, pair)
        progress(done, len(networks))
    processes.wait()
    return begin_pairs(out, about)


def _evenly(latencies_ms: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices: in each of ``count`` equal stretches of latency one, as far as there are; the rest at random."""
    strata = ((latencies_ms - latencies_ms.min()) / max(np.ptp(latencies_ms), 1e-12) * count).astype(int)
    order = rng.permutation(len(latencies_ms))
    _, first = np.unique(strata[order], return_index=True)
    chosen = order[first][:count]
    rest = np.setdiff1d(order, chosen)
    return np.concatenate([chosen, rng.permutation(rest)[: count - len(chosen)]])
