"""A space: genes, the blocks that they select, and what follows from both.

A concrete Space says which genes it has, which Blocks exist at a resolution (its entries), and for each position of
the network which genes select which entry. Populations, entry indices, sums over a Population (latency, MACs,
parameters), its extremes and its encodings all follow from that.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ofa_agent.operators import Block, concatenate
from ofa_nas.spaces.architecture import Architecture
from ofa_nas.spaces.elimination import least_sums
from ofa_nas.spaces.gathers import Gather, fuse, joint_code
from ofa_nas.spaces.reader import Reader
from ofa_tables.errors import UsageError

IntArray = np.ndarray[Any, np.dtype[Any]]
FloatArray = np.ndarray[Any, np.dtype[Any]]

ABSENT = -1


@dataclass(frozen=True)
class GeneGroup:
    """Genes of one kind: ``count`` places that each hold one of ``choices``."""

    name: str
    choices: tuple[int, ...] | tuple[float, ...]
    count: int


@dataclass(frozen=True)
class Position:
    """One place of the network, where one entry stands or none.

    ``stage`` is an index into the Space's ``stages``. ``genes`` are rows of a Population; their joint code (mixed
    radix, the last one fastest) indexes ``entries``, ``kernels`` and ``expands``: which of the Space's entries stands
    there, and the index of its kernel size and its expand ratio among the Space's choices; ABSENT if there is none.
    """

    stage: int
    genes: tuple[int, ...]
    radices: tuple[int, ...]
    entries: IntArray
    kernels: IntArray
    expands: IntArray


@dataclass(frozen=True)
class Population:
    """Many Architectures of one Space: ``genes[g, n]`` is the index of gene g's choice in Architecture n (uint8)."""

    genes: IntArray

    def __len__(self) -> int:
        return int(self.genes.shape[1])

    def __getitem__(self, which: Any) -> "Population":
        return Population(self.genes[:, which])

    @staticmethod
    def concatenate(parts: Sequence["Population"]) -> "Population":
        return Population(np.concatenate([part.genes for part in parts], axis=1))


class Space:
    """Base of all Spaces. The last gene is always the resolution."""

    name: str
    stages: tuple[str, ...]
    groups: tuple[GeneGroup, ...]
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...] | tuple[float, ...]
    # Where a stage's expand ratio is tied to its depth.
    expand_by_depth: Mapping[int, int] | None = None
    # Groups that no Position's kernels and expands contain, though the network depends on them.
    others_encoded: tuple[str, ...] = ()
    classes: int
    batch_norm_epsilon: float

    def blocks(self, resolution_px: int) -> tuple[Block, ...]:
        """The Space's entries at one resolution, always in the same order."""
        raise NotImplementedError

    def build_positions(self) -> tuple[Position, ...]:
        raise NotImplementedError

    def genes_of(self, architecture: Architecture) -> list[int]:
        """Choice indices of one Architecture. Raises UsageError that names the wrong gene."""
        raise NotImplementedError

    def architecture_of(self, indices: IntArray) -> Architecture:
        raise NotImplementedError

    # What follows.

    @cached_property
    def positions(self) -> tuple[Position, ...]:
        return self.build_positions()

    @cached_property
    def resolutions_px(self) -> tuple[int, ...]:
        return tuple(int(px) for px in self.groups[-1].choices)

    @cached_property
    def radices(self) -> IntArray:
        """How many choices each gene has."""
        return np.array([len(group.choices) for group in self.groups for _ in range(group.count)], dtype=np.int64)

    @cached_property
    def first_gene(self) -> Mapping[str, int]:
        """The row at which a group's genes begin."""
        starts, row = {}, 0
        for group in self.groups:
            starts[group.name] = row
            row += group.count
        return starts

    def require_resolutions(self, resolutions_px: Iterable[int]) -> None:
        for resolution in resolutions_px:
            if resolution not in self.resolutions_px:
                near = sorted(sorted(self.resolutions_px, key=lambda known: abs(known - resolution))[:2])
                raise UsageError(
                    f"{self.name} has no resolution {resolution}; the nearest are {near[0]} and {near[-1]}"
                )

    def gene_of(self, architecture: Architecture, name: str, count: int) -> tuple[Any, ...]:
        """Raises UsageError where there are not so many values of this name."""
        values = architecture.genes.get(name)
        if values is None or len(values) != count:
            found = "none" if values is None else str(len(values))
            raise UsageError(f"an architecture of {self.name} needs {count} entries in '{name}', this one has {found}")
        return values

    def require_choices(self, values: Sequence[Any], choices: Sequence[Any], name: str, used: Iterable[int]) -> None:
        """Of the values that are ``used``."""
        for at in used:
            if values[at] not in choices:
                allowed = ", ".join(map(str, choices))
                raise UsageError(f"'{name}'[{at}] is {values[at]} in the architecture; {self.name} allows {allowed}")

    def encode(self, architectures: Sequence[Architecture]) -> Population:
        """Architectures to a Population; genes of absent blocks become choice 0. Raises UsageError."""
        columns = [self.genes_of(architecture) for architecture in architectures]
        return self.canonical(
            Population(np.array(columns, dtype=np.uint8).reshape(len(columns), len(self.radices)).T.copy())
        )

    def decode(self, population: Population) -> list[Architecture]:
        return [self.architecture_of(column) for column in population.genes.T]

    def canonical(self, population: Population) -> Population:
        """The same networks, with every gene that nothing reads at choice 0: equal networks have equal genes."""
        present = (self.entry_indices(population) != ABSENT).astype(np.float32)
        used = self._read_by @ present > 0
        return Population(np.where(used, population.genes, 0).astype(np.uint8))

    def digests(self, population: Population) -> IntArray:
        """(N,) uint64 that are equal for equal networks; those of different ones are, once in 10¹⁹ pairs."""
        digests: IntArray = self._digest_reader(population.genes).sum(axis=0, dtype=np.uint64)
        return digests

    @cached_property
    def _digest_reader(self) -> Reader:
        """A random number for each code of each position, 0 for an absent block: their sum identifies a network."""
        rng = np.random.default_rng(0)
        tables = [
            (position, np.where(position.entries == ABSENT, 0, _random_bits(rng, position.entries.shape))[None, :])
            for position in self.positions
            if position.genes
        ]
        resolution = (
            (len(self.radices) - 1,),
            (len(self.resolutions_px),),
            _random_bits(rng, len(self.resolutions_px)),
        )
        return Reader(
            len(self.radices),
            [*fuse([(position.genes, position.radices, table) for position, table in tables]), resolution],
        )

    def entry_indices(self, population: Population) -> IntArray:
        """(positions, N): which entry of ``blocks(r)`` stands at each position; ABSENT where none does."""
        return self._entry_reader(population.genes)

    @cached_property
    def _entry_reader(self) -> Reader:
        reads = [(position.genes, position.radices, position.entries) for position in self.positions]
        return Reader(len(self.radices), reads)

    @cached_property
    def _read_by(self) -> FloatArray:
        """(genes, positions): 1 where the position reads the gene; the resolution is read always."""
        reads = np.zeros((len(self.radices), len(self.positions)), dtype=np.float32)
        for column, position in enumerate(self.positions):
            reads[list(position.genes), column] = 1
        reads[-1, :] = 1
        return reads

    def network_blocks(self, architecture: Architecture) -> list[Block]:
        """The Blocks that one Architecture consists of, in order."""
        population = self.encode([architecture])
        blocks = self.blocks(self.resolutions_px[population.genes[-1, 0]])
        return [blocks[index] for index in self.entry_indices(population)[:, 0] if index != ABSENT]

    def network(self, architecture: Architecture) -> Block:
        """The whole network as one Block, named by what it consists of: equal networks have equal keys."""
        blocks = self.network_blocks(architecture)
        return concatenate(network_key(blocks), blocks)

    def keys(self, resolution_px: int) -> list[str]:
        return [block.key for block in self.blocks(resolution_px)]

    # Populations.

    def sample(self, count: int, rng: np.random.Generator, resolutions_px: Iterable[int] | None = None) -> Population:
        """Uniform over the genes."""
        genes = rng.integers(0, self.radices[:, None], size=(len(self.radices), count))
        genes[-1] = rng.choice(self.resolution_indices(resolutions_px), size=count)
        return Population(genes.astype(np.uint8))

    def sample_spread(
        self, count: int, rng: np.random.Generator, resolutions_px: Iterable[int] | None = None
    ) -> Population:
        """From the smallest to the largest: each network leans towards small or large choices by its own chance."""
        lean = rng.uniform(size=count)
        genes = rng.binomial(self.radices[:, None] - 1, lean, size=(len(self.radices), count))
        genes[-1] = rng.choice(self.resolution_indices(resolutions_px), size=count)
        return Population(genes.astype(np.uint8))

    def resolution_indices(self, resolutions_px: Iterable[int] | None) -> IntArray:
        if resolutions_px is None:
            return np.arange(len(self.resolutions_px))
        chosen = list(resolutions_px)
        self.require_resolutions(chosen)
        return np.array([self.resolutions_px.index(resolution) for resolution in chosen])

    # Sums over a Population.

    def pricer(self, figures: FloatArray) -> "Pricer":
        """Sums ``figures`` (resolutions, entries) over Populations."""
        return Pricer(self, figures)

    def macs(self, population: Population) -> FloatArray:
        return self._macs_pricer(population)

    def parameters(self, population: Population) -> FloatArray:
        return self._parameters_pricer(population)

    @cached_property
    def _macs_pricer(self) -> "Pricer":
        return self.pricer(self.figures(lambda block: block.macs))

    @cached_property
    def _parameters_pricer(self) -> "Pricer":
        return self.pricer(self.figures(lambda block: block.parameters))

    def figures(self, figure: Callable[[Block], float]) -> FloatArray:
        """(resolutions, entries): ``figure`` of every Block."""
        return np.array([[figure(block) for block in self.blocks(px)] for px in self.resolutions_px], dtype=np.float64)


class Pricer:
    """Sums a figure of each entry over whole Populations, without a loop over networks.

    ``figures`` is (resolutions, entries). One gather for each position, in pieces that stay in the cache; a small
    Population, whose time would go into calls, by one Reader. Both add in the same order: their sums are equal.
    """

    chunk = 1 << 14
    small = 1 << 11

    def __init__(self, space: Space, figures: FloatArray) -> None:
        self.space = space
        padded = np.concatenate([figures, np.zeros((len(figures), 1))], axis=1)  # ABSENT reads the last column: 0
        per_position = [(position, padded[:, position.entries]) for position in space.positions]
        self._base = sum(
            (table[:, 0] for position, table in per_position if not position.genes), np.zeros(len(figures))
        )
        self._gathers = fuse(
            [(position.genes, position.radices, table) for position, table in per_position if position.genes]
        )
        resolution, resolutions = len(space.radices) - 1, len(figures)
        reads: list[Gather] = [((resolution,), (resolutions,), self._base)]
        reads += [((resolution, *rows), (resolutions, *radices), table) for rows, radices, table in self._gathers]
        self._reader = Reader(len(space.radices), reads)

    def __call__(self, population: Population) -> FloatArray:
        """(N,) sums; NaN where an entry's figure is."""
        if len(population) <= self.small:
            base, *rest = self._reader(population.genes)
            return sum(rest, base)
        total = np.empty(len(population))
        for start in range(0, len(population), self.chunk):
            genes = population.genes[:, start : start + self.chunk]
            resolution = genes[-1]
            uniform = bool((resolution == resolution[0]).all())
            piece = self._base.take(resolution)
            for rows, radices, table in self._gathers:
                code = joint_code(genes, rows, radices)
                if uniform:
                    piece += table[resolution[0]].take(code)
                else:
                    piece += table.ravel().take(resolution * np.uint32(table.shape[1]) + code)
            total[start : start + self.chunk] = piece
        return total

    def cheapest(self, resolutions_px: Iterable[int] | None = None) -> tuple[float, Population]:
        """The smallest sum that there is, and a network that has it; exact, without enumerating the Space."""
        grids = [(rows, table.reshape(len(table), *radices)) for rows, radices, table in self._gathers]
        least, choice = least_sums(grids)
        sums = self._base + least
        at = min(self.space.resolution_indices(resolutions_px), key=lambda index: sums[index])
        genes = np.zeros(len(self.space.radices), dtype=np.uint8)
        genes[-1] = at
        for row, values in choice.items():
            genes[row] = values[at]
        return float(sums[at]), self.space.canonical(Population(genes[:, None]))


def _random_bits(rng: np.random.Generator, shape: int | tuple[int, ...]) -> IntArray:
    return rng.integers(0, np.iinfo(np.uint64).max, size=shape, dtype=np.uint64, endpoint=True)


def network_key(blocks: Sequence[Block]) -> str:
    digest = hashlib.sha256("\n".join(block.key for block in blocks).encode()).hexdigest()
    return f"network:{digest[:16]}"
