"""The ResNet50D Space of Once-for-All: four stages of bottlenecks (He et al., CVPR 2019, figure 2d), elastic in width.

A published architecture has three gene lists:

``e``   the expand ratio of each of 18 blocks
``d``   the depth of the stem (2: with its middle convolution), and the number of optional blocks of each stage
``w``   the index of the width, out of three, of the two stem convolutions and of the four stages
"""

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

STEM_CHANNELS, STAGE_CHANNELS = 64, (256, 512, 1024, 2048)
STRIDES = (1, 2, 2, 2)
FEWEST_BLOCKS = (2, 2, 4, 2)
MORE_BLOCKS = (0, 1, 2)
EXPAND_RATIOS = (0.2, 0.25, 0.35)
WIDTHS = (0.65, 0.8, 1.0)
STEM_DEPTHS = (0, 2)
CLASSES = 1000
RELU = ops.Activation("relu")


class ResNet50DSpace(Space):
    name = "ofa-resnet50d"
    stages = ("first layers", "stage 1", "stage 2", "stage 3", "stage 4", "last layers")
    kernel_sizes = (3,)
    expand_ratios = EXPAND_RATIOS
    others_encoded = ("stem", "w")
    batch_norm_epsilon = 1e-5
    classes = CLASSES

    def __init__(self) -> None:
        # (stage, index in the stage) of every possible block, in the order of the genes.
        self.places = tuple(
            (stage, block) for stage, fewest in enumerate(FEWEST_BLOCKS) for block in range(fewest + max(MORE_BLOCKS))
        )
        self.stem_channels = tuple(make_divisible(STEM_CHANNELS * width) for width in WIDTHS)
        self.stem_mid_channels = tuple(make_divisible(channels // 2) for channels in self.stem_channels)
        self.stage_channels = tuple(
            tuple(make_divisible(channels * width) for width in WIDTHS) for channels in STAGE_CHANNELS
        )
        self.groups = (
            GeneGroup("e", EXPAND_RATIOS, len(self.places)),
            GeneGroup("d", MORE_BLOCKS, len(STAGE_CHANNELS)),
            GeneGroup("stem", STEM_DEPTHS, 1),
            GeneGroup("w", tuple(range(len(WIDTHS))), 2 + len(STAGE_CHANNELS)),
            GeneGroup("r", tuple(range(128, 225, 4)), 1),
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
        return bool(architecture.genes["d"][0] == max(STEM_DEPTHS))

    def chosen_blocks(self, architecture: Architecture) -> list[tuple[int, int, int]]:
        """Return (index in ``places``, mid channels, channels) of each block of the network, in order."""
        *_, channels = self.chosen_widths(architecture)
        more, expands = architecture.genes["d"][1:], architecture.genes["e"]
        return [
            (at, self.mid_channels(channels[stage], expands[at]), channels[stage])
            for at, (stage, block) in enumerate(self.places)
            if block < FEWEST_BLOCKS[stage] + more[stage]
        ]

    def _build_blocks(self, resolution_px: int) -> tuple[Block, ...]:
        self.require_resolutions([resolution_px])
        return tuple(_block(part, resolution_px) for part in self._entries.parts)

    def build_positions(self) -> tuple[Position, ...]:
        return tuple(self._entries.positions)

    @cached_property
    def _entries(self) -> "_Entries":
        inner, outer, *stages = (self.first_gene["w"] + at for at in range(2 + len(STAGE_CHANNELS)))
        mids, outs, last = self.stem_mid_channels, self.stem_channels, self.stage_channels[-1]
        found = _Entries(self.radices)
        found.add(0, (inner,), lambda w: Part("first", 0, IMAGE_CHANNELS, mids[w]))
        found.add(0, (self.first_gene["stem"], inner), self._stem_part)
        found.add(0, (inner, outer), lambda w, out: Part("convolution", 1, mids[w], outs[out]))
        found.add(0, (outer,), lambda w: Part("max pool", 1, outs[w], outs[w]))
        for at, (stage, block) in enumerate(self.places):
            expand, own = self.first_gene["e"] + at, stages[stage]
            if block == 0:
                before = stages[stage - 1] if stage else outer
                found.add_block(1 + stage, (expand, before, own), partial(self._first_part, stage))
            elif block < FEWEST_BLOCKS[stage]:
                found.add_block(1 + stage, (expand, own), partial(self._later_part, stage))
            else:
                more = self.first_gene["d"] + stage
                found.add_block(1 + stage, (expand, own, more), partial(self._optional_part, stage, block))
        level, end = 1 + len(STAGE_CHANNELS), len(self.stages) - 1
        found.add(end, stages[-1:], lambda w: Part("pool", level, last[w], last[w]))
        found.add(end, stages[-1:], lambda w: Part("classifier", level, last[w], CLASSES))
        return found

    # The part at a position, for the choice indices of its genes.

    def _stem_part(self, stem: int, inner: int) -> "Part | None":
        channels = self.stem_mid_channels[inner]
        return Part("residual", 1, channels, channels) if STEM_DEPTHS[stem] == max(STEM_DEPTHS) else None

    def _first_part(self, stage: int, expand: int, before: int, own: int) -> "Part":
        in_channels = self.stage_channels[stage - 1][before] if stage else self.stem_channels[before]
        channels = self.stage_channels[stage][own]
        mid = self.mid_channels(channels, EXPAND_RATIOS[expand])
        return Part("bottleneck", 2 + max(0, stage - 1), in_channels, channels, mid, STRIDES[stage], shortcut=True)

    def _later_part(self, stage: int, expand: int, own: int) -> "Part":
        channels = self.stage_channels[stage][own]
        return Part("bottleneck", 2 + stage, channels, channels, self.mid_channels(channels, EXPAND_RATIOS[expand]))

    def _optional_part(self, stage: int, block: int, expand: int, own: int, more: int) -> "Part | None":
        there = block < FEWEST_BLOCKS[stage] + MORE_BLOCKS[more]
        return self._later_part(stage, expand, own) if there else None

    def genes_of(self, architecture: Architecture) -> list[int]:
        expands = self.gene_of(architecture, "e", len(self.places))
        stem, *more = self.gene_of(architecture, "d", 1 + len(STAGE_CHANNELS))
        widths = self.gene_of(architecture, "w", 2 + len(STAGE_CHANNELS))
        self.require_choices((stem, *more), MORE_BLOCKS, "d", range(1 + len(STAGE_CHANNELS)))
        self.require_choices(widths, range(len(WIDTHS)), "w", range(len(widths)))
        used = [at for at, (stage, block) in enumerate(self.places) if block < FEWEST_BLOCKS[stage] + more[stage]]
        self.require_choices(expands, EXPAND_RATIOS, "e", used)
        self.require_resolutions([architecture.resolution_px])
        in_use = set(used)
        return [
            *(EXPAND_RATIOS.index(ratio) if at in in_use else 0 for at, ratio in enumerate(expands)),
            *more,
            int(stem == max(STEM_DEPTHS)),  # as published: only the largest depth has the stem block
            *widths,
            self.resolutions_px.index(architecture.resolution_px),
        ]

    def architecture_of(self, indices: IntArray) -> Architecture:
        blocks, stages = len(self.places), len(STAGE_CHANNELS)
        expands, more, (stem,), widths, (px,) = np.split(indices, np.cumsum([blocks, stages, 1, 2 + stages]))
        genes = {
            "e": tuple(EXPAND_RATIOS[index] for index in expands),
            "d": (STEM_DEPTHS[stem], *(MORE_BLOCKS[index] for index in more)),
            "w": tuple(int(index) for index in widths),
        }
        return Architecture(genes, self.resolutions_px[int(px)])


@dataclass(frozen=True)
class Part:
    """The description of an entry. ``level``: how often the image size was halved before it."""

    kind: str
    level: int
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
    px = resolution_px
    for _ in range(part.level):
        px = (px - 1) // 2 + 1
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
    return Block(keys.bottleneck_key(shape, output, part.mid_channels, part.stride), shape, tuple(operators))


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


OFA_RESNET50D = ResNet50DSpace()
