"""The MobileNetV3 Spaces of Once-for-All (Cai et al., ICLR 2020): five stages of two to four inverted residuals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ofa_agent import operators as ops
from ofa_agent.operators import Block, Operator, Shape
from ofa_nas.spaces.architecture import Architecture
from ofa_nas.spaces.space import ABSENT, GeneGroup, IntArray, Position, Space
from ofa_tables.errors import UsageError

KERNEL_SIZES = (3, 5, 7)
EXPAND_RATIOS = (3, 4, 6)
DEPTHS = (2, 3, 4)
RESOLUTIONS_PX = tuple(range(128, 225, 4))
CLASSES = 1000
MAX_DEPTH = max(DEPTHS)


@dataclass(frozen=True)
class Stage:
    channels: int  # at width multiplier 1.0
    stride: int
    activation: str
    squeeze_excite: bool


FIRST_CHANNELS = 16
STAGES = (
    Stage(24, 2, "relu", False),
    Stage(40, 2, "relu", True),
    Stage(80, 2, "hard_swish", False),
    Stage(112, 1, "hard_swish", True),
    Stage(160, 2, "hard_swish", True),
)
FINAL_EXPAND_CHANNELS = 960
FEATURE_MIX_CHANNELS = 1280


class MobileNetV3Space(Space):
    """A MobileNetV3 Space.

    ``kernel_by_stage`` fixes the kernel sizes, ``expand_by_depth`` the expand ratios; where absent they are genes.
    """

    kernel_sizes = KERNEL_SIZES
    expand_ratios = EXPAND_RATIOS
    stages = ("first layers", *(f"stage {number}" for number in range(1, len(STAGES) + 1)), "last layers")

    def __init__(
        self,
        name: str,
        width_mult: float,
        kernel_by_stage: tuple[int, ...] | None = None,
        expand_by_depth: Mapping[int, int] | None = None,
    ) -> None:
        self.name = name
        self.width_mult = width_mult
        self.kernel_by_stage = kernel_by_stage
        self.expand_by_depth = expand_by_depth
        blocks = MAX_DEPTH * len(STAGES)
        groups = [GeneGroup("d", DEPTHS, len(STAGES)), GeneGroup("r", RESOLUTIONS_PX, 1)]
        if expand_by_depth is None:
            groups.insert(0, GeneGroup("e", EXPAND_RATIOS, blocks))
        if kernel_by_stage is None:
            groups.insert(0, GeneGroup("ks", KERNEL_SIZES, blocks))
        self.groups = tuple(groups)
        self._blocks = lru_cache(maxsize=None)(self._build_blocks)
        self._labels = self._entry_labels()

    def blocks(self, resolution_px: int) -> tuple[Block, ...]:
        return self._blocks(resolution_px)

    def _entry_labels(self) -> list[tuple[int, bool, int, int]]:
        """(stage, first of its stage, kernel size, expand ratio) of every inverted-residual entry."""
        return [
            (stage, first, kernel, expand)
            for stage in range(len(STAGES))
            for first in (True, False)
            for kernel in self._kernels(stage)
            for expand in EXPAND_RATIOS
        ]

    def _kernels(self, stage: int) -> tuple[int, ...]:
        return KERNEL_SIZES if self.kernel_by_stage is None else (self.kernel_by_stage[stage],)

    def _build_blocks(self, resolution_px: int) -> tuple[Block, ...]:
        """Head, inverted residuals in the order of their labels, tail."""
        self.require_resolutions([resolution_px])
        first = make_divisible(FIRST_CHANNELS * self.width_mult)
        head = [_first_conv(resolution_px, first)]
        head.append(_inverted_residual(head[0].output_shape, first, 3, 1, 1, "relu", False))
        inputs = [head[1].output_shape]
        outputs = []
        for stage in STAGES:
            channels = make_divisible(stage.channels * self.width_mult)
            probe = _inverted_residual(inputs[-1], channels, 3, 3, stage.stride, stage.activation, stage.squeeze_excite)
            outputs.append(probe.output_shape)
            inputs.append(probe.output_shape)
        middle = []
        for index, is_first, kernel, expand in self._labels:
            stage = STAGES[index]
            source = inputs[index] if is_first else outputs[index]
            stride = stage.stride if is_first else 1
            middle.append(
                _inverted_residual(
                    source, outputs[index][0], kernel, expand, stride, stage.activation, stage.squeeze_excite
                )
            )
        tail = _tail(
            outputs[-1],
            make_divisible(FINAL_EXPAND_CHANNELS * self.width_mult),
            make_divisible(FEATURE_MIX_CHANNELS * self.width_mult),
        )
        return (*head, *middle, *tail)

    def build_positions(self) -> tuple[Position, ...]:
        head, tail = 2, 4
        entry_of = {label: head + index for index, label in enumerate(self._labels)}
        positions = [_fixed(0, index) for index in range(head)]
        for stage in range(len(STAGES)):
            positions += [self._position(stage, block, entry_of) for block in range(MAX_DEPTH)]
        last = len(self.stages) - 1
        return (*positions, *(_fixed(last, head + len(self._labels) + index) for index in range(tail)))

    def _position(self, stage: int, block: int, entry_of: Mapping[tuple[int, bool, int, int], int]) -> Position:
        at = stage * MAX_DEPTH + block
        rows: dict[str, int] = {}
        if self.kernel_by_stage is None:
            rows["ks"] = self.first_gene["ks"] + at
        if self.expand_by_depth is None:
            rows["e"] = self.first_gene["e"] + at
        if self.expand_by_depth is not None or block >= min(DEPTHS):  # a stage's first blocks are always there
            rows["d"] = self.first_gene["d"] + stage
        choices = {"ks": KERNEL_SIZES, "e": EXPAND_RATIOS, "d": DEPTHS}
        radices = tuple(len(choices[name]) for name in rows)
        entries, kernels, expands = [], [], []
        for code in np.ndindex(*radices):
            values = {name: choices[name][index] for name, index in zip(rows, code, strict=True)}
            depth = values.get("d", MAX_DEPTH)
            kernel = values["ks"] if "ks" in values else self._kernels(stage)[0]
            expand = values["e"] if self.expand_by_depth is None else self.expand_by_depth[depth]
            present = block < depth
            entries.append(entry_of[stage, block == 0, kernel, expand] if present else ABSENT)
            kernels.append(KERNEL_SIZES.index(kernel) if present else ABSENT)
            expands.append(EXPAND_RATIOS.index(expand) if present else ABSENT)
        return Position(
            1 + stage, tuple(rows.values()), radices, np.array(entries), np.array(kernels), np.array(expands)
        )

    def genes_of(self, architecture: Architecture) -> list[int]:
        blocks = MAX_DEPTH * len(STAGES)
        depths = self._gene(architecture, "d", len(STAGES))
        kernels = self._gene(architecture, "ks", blocks)
        expands = self._gene(architecture, "e", blocks)
        self._check(depths, DEPTHS, "d", range(len(STAGES)))
        used = [at for at in range(blocks) if at % MAX_DEPTH < depths[at // MAX_DEPTH]]
        self._check(kernels, KERNEL_SIZES, "ks", used)
        self._check(expands, EXPAND_RATIOS, "e", used)
        self.require_resolutions([architecture.resolution_px])
        self._check_tied(kernels, expands, depths, used)
        indices: list[int] = []
        in_use = set(used)
        if self.kernel_by_stage is None:
            indices += [KERNEL_SIZES.index(kernels[at]) if at in in_use else 0 for at in range(blocks)]
        if self.expand_by_depth is None:
            indices += [EXPAND_RATIOS.index(expands[at]) if at in in_use else 0 for at in range(blocks)]
        return [*indices, *map(DEPTHS.index, depths), RESOLUTIONS_PX.index(architecture.resolution_px)]

    def architecture_of(self, indices: IntArray) -> Architecture:
        blocks = MAX_DEPTH * len(STAGES)
        depths = [DEPTHS[index] for index in self._rows(indices, "d", len(STAGES))]
        if self.kernel_by_stage is None:
            kernels = [KERNEL_SIZES[index] for index in self._rows(indices, "ks", blocks)]
        else:
            kernels = [self.kernel_by_stage[at // MAX_DEPTH] for at in range(blocks)]
        if self.expand_by_depth is None:
            expands = [EXPAND_RATIOS[index] for index in self._rows(indices, "e", blocks)]
        else:
            expands = [self.expand_by_depth[depths[at // MAX_DEPTH]] for at in range(blocks)]
        genes = {"ks": tuple(kernels), "e": tuple(expands), "d": tuple(depths)}
        return Architecture(genes, RESOLUTIONS_PX[int(indices[-1])])

    def _rows(self, indices: IntArray, group: str, count: int) -> list[int]:
        start = self.first_gene[group]
        return [int(index) for index in indices[start : start + count]]

    def _gene(self, architecture: Architecture, name: str, count: int) -> tuple[int, ...]:
        values = architecture.genes.get(name)
        if values is None or len(values) != count:
            found = "none" if values is None else str(len(values))
            raise UsageError(f"an architecture of {self.name} needs {count} entries in '{name}', this one has {found}")
        return values

    def _check(self, values: tuple[int, ...], choices: tuple[int, ...], name: str, used: "range | list[int]") -> None:
        for at in used:
            if values[at] not in choices:
                allowed = ", ".join(map(str, choices))
                raise UsageError(f"'{name}'[{at}] is {values[at]} in the architecture; {self.name} allows {allowed}")

    def _check_tied(
        self, kernels: tuple[int, ...], expands: tuple[int, ...], depths: tuple[int, ...], used: list[int]
    ) -> None:
        for at in used:
            stage = at // MAX_DEPTH
            if self.kernel_by_stage is not None and kernels[at] != self.kernel_by_stage[stage]:
                raise UsageError(
                    f"'ks'[{at}] is {kernels[at]}; {self.name} has {self.kernel_by_stage[stage]} in stage {stage + 1}"
                )
            if self.expand_by_depth is not None and expands[at] != self.expand_by_depth[depths[stage]]:
                tied = self.expand_by_depth[depths[stage]]
                raise UsageError(
                    f"'e'[{at}] is {expands[at]}; {self.name} has {tied} in a stage of depth {depths[stage]}"
                )


def make_divisible(value: float, divisor: int = 8) -> int:
    """Rounded to a multiple of ``divisor``, half up, never below 0.9 of the value (MobileNetV2's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def inverted_residual(
    in_channels: int,
    mid_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    activation: str,
    squeeze: ops.SqueezeExcite | None,
) -> list[Operator]:
    """1×1 to ``mid_channels`` where these are more, depthwise, squeeze-excite, 1×1; added to its input where that fits
    (Sandler et al., CVPR 2018)."""
    act = ops.Activation(activation)
    operators: list[Operator] = []
    if mid_channels != in_channels:
        operators += [ops.Conv(in_channels, mid_channels, 1), act]
    operators += [ops.Conv(mid_channels, mid_channels, kernel_size, stride=stride, groups=mid_channels), act]
    if squeeze is not None:
        operators.append(squeeze)
    operators.append(ops.Conv(mid_channels, out_channels, 1))
    if stride == 1 and in_channels == out_channels:
        operators.append(ops.Add(0))
    return operators


def _fixed(stage: int, entry: int) -> Position:
    none = np.array([ABSENT])
    return Position(stage, (), (), np.array([entry]), none, none)


def _first_conv(resolution_px: int, channels: int) -> Block:
    operators = (ops.Conv(3, channels, 3, stride=2), ops.Activation("hard_swish"))
    shape = (3, resolution_px, resolution_px)
    return _block(shape, operators, ops.first_conv_key)


def _inverted_residual(
    shape: Shape,
    out_channels: int,
    kernel_size: int,
    expand_ratio: int,
    stride: int,
    activation: str,
    squeeze_excite: bool,
) -> Block:
    channels = shape[0]
    mid = channels if expand_ratio == 1 else make_divisible(channels * expand_ratio)
    skip = stride == 1 and channels == out_channels
    squeeze = ops.SqueezeExcite(mid, make_divisible(mid / 4)) if squeeze_excite else None
    operators = inverted_residual(channels, mid, out_channels, kernel_size, stride, activation, squeeze)
    output = ops.shapes(operators, shape)[-1]
    hard_swish = activation == "hard_swish"
    key = ops.expanded_conv_key(shape, output, mid, kernel_size, stride, skip, squeeze_excite, hard_swish)
    return Block(key, shape, tuple(operators))


def _tail(shape: Shape, expand_channels: int, mix_channels: int) -> list[Block]:
    act = ops.Activation("hard_swish")
    pooled = (expand_channels, 1, 1)
    mixed = (mix_channels, 1, 1)
    classifier = (ops.Linear(mix_channels, CLASSES),)
    return [
        _block(shape, (ops.Conv(shape[0], expand_channels, 1), act), ops.final_expand_key),
        _block((expand_channels, *shape[1:]), (ops.Pool(),), ops.pool_key),
        _block(pooled, (ops.Conv(expand_channels, mix_channels, 1, bias=False), act), ops.feature_mix_key),
        Block(ops.classifier_key(mixed, CLASSES), mixed, classifier),
    ]


def _block(shape: Shape, operators: tuple[Operator, ...], key: Callable[[Shape, Shape], str]) -> Block:
    return Block(key(shape, ops.shapes(operators, shape)[-1]), shape, operators)


OFA_W10 = MobileNetV3Space("ofa-mbv3-w1.0", 1.0)
OFA_W12 = MobileNetV3Space("ofa-mbv3-w1.2", 1.2)
