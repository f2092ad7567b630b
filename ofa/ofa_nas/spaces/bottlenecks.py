"""Spaces of bottlenecks (He et al., CVPR 2019, figure 2d), elastic in width: ResNet50D of Once-for-All.

A ``BottleneckLayout`` describes the networks as data. An architecture has three gene lists, as published:

``e``   the expand ratio of each block
``d``   the depth of the stem (the largest one: with its middle convolution), and the number of optional blocks of each
        stage
``w``   the index of the width of the two stem convolutions and of each stage
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np

from ofa_agent import keys
from ofa_agent import operators as ops
from ofa_agent.operators import Block, Operator
from ofa_nas.spaces.architecture import Architecture
from ofa_nas.spaces.parts import IMAGE_CHANNELS, classifier, keyed, make_divisible
from ofa_nas.spaces.space import ABSENT, GeneGroup, IntArray, Position, Space

RELU = ops.Activation("relu")
STEM_REDUCTION = 4  # of the image size: a convolution of stride 2, and a pool of stride 2


@dataclass(frozen=True)
class BottleneckStage:
    """A stage of bottlenecks, of which the first has the stride. ``blocks`` is the fewest of them."""

    channels: int
    stride: int
    blocks: int


@dataclass(frozen=True)
class BottleneckLayout:
    """The structure of the networks of a Space. Channels are those of width 1.

    A network starts with a 3×3 convolution of stride 2, a residual 3×3 convolution if the stem depth is the largest of
    ``stem_depths`` and not 0, a 3×3 convolution to ``stem_channels``, and a pool. Each stage has its own number of
    blocks and ``more_blocks`` optional ones.
    """

    stem_channels: int
    stages: tuple[BottleneckStage, ...]
    classes: int
    resolutions_px: tuple[int, ...]
    expand_ratios: tuple[float, ...] = (0.2, 0.25, 0.35)
    widths: tuple[float, ...] = (0.65, 0.8, 1.0)
    more_blocks: tuple[int, ...] = (0, 1, 2)
    stem_depths: tuple[int, ...] = (0, 2)
    batch_norm_epsilon: float = 1e-5


class BottleneckSpace(Space):
    """The networks of a BottleneckLayout."""

    kernel_sizes = (3,)
    others_encoded = ("stem", "w")

    def __init__(self, name: str, layout: BottleneckLayout) -> None:
        self.name = name
        self.layout = layout
        self.expand_ratios = layout.expand_ratios
        self.classes = layout.classes
        self.batch_norm_epsilon = layout.batch_norm_epsilon
        self.stages = (
            "first layers",
            *(f"stage {number}" for number in range(1, len(layout.stages) + 1)),
            "last layers",
        )
        # (stage, index in the stage) of every possible block, in the order of the genes.
        self.places = tuple(
            (at, block)
            for at, stage in enumerate(layout.stages)
            for block in range(stage.blocks + max(layout.more_blocks))
        )
        widths = layout.widths
        self.stem_channels = tuple(make_divisible(layout.stem_channels * width) for width in widths)
        self.stem_mid_channels = tuple(make_divisible(channels // 2) for channels in self.stem_channels)
        self.stage_channels = tuple(
            tuple(make_divisible(stage.channels * width) for width in widths) for stage in layout.stages
        )
        self.groups = (
            GeneGroup("e", layout.expand_ratios, len(self.places)),
            GeneGroup("d", layout.more_blocks, len(layout.stages)),
            GeneGroup("stem", layout.stem_depths, 1),
            GeneGroup("w", tuple(range(len(widths))), 2 + len(layout.stages)),
            GeneGroup("r", layout.resolutions_px, 1),
        )
        self._blocks = lru_cache(maxsize=None)(self._build_blocks)

    def blocks(self, resolution_px: int) -> tuple[Block, ...]:
        return self._blocks(resolution_px)

    def mid_channels(self, out_channels: int, expand_ratio: float) -> int:
        return make_divisible(round(out_channels * expand_ratio))

    def chosen_widths(self, architecture: Architecture) -> tuple[int, int, tuple[int, ...]]:
        """Return the channels inside the stem, after it, and of each stage."""
        inner, outer, *stages = architecture.genes["w"]
        wide = tuple(channels[index] for channels, index in zip(self.stage_channels, stages, strict=True))
        return self.stem_mid_channels[inner], self.stem_channels[outer], wide

    def has_stem_block(self, architecture: Architecture) -> bool:
        return self._has_block(architecture.genes["d"][0])

    def _has_block(self, stem_depth: int) -> bool:
        return bool(0 < stem_depth == max(self.layout.stem_depths))

    def chosen_blocks(self, architecture: Architecture) -> list[tuple[int, int, int]]:
        """Return (index in ``places``, mid channels, channels) of each block of the network, in order."""
        *_, channels = self.chosen_widths(architecture)
        more, expands = architecture.genes["d"][1:], architecture.genes["e"]
        return [
            (at, self.mid_channels(channels[stage], expands[at]), channels[stage])
            for at, (stage, block) in enumerate(self.places)
            if block < self.layout.stages[stage].blocks + more[stage]
        ]

    def _build_blocks(self, resolution_px: int) -> tuple[Block, ...]:
        self.require_resolutions([resolution_px])
        return tuple(_block(part, resolution_px) for part in self._entries.parts)

    def build_positions(self) -> tuple[Position, ...]:
        return tuple(self._entries.positions)

    @cached_property
    def _entries(self) -> "_Entries":
        inner, outer, *stages = (self.first_gene["w"] + at for at in range(2 + len(self.layout.stages)))
        mids, outs, last = self.stem_mid_channels, self.stem_channels, self.stage_channels[-1]
        found = _Entries(self.radices)
        found.add(0, (inner,), lambda w: Part("first", 1, IMAGE_CHANNELS, mids[w]))
        found.add(0, (self.first_gene["stem"], inner), self._stem_part)
        found.add(0, (inner, outer), lambda w, out: Part("convolution", 2, mids[w], outs[out]))
        found.add(0, (outer,), lambda w: Part("max pool", 2, outs[w], outs[w]))
        for at, (stage, block) in enumerate(self.places):
            expand, own = self.first_gene["e"] + at, stages[stage]
            if block == 0:
                before = stages[stage - 1] if stage else outer
                found.add_block(1 + stage, (expand, before, own), partial(self._first_part, stage))
            elif block < self.layout.stages[stage].blocks:
                found.add_block(1 + stage, (expand, own), partial(self._later_part, stage))
            else:
                more = self.first_gene["d"] + stage
                found.add_block(1 + stage, (expand, own, more), partial(self._optional_part, stage, block))
        reduction, end = self._reduction(len(stages)), len(self.stages) - 1
        found.add(end, stages[-1:], lambda w: Part("pool", reduction, last[w], last[w]))
        found.add(end, stages[-1:], lambda w: Part("classifier", reduction, last[w], self.classes))
        return found

    # The part at a position, for the choice indices of its genes.

    def _stem_part(self, stem: int, inner: int) -> "Part | None":
        channels = self.stem_mid_channels[inner]
        return Part("residual", 2, channels, channels) if self._has_block(self.layout.stem_depths[stem]) else None

    def _first_part(self, stage: int, expand: int, before: int, own: int) -> "Part":
        in_channels = self.stage_channels[stage - 1][before] if stage else self.stem_channels[before]
        channels = self.stage_channels[stage][own]
        mid, stride = self.mid_channels(channels, self.expand_ratios[expand]), self.layout.stages[stage].stride
        return Part("bottleneck", self._reduction(stage), in_channels, channels, mid, stride, shortcut=True)

    def _later_part(self, stage: int, expand: int, own: int) -> "Part":
        channels = self.stage_channels[stage][own]
        mid = self.mid_channels(channels, self.expand_ratios[expand])
        return Part("bottleneck", self._reduction(stage + 1), channels, channels, mid)

    def _optional_part(self, stage: int, block: int, expand: int, own: int, more: int) -> "Part | None":
        there = block < self.layout.stages[stage].blocks + self.layout.more_blocks[more]
        return self._later_part(stage, expand, own) if there else None

    def _reduction(self, stages: int) -> int:
        """Return the factor by which the image is smaller after this number of stages."""
        return STEM_REDUCTION * math.prod(stage.stride for stage in self.layout.stages[:stages])

    def genes_of(self, architecture: Architecture) -> list[int]:
        layout = self.layout
        expands = self.gene_of(architecture, "e", len(self.places))
        stem, *more = self.gene_of(architecture, "d", 1 + len(layout.stages))
        widths = self.gene_of(architecture, "w", 2 + len(layout.stages))
        # As published: the stem takes any depth, and only the largest has the stem block.
        depths = {*layout.stem_depths, *layout.more_blocks} if len(layout.stem_depths) > 1 else layout.stem_depths
        self.require_choices((stem,), sorted(depths), "d", [0])
        self.require_choices((stem, *more), layout.more_blocks, "d", range(1, 1 + len(layout.stages)))
        self.require_choices(widths, range(len(layout.widths)), "w", range(len(widths)))
        used = [
            at for at, (stage, block) in enumerate(self.places) if block < layout.stages[stage].blocks + more[stage]
        ]
        self.require_choices(expands, self.expand_ratios, "e", used)
        self.require_resolutions([architecture.resolution_px])
        in_use = set(used)
        return [
            *(self.expand_ratios.index(ratio) if at in in_use else 0 for at, ratio in enumerate(expands)),
            *(layout.more_blocks.index(count) for count in more),
            layout.stem_depths.index(stem) if stem == max(layout.stem_depths) else 0,
            *widths,
            self.resolutions_px.index(architecture.resolution_px),
        ]

    def architecture_of(self, indices: IntArray) -> Architecture:
        layout, blocks, stages = self.layout, len(self.places), len(self.layout.stages)
        expands, more, (stem,), widths, (px,) = np.split(indices, np.cumsum([blocks, stages, 1, 2 + stages]))
        genes = {
            "e": tuple(self.expand_ratios[index] for index in expands),
            "d": (layout.stem_depths[stem], *(layout.more_blocks[index] for index in more)),
            "w": tuple(int(index) for index in widths),
        }
        return Architecture(genes, self.resolutions_px[int(px)])


@dataclass(frozen=True)
class Part:
    """The description of an entry. ``reduction``: the factor by which its input is smaller than the image."""

    kind: str
    reduction: int
    in_channels: int
    out_channels: int
    mid_channels: int = 0
    stride: int = 1
    shortcut: bool = False  # with a convolution in the shortcut


class _Entries:
    """Collects positions and their parts. A part that several choices select is stored once."""

    def __init__(self, radices: IntArray) -> None:
        self._radices = radices
        self._entry_of: dict[Part, int] = {}
        self.positions: list[Position] = []

    @property
    def parts(self) -> list[Part]:
        return list(self._entry_of)

    def add(self, stage: int, genes: Sequence[int], part_of: Callable[..., Part | None]) -> None:
        nowhere = np.full(int(np.prod(self._radices[list(genes)])), ABSENT)
        self._add(stage, genes, part_of, lambda entries, codes: (nowhere, nowhere))

    def add_block(self, stage: int, genes: Sequence[int], part_of: Callable[..., Part | None]) -> None:
        """Add the position of a block. The first of ``genes`` is the expand ratio; there is one kernel size."""
        self._add(
            stage,
            genes,
            part_of,
            lambda entries, codes: (
                np.where(entries == ABSENT, ABSENT, 0),
                np.where(entries == ABSENT, ABSENT, codes[:, 0]),
            ),
        )

    def _add(
        self,
        stage: int,
        genes: Sequence[int],
        part_of: Callable[..., Part | None],
        choices_of: Callable[[IntArray, IntArray], tuple[IntArray, IntArray]],
    ) -> None:
        radices = tuple(int(self._radices[gene]) for gene in genes)
        codes = np.array(list(np.ndindex(*radices)))
        parts = [part_of(*code) for code in codes]
        entries = np.array(
            [ABSENT if part is None else self._entry_of.setdefault(part, len(self._entry_of)) for part in parts]
        )
        self.positions.append(Position(stage, tuple(genes), radices, entries, *choices_of(entries, codes)))


def _block(part: Part, resolution_px: int) -> Block:
    px = (resolution_px - 1) // part.reduction + 1
    shape = (part.in_channels, px, px)
    if part.kind == "first":
        return keyed(shape, (ops.Conv(part.in_channels, part.out_channels, 3, 2), RELU), keys.first_conv_key)
    if part.kind == "residual":
        added = (ops.Conv(part.in_channels, part.out_channels, 3), RELU, ops.Add(0))
        return keyed(shape, added, keys.residual_conv_key)
    if part.kind == "convolution":
        return keyed(shape, (ops.Conv(part.in_channels, part.out_channels, 3), RELU), keys.first_conv_key)
    if part.kind == "max pool":
        return keyed(shape, (ops.MaxPool(3, 2),), keys.max_pool_key)
    if part.kind == "pool":
        return keyed(shape, (ops.Pool(),), keys.pool_key)
    if part.kind == "classifier":
        return classifier((part.in_channels, 1, 1), part.out_channels)
    operators = bottleneck(part)
    output = ops.shapes(operators, shape)[-1]
    return Block(
        keys.bottleneck_key(shape, output, part.mid_channels, part.stride, part.shortcut), shape, tuple(operators)
    )


def bottleneck(part: Part) -> list[Operator]:
    """Return the operators of a bottleneck: 1×1, 3×3 with the stride, and 1×1 convolutions.

    The result is added to the input or, with a shortcut, to a 1×1 convolution of the average-pooled input.
    """
    inner: list[Operator] = [ops.Conv(part.in_channels, part.mid_channels, 1), RELU]
    inner += [ops.Conv(part.mid_channels, part.mid_channels, 3, part.stride), RELU]
    inner += [ops.Conv(part.mid_channels, part.out_channels, 1)]
    if not part.shortcut:
        return [*inner, ops.Add(0), RELU]
    averaged = [ops.AvgPool(part.stride)] if part.stride > 1 else []
    return [*inner, ops.Take(0), *averaged, ops.Conv(part.in_channels, part.out_channels, 1), ops.Add(len(inner)), RELU]
