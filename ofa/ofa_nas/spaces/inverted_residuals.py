"""Spaces of inverted residuals (Sandler et al., CVPR 2018). The genes are depths, kernel sizes, and expand ratios.

A ``Layout`` describes the networks as data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ofa_agent import keys
from ofa_agent import operators as ops
from ofa_agent.operators import Block, Operator, Shape
from ofa_nas.spaces.architecture import Architecture
from ofa_nas.spaces.parts import (
    IMAGE_CHANNELS,
    classifier,
    fixed,
    inverted_residual,
    inverted_residual_key,
    keyed,
    make_divisible,
)
from ofa_nas.spaces.space import ABSENT, GeneGroup, IntArray, Position, Space
from ofa_tables.errors import UsageError


@dataclass(frozen=True)
class Stage:
    """A stage of inverted residuals, of which the first has the stride.

    ``blocks`` is the maximum number of blocks. If it is below every depth, the number is fixed, and the stage has no
    gene for its depth.
    """

    channels: int
    stride: int
    activation: str
    squeeze_excite: bool
    blocks: int


@dataclass(frozen=True)
class Layout:
    """The structure of the networks of a Space. Channels include the width multiplier and rounding.

    A network starts with a 3×3 convolution of stride 2 and a block without expansion: ``first_channels`` and
    ``first_activations`` are in this order. The stages follow. A network ends with a 1×1 convolution to
    ``last_channels[0]``, the pool, a 1×1 convolution without batch norm if ``last_channels`` has two values, and the
    classifier.

    ``keys_by_ratio``: published tables of this family name a block by its expand ratio, without squeeze-excite and
    activation, which is relu6. A block that published tables cannot have names its activation in its key.
    """

    first_channels: tuple[int, int]
    first_activations: tuple[str, str]
    stages: tuple[Stage, ...]
    last_channels: tuple[int, ...]
    last_activation: str
    classes: int
    resolutions_px: tuple[int, ...]
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    expand_ratios: tuple[int, ...] = (3, 4, 6)
    depths: tuple[int, ...] = (2, 3, 4)
    batch_norm_epsilon: float = 1e-5
    keys_by_ratio: bool = False


@dataclass(frozen=True)
class Label:
    """The choices of an inverted-residual entry."""

    stage: int
    is_first: bool
    kernel_size: int
    expand_ratio: int


class InvertedResidualSpace(Space):
    """The networks of a Layout.

    ``kernel_by_stage`` fixes the kernel sizes, and ``expand_by_depth`` the expand ratios. Without them, they are genes.
    """

    def __init__(
        self,
        name: str,
        layout: Layout,
        kernel_by_stage: tuple[int, ...] | None = None,
        expand_by_depth: Mapping[int, int] | None = None,
    ) -> None:
        self.name = name
        self.layout = layout
        self.kernel_sizes = layout.kernel_sizes
        self.expand_ratios = layout.expand_ratios
        self.kernel_by_stage = kernel_by_stage
        self.expand_by_depth = expand_by_depth
        self.classes = layout.classes
        self.batch_norm_epsilon = layout.batch_norm_epsilon
        self.stages = (
            "first layers",
            *(f"stage {number}" for number in range(1, len(layout.stages) + 1)),
            "last layers",
        )
        # (stage, index in the stage) of every possible block, in the order of the genes.
        self.places = tuple((at, block) for at, stage in enumerate(layout.stages) for block in range(stage.blocks))
        self._deep = tuple(at for at, stage in enumerate(layout.stages) if stage.blocks >= min(layout.depths))
        groups = [GeneGroup("d", layout.depths, len(self._deep)), GeneGroup("r", layout.resolutions_px, 1)]
        if expand_by_depth is None:
            groups.insert(0, GeneGroup("e", layout.expand_ratios, len(self.places)))
        if kernel_by_stage is None:
            groups.insert(0, GeneGroup("ks", layout.kernel_sizes, len(self.places)))
        self.groups = tuple(groups)
        self.derived = tuple(name for name in ("ks", "e") if name not in {group.name for group in groups})
        self._blocks = lru_cache(maxsize=None)(self._build_blocks)
        self._labels = self._entry_labels()

    def blocks(self, resolution_px: int) -> tuple[Block, ...]:
        return self._blocks(resolution_px)

    def depths_of(self, architecture: Architecture) -> list[int]:
        """Return the number of blocks of each stage."""
        return [
            min(depth, stage.blocks) for depth, stage in zip(architecture.genes["d"], self.layout.stages, strict=True)
        ]

    def chosen_blocks(self, architecture: Architecture) -> list[tuple[int, int, int]]:
        """Return (index in ``places``, kernel size, expand ratio) of each block of the network, in order."""
        depths, genes = self.depths_of(architecture), architecture.genes
        return [
            (at, genes["ks"][at], genes["e"][at])
            for at, (stage, block) in enumerate(self.places)
            if block < depths[stage]
        ]

    def _entry_labels(self) -> list[Label]:
        return [
            Label(at, is_first, kernel, expand)
            for at, stage in enumerate(self.layout.stages)
            for is_first in (True, False)[: stage.blocks]
            for kernel in self._kernels(at)
            for expand in self._expands(at, is_first)
        ]

    def _kernels(self, stage: int) -> tuple[int, ...]:
        return self.kernel_sizes if self.kernel_by_stage is None else (self.kernel_by_stage[stage],)

    def _expands(self, stage: int, is_first: bool) -> tuple[int, ...]:
        """Return the possible expand ratios. A ratio that is tied to depth 1 occurs only in first blocks."""
        if self.expand_by_depth is None:
            return self.layout.expand_ratios
        depths = self.layout.depths if stage in self._deep else (self.layout.stages[stage].blocks,)
        return tuple(dict.fromkeys(self.expand_by_depth[depth] for depth in depths if is_first or depth > 1))

    def _build_blocks(self, resolution_px: int) -> tuple[Block, ...]:
        """Return the head, the inverted residuals in the order of their labels, and the tail."""
        self.require_resolutions([resolution_px])
        layout = self.layout
        head = [self._first_conv(resolution_px)]
        first = Stage(layout.first_channels[1], 1, layout.first_activations[1], False, 1)
        head.append(self._block(head[0].output_shape, first, 1, 3, 1))
        ends = [head[1].output_shape]
        for stage in layout.stages:
            ends.append(self._block(ends[-1], stage, stage.stride, 3, 3).output_shape)
        middle = []
        for label in self._labels:
            stage = layout.stages[label.stage]
            source, stride = (ends[label.stage], stage.stride) if label.is_first else (ends[label.stage + 1], 1)
            middle.append(self._block(source, stage, stride, label.kernel_size, label.expand_ratio))
        return (*head, *middle, *self._tail(ends[-1]))

    def _block(self, shape: Shape, stage: Stage, stride: int, kernel_size: int, expand_ratio: int) -> Block:
        channels = shape[0]
        mid = channels if expand_ratio == 1 else make_divisible(channels * expand_ratio)
        squeeze = ops.SqueezeExcite(mid, make_divisible(mid / 4)) if stage.squeeze_excite else None
        operators = inverted_residual(channels, mid, stage.channels, kernel_size, stride, stage.activation, squeeze)
        output = ops.shapes(operators, shape)[-1]
        skip = stride == 1 and channels == stage.channels
        if self.layout.keys_by_ratio:
            key = keys.expanded_conv_ratio_key(shape, output, expand_ratio, kernel_size, stride, skip)
            key = keys.with_activation(key + ("-se:1" if squeeze else ""), stage.activation, "relu6")
        else:
            key = inverted_residual_key(
                shape, output, mid, kernel_size, stride, skip, stage.squeeze_excite, stage.activation
            )
        return Block(key, shape, tuple(operators))

    def _first_conv(self, resolution_px: int) -> Block:
        channels, activation = self.layout.first_channels[0], self.layout.first_activations[0]
        operators = (ops.Conv(IMAGE_CHANNELS, channels, 3, stride=2), ops.Activation(activation))
        return self._keyed((IMAGE_CHANNELS, resolution_px, resolution_px), operators, activation, keys.first_conv_key)

    def _tail(self, shape: Shape) -> list[Block]:
        layout, activation = self.layout, self.layout.last_activation
        act = ops.Activation(activation)
        expanded, *mixed = layout.last_channels
        blocks = [
            self._keyed(shape, (ops.Conv(shape[0], expanded, 1), act), activation, keys.final_expand_key),
            keyed((expanded, *shape[1:]), (ops.Pool(),), keys.pool_key),
        ]
        for channels in mixed:
            operators = (ops.Conv(expanded, channels, 1, bias=False), act)
            blocks.append(self._keyed((expanded, 1, 1), operators, activation, keys.feature_mix_key))
        return [*blocks, classifier(blocks[-1].output_shape, layout.classes)]

    def _keyed(
        self, shape: Shape, operators: Sequence[Operator], activation: str, key: Callable[[Shape, Shape], str]
    ) -> Block:
        published = "relu6" if self.layout.keys_by_ratio else "hard_swish"
        block = keyed(shape, operators, key)
        return block._replace(key=keys.with_activation(block.key, activation, published))

    def build_positions(self) -> tuple[Position, ...]:
        head, tail = 2, 2 + len(self.layout.last_channels)
        entry_of = {label: head + index for index, label in enumerate(self._labels)}
        positions = [fixed(0, index) for index in range(head)]
        positions += [self._position(at, entry_of) for at in range(len(self.places))]
        last = len(self.stages) - 1
        return (*positions, *(fixed(last, head + len(self._labels) + index) for index in range(tail)))

    def _position(self, at: int, entry_of: Mapping[Label, int]) -> Position:
        stage, block = self.places[at]
        most = self.layout.stages[stage].blocks
        rows: dict[str, int] = {}
        if self.kernel_by_stage is None:
            rows["ks"] = self.first_gene["ks"] + at
        if self.expand_by_depth is None:
            rows["e"] = self.first_gene["e"] + at
        if stage in self._deep and (self.expand_by_depth is not None or block >= min(self.layout.depths)):
            rows["d"] = self.first_gene["d"] + self._deep.index(stage)  # the first blocks of a stage are always present
        choices = {"ks": self.kernel_sizes, "e": self.expand_ratios, "d": self.layout.depths}
        radices = tuple(len(choices[name]) for name in rows)
        entries, kernels, expands = [], [], []
        for code in np.ndindex(*radices):
            values = {name: choices[name][index] for name, index in zip(rows, code, strict=True)}
            depth = values.get("d", most)
            kernel = values["ks"] if "ks" in values else self._kernels(stage)[0]
            expand = values["e"] if self.expand_by_depth is None else self.expand_by_depth[depth]
            present = block < depth
            entries.append(entry_of[Label(stage, block == 0, kernel, expand)] if present else ABSENT)
            kernels.append(self.kernel_sizes.index(kernel) if present else ABSENT)
            expands.append(self.expand_ratios.index(expand) if present else ABSENT)
        return Position(
            1 + stage, tuple(rows.values()), radices, np.array(entries), np.array(kernels), np.array(expands)
        )

    def genes_of(self, architecture: Architecture) -> list[int]:
        depths = self.gene_of(architecture, "d", len(self.layout.stages))
        kernels = self.gene_of(architecture, "ks", len(self.places))
        expands = self.gene_of(architecture, "e", len(self.places))
        self.require_choices(depths, self.layout.depths, "d", self._deep)
        depth_of = self.depths_of(architecture)
        used = [at for at, (stage, block) in enumerate(self.places) if block < depth_of[stage]]
        self.require_choices(kernels, self.kernel_sizes, "ks", used)
        self.require_choices(expands, self.expand_ratios, "e", used)
        self.require_resolutions([architecture.resolution_px])
        self._check_tied(kernels, expands, depth_of, used)
        indices: list[int] = []
        in_use, blocks = set(used), range(len(self.places))
        if self.kernel_by_stage is None:
            indices += [self.kernel_sizes.index(kernels[at]) if at in in_use else 0 for at in blocks]
        if self.expand_by_depth is None:
            indices += [self.expand_ratios.index(expands[at]) if at in in_use else 0 for at in blocks]
        return [
            *indices,
            *(self.layout.depths.index(depths[stage]) for stage in self._deep),
            self.resolutions_px.index(architecture.resolution_px),
        ]

    def repeated(self, name: str, value: float) -> list[float]:
        """As published, a depth does not add blocks to a stage that has a fixed number of them."""
        if name != "d":
            return super().repeated(name, value)
        return [value if at in self._deep else stage.blocks for at, stage in enumerate(self.layout.stages)]

    def complete(self, genes: Mapping[str, Any]) -> dict[str, Any]:
        found = super().complete(genes)
        if self.kernel_by_stage is not None:
            found.setdefault("ks", [self.kernel_by_stage[stage] for stage, _ in self.places])
        depths = found.get("d")
        if self.expand_by_depth is not None and isinstance(depths, list) and len(depths) == len(self.layout.stages):
            least = min(self.expand_by_depth.values())  # of depths that the space does not have; refused later
            found.setdefault("e", [self.expand_by_depth.get(depths[stage], least) for stage, _ in self.places])
        return found

    def architecture_of(self, indices: IntArray) -> Architecture:
        deep = iter(self._rows(indices, "d", len(self._deep)))
        depths = [
            self.layout.depths[next(deep)] if at in self._deep else stage.blocks
            for at, stage in enumerate(self.layout.stages)
        ]
        if self.kernel_by_stage is None:
            kernels = [self.kernel_sizes[index] for index in self._rows(indices, "ks", len(self.places))]
        else:
            kernels = [self.kernel_by_stage[stage] for stage, _ in self.places]
        if self.expand_by_depth is None:
            expands = [self.expand_ratios[index] for index in self._rows(indices, "e", len(self.places))]
        else:
            expands = [self.expand_by_depth[depths[stage]] for stage, _ in self.places]
        genes = {"ks": tuple(kernels), "e": tuple(expands), "d": tuple(depths)}
        return Architecture(genes, self.resolutions_px[int(indices[-1])])

    def _rows(self, indices: IntArray, group: str, count: int) -> list[int]:
        start = self.first_gene[group]
        return [int(index) for index in indices[start : start + count]]

    def _check_tied(
        self, kernels: tuple[int, ...], expands: tuple[int, ...], depths: list[int], used: list[int]
    ) -> None:
        for at in used:
            stage, _ = self.places[at]
            if self.kernel_by_stage is not None and kernels[at] != self.kernel_by_stage[stage]:
                raise UsageError(
                    f"'ks'[{at}] is {kernels[at]}; {self.name} has {self.kernel_by_stage[stage]} in stage {stage + 1}"
                )
            if self.expand_by_depth is not None and expands[at] != self.expand_by_depth[depths[stage]]:
                tied = self.expand_by_depth[depths[stage]]
                raise UsageError(
                    f"'e'[{at}] is {expands[at]}; {self.name} has {tied} in a stage of depth {depths[stage]}"
                )
