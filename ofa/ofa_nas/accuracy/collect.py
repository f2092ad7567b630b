"""Measure the accuracy of many sub-networks of a trained supernet. Needs torch."""

import itertools
import json
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ofa_nas.accuracy.pairs import Pair, Pairs, add_pair, begin_pairs, read_pairs
from ofa_nas.spaces import Architecture, Population, Space
from ofa_nas.supernet import Supernet, estimated
from ofa_nas.training.data import Data, evaluation_batches, loader
from ofa_nas.training.evaluation import BATCH, counting, statistics_batches
from ofa_nas.training.processes import Processes
from ofa_tables.model.latency_model import LatencyModel

CANDIDATES = 1 << 16  # networks to choose from, with a table
DRAWN = 1024  # networks per draw, without a table
KEPT_BYTES = 2 << 30  # of decoded images kept in memory while the networks of one resolution are evaluated

Progress = Callable[[int, int], None]


def networks_to_collect(
    space: Space, count: int, resolutions_px: tuple[int, ...], latency: LatencyModel | None, seed: int
) -> list[Architecture]:
    """Draw ``count`` different networks, in the order of their resolutions.

    Without a table, half are uniform over the genes and half range from small to large. With a table, they are spread
    evenly over latency. A larger ``count`` returns a superset.
    """
    rng = np.random.default_rng(seed)
    draw = partial(_spread_and_uniform, space, rng, resolutions_px)
    if latency is None:
        found, drawn = draw(DRAWN), DRAWN
        while len(found) < count and drawn < 8 * count:  # further draws find few new networks
            found = _different(Population.concatenate([found, draw(drawn)]))
            drawn *= 2
        networks = found[np.arange(min(count, len(found)))]
    else:
        found = draw(CANDIDATES)
        networks = found[_evenly(latency.predict(found), min(count, len(found)))]
    return space.decode(networks[np.argsort(networks.genes[-1], kind="stable")])


def collect(
    evaluate: Callable[[Architecture], Pair],
    networks: list[Architecture],
    out: Path,
    about: dict[str, object],
    processes: Processes,
    progress: Progress,
) -> Pairs:
    """Evaluate networks and append each pair to ``out``. Networks that ``out`` already contains are skipped.

    The processes share the networks round-robin.
    """
    begun = begin_pairs(out, about).pairs if processes.is_first else ()
    known = set(processes.from_first([_name(pair.architecture) for pair in begun]))
    waiting = [network for network in networks if _name(network) not in known]
    done = len(networks) - len(waiting)
    progress(done, len(networks))
    for start in range(0, len(waiting), processes.world):
        own = waiting[start : start + processes.world][processes.rank : processes.rank + 1]
        for pair in itertools.chain(*processes.gathered([evaluate(network) for network in own])):
            if processes.is_first:
                add_pair(out, pair)
            done += 1
        progress(done, len(networks))
    processes.wait()
    return read_pairs(out)


class Evaluator:
    """Measures top-1 of sub-networks of a supernet on the first ``images`` held-out images.

    Batch-norm statistics are estimated separately for each network. Order the networks by resolution: images are then
    decoded once per resolution. ``broken`` has the images that could not be decoded.
    """

    def __init__(
        self, supernet: Supernet, data: Data, images: int, statistics_images: int, device: torch.device
    ) -> None:
        self._supernet, self._data = supernet, data
        self._held_out = data.held_out.subset(range(min(images, len(data.held_out))))
        self._statistics_images = statistics_images
        self.broken = data.broken()
        self._alone = Processes(0, 1, device)  # each process evaluates different networks
        self._prepared = lru_cache(maxsize=1)(self._prepare)

    def __call__(self, network: Architecture) -> Pair:
        statistics, batches = self._prepared(network.resolution_px)
        with estimated(self._supernet, lambda x: self._supernet(x, network), statistics):
            plain = self._supernet.extract(network).fold()
        plain = plain.to(self._alone.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            found = self._batches(network.resolution_px) if batches is None else batches
            hits = torch.cat([plain(images).argmax(1) == labels for images, labels in found]).float().cpu()
        return Pair(network, float(hits.mean()), (float(hits[::2].mean()), float(hits[1::2].mean())))

    def _prepare(self, px: int) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]] | None]:
        """Return the batches for the statistics, and those to evaluate on (None if they do not fit in memory)."""
        count = self._statistics_images
        statistics = statistics_batches(self._data.train, count, px, 0, self._alone, broken=self.broken)
        fits = len(self._held_out) * 3 * px * px * 4 <= KEPT_BYTES
        return statistics, list(self._batches(px)) if fits else None

    def _batches(self, px: int) -> Iterator[tuple[Tensor, Tensor]]:
        batches = loader(self._held_out, evaluation_batches(self._held_out, px=px, batch_size=BATCH))
        for batch in counting(batches, self.broken):
            yield batch.images.to(self._alone.device), batch.labels.to(self._alone.device)


def _name(network: Architecture) -> str:
    return json.dumps(network.to_json(), sort_keys=True)


def _spread_and_uniform(
    space: Space, rng: np.random.Generator, resolutions_px: tuple[int, ...], count: int
) -> Population:
    """Draw networks of both kinds, alternating and without duplicates."""
    spread, uniform = (draw(count // 2, rng, resolutions_px).genes for draw in (space.sample_spread, space.sample))
    alternating = np.stack([spread, uniform], axis=2).reshape(len(spread), -1)
    return _different(space.canonical(Population(alternating)))


def _different(networks: Population) -> Population:
    """Remove duplicates; the first occurrence stays."""
    _, first = np.unique(networks.genes, axis=1, return_index=True)
    return networks[np.sort(first)]


def _evenly(latencies_ms: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of ``count`` networks that are spread evenly over latency.

    Each target latency, from the van der Corput sequence, takes the nearest unused network.
    """
    order = np.argsort(latencies_ms, kind="stable")
    ascending, is_free = latencies_ms[order], np.ones(len(order), dtype=bool)
    chosen = []
    for number in range(count):
        share = int(f"{number:032b}"[::-1], 2) / (1 << 32)
        wanted_ms = ascending[0] + share * (ascending[-1] - ascending[0])
        free = np.flatnonzero(is_free)
        nearest = free[np.abs(ascending[free] - wanted_ms).argmin()]
        is_free[nearest] = False
        chosen.append(order[nearest])
    return np.array(chosen)
