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

CANDIDATES = 1 << 16  # where they are stratified by latency
DRAWN = 1024  # at once, where they are not
KEPT_BYTES = 2 << 30  # of decoded images kept in memory while the networks of one resolution are evaluated

Progress = Callable[[int, int], None]


def networks_to_collect(
    space: Space, count: int, resolutions_px: tuple[int, ...], latency: LatencyModel | None, seed: int
) -> list[Architecture]:
    """Different ones, half of them uniform over the genes and half from small to large; with a table evenly over
    latency instead. More of them hold all of fewer. In the order of their resolutions."""
    rng = np.random.default_rng(seed)
    draw = partial(_spread_and_uniform, space, rng, resolutions_px)
    if latency is None:
        found, drawn = draw(DRAWN), DRAWN
        while len(found) < count and drawn < 8 * count:  # beyond that there are hardly any more
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
    """Evaluates each network, by turns among the processes, and adds its pair to ``out`` as it comes; those that are
    there already are not evaluated again."""
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
    """Top-1 of a supernet's sub-networks on the first ``images`` of the held-out ones, each with batch-norm statistics
    of its own. Networks of one resolution had better follow each other: their images are decoded once. Those that
    cannot be are in ``broken``."""

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
        """Batches for the statistics, and those to evaluate on; None where they would not fit into memory."""
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
    """By turns, each once."""
    spread, uniform = (draw(count // 2, rng, resolutions_px).genes for draw in (space.sample_spread, space.sample))
    by_turns = np.stack([spread, uniform], axis=2).reshape(len(spread), -1)
    return _different(space.canonical(Population(by_turns)))


def _different(networks: Population) -> Population:
    """Each once, where it comes first."""
    _, first = np.unique(networks.genes, axis=1, return_index=True)
    return networks[np.sort(first)]


def _evenly(latencies_ms: np.ndarray, count: int) -> np.ndarray:
    """Indices: the nearest ones to latencies that fall between each other (van der Corput's), each once."""
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
