"""An outline of a space: its stages, its size, and the ranges of MACs and parameters."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa_agent.operators import Shape
from ofa_nas.spaces.space import ABSENT, FloatArray, Population, Position, Space


@dataclass(frozen=True)
class StageOutline:
    """One stage. ``output`` and ``macs`` are those of the largest network at the largest resolution.

    ``choices`` are the values of each of the space's ``choice_names`` that occur in the stage, as text.
    """

    name: str
    fewest_blocks: int
    most_blocks: int
    choices: tuple[tuple[str, ...], ...]
    output: Shape
    macs: int


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value of a network."""

    smallest: float
    largest: float


@dataclass(frozen=True)
class Outline:
    """``networks`` and ``entries`` are counts at one resolution; the MACs and parameters are by resolution in px."""

    stages: tuple[StageOutline, ...]
    networks: float
    entries: int
    macs: dict[int, Range]
    parameters: dict[int, Range]


def outline_of(space: Space) -> Outline:
    largest_px = max(space.resolutions_px)
    return Outline(
        _stages(space, largest_px),
        count_networks(space),
        len(space.keys(largest_px)),
        _ranges(space, space.figures(lambda block: block.macs)),
        _ranges(space, space.figures(lambda block: block.parameters)),
    )


def count_networks(space: Space) -> float:
    """Return the number of different networks at one resolution.

    Positions that read the same genes are counted together, for each choice of the genes that others read, too. The
    product of these counts is summed over the shared genes.
    """
    by_rows: dict[tuple[int, ...], list[Position]] = {}
    for position in space.positions:
        by_rows.setdefault(position.genes, []).append(position)
    readers = Counter(row for rows in by_rows for row in rows)
    names = {row: number for number, row in enumerate(row for row in sorted(readers) if readers[row] > 1)}
    factors: list[object] = []
    for rows, positions in by_rows.items():
        shared = [row for row in rows if row in names]
        factors += [_counts(rows, positions, shared), [names[row] for row in shared]]
    return float(np.einsum(*factors, [], optimize="greedy"))  # type: ignore[call-overload]


def _counts(rows: tuple[int, ...], positions: Sequence[Position], shared: Sequence[int]) -> FloatArray:
    """Return, for each choice of the shared genes, the number of different combinations of entries."""
    codes = list(np.ndindex(*positions[0].radices))
    radices = dict(zip(rows, positions[0].radices, strict=True))
    found: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for at, code in enumerate(codes):
        value = dict(zip(rows, code, strict=True))
        entries = tuple(int(position.entries[at]) for position in positions)
        found.setdefault(tuple(value[row] for row in shared), set()).add(entries)
    counts = np.zeros([radices[row] for row in shared])
    for choice, combinations in found.items():
        counts[choice] = len(combinations)
    return counts


def _stages(space: Space, px: int) -> tuple[StageOutline, ...]:
    genes = (space.radices - 1).astype(np.uint8)
    genes[-1] = space.resolutions_px.index(px)
    entries = space.entry_indices(Population(genes[:, None]))[:, 0]
    blocks, found = space.blocks(px), []
    for at, name in enumerate(space.stages):
        own = [number for number, position in enumerate(space.positions) if position.stage == at]
        standing = [blocks[entries[number]] for number in own if entries[number] != ABSENT]
        positions = [space.positions[number] for number in own]
        found.append(
            StageOutline(
                name,
                sum(bool((position.entries != ABSENT).all()) for position in positions),
                len(positions),
                _choices(space, positions),
                standing[-1].output_shape,
                sum(block.macs for block in standing),
            )
        )
    return tuple(found)


def _choices(space: Space, positions: Sequence[Position]) -> tuple[tuple[str, ...], ...]:
    of_each = [
        choices
        for position in positions
        if position.genes
        for code in range(len(position.entries))
        if (choices := space.choices_of(position, code))
    ]
    return tuple(tuple(map(str, dict.fromkeys(sorted(values)))) for values in zip(*of_each, strict=True))


def _ranges(space: Space, figures: FloatArray) -> dict[int, Range]:
    small, large = space.pricer(figures), space.pricer(-figures)
    return {px: Range(small.cheapest([px])[0], -large.cheapest([px])[0]) for px in space.resolutions_px}
