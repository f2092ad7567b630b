"""Draw the sub-networks of a step from a seed, equally in every process.

Without a table uniformly over the genes. With one evenly over predicted latency: uniform genes seldom give networks
near either end of it, and those near a limit are what is searched for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from ofa_nas.errors import LimitUnreachable
from ofa_nas.spaces import ABSENT, Architecture, Population, Space
from ofa_nas.spaces.space import FloatArray, IntArray
from ofa_nas.training.recipes import Stage
from ofa_tables.model.latency_model import LatencyModel

POOL = 4096  # candidates per resolution, half uniform, half spread from small to large
ENOUGH = 300  # minimum number within the limit; otherwise more small networks are drawn
LEANS = (1.0, 0.5, 0.25, 0.125)


class Sampler(Protocol):
    def draw(self, count: int, resolution_px: int, rng: np.random.Generator) -> list[Architecture]: ...


@dataclass(frozen=True)
class Choices:
    """The choices of each gene that may be drawn: ``allowed[g]`` are indices, ascending."""

    space: Space
    allowed: tuple[IntArray, ...]

    @classmethod
    def of_stage(cls, space: Space, stage: Stage) -> "Choices":
        rows = [group for group in space.groups for _ in range(group.count)]
        return cls(space, tuple(_largest(group.choices, stage.choices(group.name)) for group in rows))

    def without(self, unused: Sequence[IntArray]) -> "Choices":
        """Remove ``unused[g]``, unless no choice of a gene would remain."""
        kept = [np.setdiff1d(allowed, out) for allowed, out in zip(self.allowed, unused, strict=True)]
        pairs = zip(kept, self.allowed, strict=True)
        return Choices(self.space, tuple(left if len(left) else allowed for left, allowed in pairs))

    def uniform(self, count: int, resolution_px: int, rng: np.random.Generator) -> Population:
        return self._at([rng.integers(len(allowed), size=count) for allowed in self.allowed], resolution_px)

    def spread(self, count: int, resolution_px: int, rng: np.random.Generator, most: float = 1.0) -> Population:
        """Networks from small to large: each draws its choices with a separate bias towards the large ones, at most
        ``most``.
        """
        lean = rng.uniform(0, most, size=count)
        return self._at([rng.binomial(len(allowed) - 1, lean) for allowed in self.allowed], resolution_px)

    def _at(self, drawn: Sequence[IntArray], resolution_px: int) -> Population:
        genes = np.array([allowed[index] for allowed, index in zip(self.allowed, drawn, strict=True)], dtype=np.uint8)
        genes[-1] = self.space.resolutions_px.index(resolution_px)
        return self.space.canonical(Population(genes))


class Uniform:
    """Uniform over the genes, as published."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices

    def draw(self, count: int, resolution_px: int, rng: np.random.Generator) -> list[Architecture]:
        return self._choices.space.decode(self._choices.uniform(count, resolution_px, rng))


class EvenlyOverLatency:
    """Evenly over latency up to ``limit_ms``; a resolution without a network within the limit uses its fastest one.

    A pool of candidates represents all networks, so change ``seed`` regularly.
    """

    def __init__(self, choices: Choices, latency: LatencyModel, limit_ms: float, seed: tuple[int, ...]) -> None:
        self._choices = choices
        self._latency = latency
        self._limit_ms = limit_ms
        self._seed = seed
        self._pool = lru_cache(maxsize=None)(self._make_pool)

    def draw(self, count: int, resolution_px: int, rng: np.random.Generator) -> list[Architecture]:
        pool, latencies_ms = self._pool(resolution_px)
        wanted_ms = rng.uniform(latencies_ms[0], latencies_ms[-1], size=count)
        right = np.searchsorted(latencies_ms, wanted_ms).clip(1, max(1, len(pool) - 1))
        left = right - 1
        right = right.clip(0, len(pool) - 1)
        nearer = np.where(wanted_ms - latencies_ms[left] < latencies_ms[right] - wanted_ms, left, right)
        return self._choices.space.decode(pool[nearer])

    def reaches(self, resolution_px: int) -> bool:
        """Whether the stage has networks within the limit at this resolution."""
        return bool(self._pool(resolution_px)[1][0] <= self._limit_ms)

    def _make_pool(self, resolution_px: int) -> tuple[Population, FloatArray]:
        """The networks within the limit, sorted by latency."""
        rng = np.random.default_rng((*self._seed, resolution_px))
        parts = [self._choices.uniform(POOL // 2, resolution_px, rng)]
        for lean in LEANS:
            parts.append(self._choices.spread(POOL // 2, resolution_px, rng, lean))
            pool = Population(np.unique(Population.concatenate(parts).genes, axis=1))
            latencies_ms = self._latency.predict(pool)
            within = max(1, int((latencies_ms <= self._limit_ms).sum()))
            fastest = np.argsort(latencies_ms, kind="stable")[:within]
            parts = [pool[fastest]]
            if within >= ENOUGH:
                break
        return pool[fastest], latencies_ms[fastest]


def unused_choices(
    latency: LatencyModel, space: Space, limit_ms: float, resolutions_px: Sequence[int]
) -> list[IntArray]:
    """For each gene, the choices that no network within the limit has: even the fastest network with that choice
    exceeds the limit.

    Raises LimitUnreachable if no network meets the limit.
    """
    smallest_ms, fastest = latency.cheapest(resolutions_px)
    if smallest_ms > limit_ms:
        where = f"{space.name} at {', '.join(map(str, resolutions_px))} px"
        raise LimitUnreachable.alone("latency", "ms", "--max-latency-ms", limit_ms, smallest_ms, where)
    best: Mapping[tuple[int, int], float] = _fastest_with(latency, space, fastest)
    unused = [
        np.array([choice for choice in range(radix) if best.get((row, choice), 0.0) > limit_ms], dtype=np.intp)
        for row, radix in enumerate(space.radices[:-1])
    ]
    slow = [
        at
        for at, px in enumerate(space.resolutions_px)
        if px in resolutions_px and latency.cheapest([px])[0] > limit_ms
    ]
    return [*unused, np.array(slow, dtype=np.intp)]


def _fastest_with(latency: LatencyModel, space: Space, fastest: Population) -> dict[tuple[int, int], float]:
    """Map (gene, choice) to the smallest latency of a network in which the choice has an effect."""
    candidates, held = [], []
    for position in space.positions:
        for code, entry in zip(np.ndindex(*position.radices), position.entries, strict=True):
            if entry == ABSENT or not position.genes:
                continue
            genes = fastest.genes[:, 0].copy()
            genes[list(position.genes)] = code
            candidates.append(genes)
            held.append(list(zip(position.genes, code, strict=True)))
    latencies_ms = latency.predict(Population(np.array(candidates, dtype=np.uint8).T.copy()))
    best: dict[tuple[int, int], float] = {}
    for pairs, latency_ms in zip(held, latencies_ms, strict=True):
        for pair in pairs:
            best[pair] = min(best.get(pair, np.inf), float(latency_ms))
    return best


def _largest(choices: Sequence[float], count: int) -> IntArray:
    return np.sort(np.argsort(choices, kind="stable")[-count:])
