"""Base class of spaces: genes, and the blocks that they select.

A concrete Space defines its genes, the Blocks at each resolution (its entries), and the genes that select the entry at
each position of a network. The base class derives the rest: Populations, entry indices, sums over a Population
(latency, MACs, parameters), minima, and encodings.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ofa_agent.operators import Block, concatenate
from ofa_nas.spaces.architecture import Architecture, is_number, short
from ofa_nas.spaces.elimination import least_sums
from ofa_nas.spaces.gathers import Gather, fuse, joint_code
from ofa_nas.spaces.genes import ABSENT, FloatArray, GeneGroup, IntArray, Population, Position
from ofa_nas.spaces.reader import Reader
from ofa_tables.errors import UsageError

__all__ = ["ABSENT", "FloatArray", "GeneGroup", "IntArray", "Population", "Position", "Pricer", "Space", "network_key"]


class Space:
    """Base of all Spaces. The last gene is always the resolution."""

    name: str
    # The file that it was read from, as given to --space; empty for a space that its name finds.
    source: str = ""
    stages: tuple[str, ...]
    groups: tuple[GeneGroup, ...]
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...] | tuple[float, ...]
    # Set if the expand ratio of a stage is tied to its depth.
    expand_by_depth: Mapping[int, int] | None = None
    # Groups that the kernels and expands of the Positions do not cover.
    others_encoded: tuple[str, ...] = ()
    # Gene lists that follow from the others; an Architecture may omit them when it is read.
    derived: tuple[str, ...] = ()
    # Whether groups with the same number of genes are choices of the same blocks: the kernel size and the expand ratio.
    groups_share_blocks: bool = True
    # What a block is chosen by; see ``choices_of``.
    choice_names: tuple[str, ...] = ("kernel sizes", "expand ratios")
    classes: int
    batch_norm_epsilon: float

    def blocks(self, resolution_px: int) -> tuple[Block, ...]:
        """Return the entries at one resolution, always in the same order."""
        raise NotImplementedError

    def build_positions(self) -> tuple[Position, ...]:
        raise NotImplementedError

    def genes_of(self, architecture: Architecture) -> list[int]:
        """Return the choice indices of one Architecture. Raises UsageError, which names the invalid gene."""
        raise NotImplementedError

    def architecture_of(self, indices: IntArray) -> Architecture:
        raise NotImplementedError

    def choices_of(self, position: Position, code: int) -> tuple[Any, ...]:
        """Return the choices at a position, one for each of ``choice_names``; empty for an absent block."""
        if position.kernels[code] == ABSENT:
            return ()
        return self.kernel_sizes[position.kernels[code]], self.expand_ratios[position.expands[code]]

    # Derived from the definitions above.

    @property
    def given_as(self) -> str:
        """What ``--space`` takes: the file of the space, or its name."""
        return self.source or self.name

    @cached_property
    def positions(self) -> tuple[Position, ...]:
        return self.build_positions()

    @cached_property
    def resolutions_px(self) -> tuple[int, ...]:
        return tuple(int(px) for px in self.groups[-1].choices)

    @cached_property
    def radices(self) -> IntArray:
        """The number of choices of each gene."""
        return np.array([len(group.choices) for group in self.groups for _ in range(group.count)], dtype=np.int64)

    @cached_property
    def first_gene(self) -> Mapping[str, int]:
        """The first row of each group."""
        starts, row = {}, 0
        for group in self.groups:
            starts[group.name] = row
            row += group.count
        return starts

    def resembling(self, keys: Collection[str], resolution_px: int) -> str:
        """Describe the space, of this or another family, that has most of these keys; empty if there is none."""
        from ofa_nas.spaces.resembling import resembling  # imports every space

        return resembling(keys, resolution_px)

    def require_resolutions(self, resolutions_px: Iterable[int]) -> None:
        for resolution in resolutions_px:
            if resolution not in self.resolutions_px:
                near = sorted(sorted(self.resolutions_px, key=lambda known: abs(known - resolution))[:2])
                raise UsageError(
                    f"{self.name} has no resolution {resolution}; the nearest are {near[0]} and {near[-1]}"
                )

    def gene_of(self, architecture: Architecture, name: str, count: int) -> tuple[Any, ...]:
        """Return the values of a gene list. Raises UsageError if it does not have ``count`` values."""
        values = architecture.genes.get(name)
        if values is None or len(values) != count:
            found = "none" if values is None else str(len(values))
            raise UsageError(
                f"an architecture of {self.name} needs {count} entries in '{name}', this one has {found}; one number "
                f"stands for equal entries, as in {self.example}"
            )
        return values

    def complete(self, genes: Mapping[str, Any]) -> dict[str, Any]:
        """Repeat single numbers to full gene lists, and add the lists that the space derives from others."""
        lengths = self.gene_lengths
        for name, value in genes.items():
            if name in lengths and isinstance(value, str):
                raise UsageError(f"'{name}' is the text {short(value)!r}; use numbers without quotes: {self.example}")
        return {
            name: self.repeated(name, value) if name in lengths and is_number(value) else value
            for name, value in genes.items()
        }

    def repeated(self, name: str, value: float) -> list[float]:
        return [value] * self.gene_lengths[name]

    @cached_property
    def gene_lengths(self) -> Mapping[str, int]:
        """The length of each gene list of an Architecture."""
        smallest = self.architecture_of(np.zeros(len(self.radices), dtype=np.uint8))
        return {name: len(values) for name, values in smallest.genes.items()}

    @cached_property
    def example(self) -> str:
        """The largest Architecture in its shortest form, as JSON for messages."""
        largest = self.architecture_of(self.radices - 1)
        shortest = {
            name: max(values) if self.repeated(name, max(values)) == list(values) else list(values)
            for name, values in largest.genes.items()
            if name not in self.derived
        }
        return json.dumps({**shortest, "r": largest.resolution_px})

    def require_choices(self, values: Sequence[Any], choices: Sequence[Any], name: str, used: Iterable[int]) -> None:
        """Raise UsageError if a value at an index in ``used`` is not one of ``choices``."""
        for at in used:
            if values[at] not in choices:
                allowed = ", ".join(map(str, choices))
                raise UsageError(f"'{name}'[{at}] is {values[at]} in the architecture; {self.name} allows {allowed}")

    def encode(self, architectures: Sequence[Architecture]) -> Population:
        """Convert Architectures to a Population. Genes of absent blocks become choice 0. Raises UsageError."""
        columns = [self.genes_of(architecture) for architecture in architectures]
        return self.canonical(
            Population(np.array(columns, dtype=np.uint8).reshape(len(columns), len(self.radices)).T.copy())
        )

    def decode(self, population: Population) -> list[Architecture]:
        return [self.architecture_of(column) for column in population.genes.T]

    def canonical(self, population: Population) -> Population:
        """Set every unused gene to choice 0, so that equal networks have equal genes."""
        present = (self.entry_indices(population) != ABSENT).astype(np.float32)
        used = self._read_by @ present > 0
        return Population(np.where(used, population.genes, 0).astype(np.uint8))

    def digests(self, population: Population) -> IntArray:
        """Return (N,) uint64 digests, equal for equal networks. About one in 10¹⁹ pairs of other networks collides."""
        digests: IntArray = self._digest_reader(population.genes).sum(axis=0, dtype=np.uint64)
        return digests

    @cached_property
    def _digest_reader(self) -> Reader:
        """Reads a random number for each code of each position, 0 for an absent block. The sum identifies a network."""
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
        """Return (positions, N) indices into ``blocks(r)`` of the entry at each position, or ABSENT."""
        return self._entry_reader(population.genes)

    @cached_property
    def _entry_reader(self) -> Reader:
        reads = [(position.genes, position.radices, position.entries) for position in self.positions]
        return Reader(len(self.radices), reads)

    @cached_property
    def _read_by(self) -> FloatArray:
        """(genes, positions): 1 if the position reads the gene. Every position reads the resolution."""
        reads = np.zeros((len(self.radices), len(self.positions)), dtype=np.float32)
        for column, position in enumerate(self.positions):
            reads[list(position.genes), column] = 1
        reads[-1, :] = 1
        return reads

    def network_blocks(self, architecture: Architecture) -> list[Block]:
        """Return the Blocks of one Architecture, in order."""
        population = self.encode([architecture])
        blocks = self.blocks(self.resolutions_px[population.genes[-1, 0]])
        return [blocks[index] for index in self.entry_indices(population)[:, 0] if index != ABSENT]

    def network(self, architecture: Architecture) -> Block:
        """Return the whole network as one Block. The key is a digest of its Blocks: equal networks have equal keys."""
        blocks = self.network_blocks(architecture)
        return concatenate(network_key(blocks), blocks)

    def keys(self, resolution_px: int) -> list[str]:
        return [block.key for block in self.blocks(resolution_px)]

    # Populations.

    def sample(self, count: int, rng: np.random.Generator, resolutions_px: Iterable[int] | None = None) -> Population:
        """Draw networks uniformly over the genes."""
        genes = rng.integers(0, self.radices[:, None], size=(len(self.radices), count))
        genes[-1] = rng.choice(self.resolution_indices(resolutions_px), size=count)
        return Population(genes.astype(np.uint8))

    def sample_spread(
        self, count: int, rng: np.random.Generator, resolutions_px: Iterable[int] | None = None
    ) -> Population:
        """Draw networks from the smallest to the largest. Each has a random bias towards small or large choices."""
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
        """Return a Pricer that sums ``figures`` (resolutions, entries) over Populations."""
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
        """Return (resolutions, entries) values of ``figure`` for every Block."""
        return np.array([[figure(block) for block in self.blocks(px)] for px in self.resolutions_px], dtype=np.float64)


class Pricer:
    """Sums a value of each entry over a whole Population, without a loop over networks.

    ``figures`` is (resolutions, entries). A large Population takes one gather per position, in pieces that fit in the
    CPU cache. A small Population takes one Reader, because call overhead would dominate. Both add in the same order, so
    their sums are equal.
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
        """Return (N,) sums. A sum is NaN if the value of an entry is NaN."""
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
        """Return the exact minimum of the sum, and a network that has it, without enumerating the Space."""
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
