"""Definitions of spaces of inverted residuals and of bottlenecks: the content of a space file, as plain values.

``read_…`` makes a Space of a definition, and ``define_…`` the definition of a Space. A definition has every value, so
that two of them can be compared. ``docs/spaces.md`` describes the values.
"""

from collections.abc import Mapping
from typing import Any

from ofa_agent.operators import ACTIVATIONS
from ofa_nas.spaces.bottlenecks import BottleneckLayout, BottleneckSpace, BottleneckStage
from ofa_nas.spaces.fields import Fields
from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace, Layout, Stage
from ofa_nas.spaces.parts import make_divisible

Definition = Mapping[str, Any]

# Limits, so that a file from anywhere cannot ask for unbounded work.
MOST_STAGES, MOST_BLOCKS, MOST_CHOICES = 24, 32, 8
MOST_CHANNELS, MOST_CLASSES = 1 << 14, 100_000
MOST_RESOLUTIONS, SMALLEST_PX, LARGEST_PX = 64, 8, 2048
MOST_STRIDE, LARGEST_KERNEL, LARGEST_RATIO = 8, 15, 32
_KEYS_BY_RATIO = {"channels": False, "ratio": True}
_MIDDLE = ("optional", "always", "never")  # the middle convolution of a stem


def read_classes(fields: Fields) -> int:
    return fields.whole("classes", 1, MOST_CLASSES)


def read_resolutions(fields: Fields) -> tuple[int, ...]:
    """Read a list of resolutions in pixels, or ``{from, to, step}``."""
    if isinstance(fields.raw("resolutions"), Mapping):
        span = fields.table("resolutions", "resolutions")
        first = span.whole("from", SMALLEST_PX, LARGEST_PX)
        found = tuple(range(first, span.whole("to", first, LARGEST_PX) + 1, span.whole("step", 1, LARGEST_PX)))
        span.done()
        if len(found) > MOST_RESOLUTIONS:
            fields.fail(f"resolutions has {len(found)} values; the most is {MOST_RESOLUTIONS}, so raise step")
        return found
    return fields.wholes("resolutions", SMALLEST_PX, LARGEST_PX, MOST_RESOLUTIONS)


def read_epsilon(fields: Fields) -> float:
    return fields.number("batch_norm_epsilon", 1e-12, 1, 1e-5)


# Inverted residuals.


def read_inverted_residuals(name: str, fields: Fields) -> InvertedResidualSpace:
    """Raises FileError."""
    width = fields.number("width", 0.05, 20, 1.0)
    kernels = fields.wholes("kernels", 1, LARGEST_KERNEL, MOST_CHOICES, (3, 5, 7))
    if any(kernel % 2 == 0 for kernel in kernels):
        fields.fail(f"kernels has the even number {next(each for each in kernels if each % 2 == 0)}; use odd numbers")
    expands = fields.wholes("expands", 1, LARGEST_RATIO, MOST_CHOICES, (3, 4, 6))
    depths = fields.wholes("depths", 1, MOST_BLOCKS, MOST_CHOICES, (2, 3, 4))

    def wide(channels: int) -> int:
        return channels if width == 1 else make_divisible(channels * width)

    first, last = fields.table("first", "first"), fields.table("last", "last")
    first_channels = _pair(first, "channels", first.wholes("channels", 1, MOST_CHANNELS, 2, rising=False))
    first_activations = _pair(first, "activations", first.choices("activations", ACTIVATIONS, 2, each_once=False))
    last_channels = last.wholes("channels", 1, MOST_CHANNELS, 2, rising=False)
    stages = tuple(
        _stage(each, wide(each.whole("channels", 1, MOST_CHANNELS)), depths)
        for each in fields.tables("stages", MOST_STAGES, lambda number: f"stage {number}")
    )
    layout = Layout(
        first_channels=(wide(first_channels[0]), wide(first_channels[1])),
        first_activations=first_activations,
        stages=stages,
        last_channels=tuple(map(wide, last_channels)),
        last_activation=last.one_of("activation", ACTIVATIONS),
        classes=read_classes(fields),
        resolutions_px=read_resolutions(fields),
        kernel_sizes=kernels,
        expand_ratios=expands,
        depths=depths,
        batch_norm_epsilon=read_epsilon(fields),
        keys_by_ratio=_KEYS_BY_RATIO[fields.one_of("keys", list(_KEYS_BY_RATIO), "channels")],
    )
    by_stage, by_depth = _kernel_by_stage(fields, layout), _expand_by_depth(fields, layout)
    for part in (first, last, fields):
        part.done()
    return InvertedResidualSpace(name, layout, by_stage, by_depth)


def define_inverted_residuals(space: InvertedResidualSpace) -> dict[str, Any]:
    layout = space.layout
    ties: dict[str, Any] = {}
    if space.kernel_by_stage is not None:
        ties["kernel_by_stage"] = list(space.kernel_by_stage)
    if space.expand_by_depth is not None:
        ties["expand_by_depth"] = {str(depth): ratio for depth, ratio in sorted(space.expand_by_depth.items())}
    return {
        "classes": layout.classes,
        "resolutions": list(layout.resolutions_px),
        "kernels": list(layout.kernel_sizes),
        "expands": list(layout.expand_ratios),
        "depths": list(layout.depths),
        **ties,
        "batch_norm_epsilon": layout.batch_norm_epsilon,
        "keys": "ratio" if layout.keys_by_ratio else "channels",
        "first": {"channels": list(layout.first_channels), "activations": list(layout.first_activations)},
        "stages": [
            {
                "channels": stage.channels,
                "stride": stage.stride,
                "activation": stage.activation,
                "squeeze_excite": stage.squeeze_excite,
                "blocks": stage.blocks,
            }
            for stage in layout.stages
        ],
        "last": {"channels": list(layout.last_channels), "activation": layout.last_activation},
    }


def _stage(fields: Fields, channels: int, depths: tuple[int, ...]) -> Stage:
    blocks = fields.whole("blocks", 1, MOST_BLOCKS, max(depths))
    if min(depths) <= blocks != max(depths):
        fields.fail(
            f"blocks is {blocks}; it must be {max(depths)}, the largest of depths, or a fixed number below "
            f"{min(depths)}"
        )
    stage = Stage(
        channels,
        fields.whole("stride", 1, MOST_STRIDE),
        fields.one_of("activation", ACTIVATIONS),
        fields.flag("squeeze_excite", False),
        blocks,
    )
    fields.done()
    return stage


def _pair(fields: Fields, name: str, values: tuple[Any, ...]) -> tuple[Any, Any]:
    if len(values) != 2:
        fields.fail(f"{name} has {len(values)} value; it needs 2: of the first convolution, and of the first block")
    return values[0], values[1]


def _kernel_by_stage(fields: Fields, layout: Layout) -> tuple[int, ...] | None:
    if fields.raw("kernel_by_stage", None) is None:
        return None
    found = fields.wholes("kernel_by_stage", 1, LARGEST_KERNEL, MOST_STAGES, rising=False)
    if len(found) != len(layout.stages) or not set(found) <= set(layout.kernel_sizes):
        fields.fail(
            f"kernel_by_stage needs {len(layout.stages)} values, one for each stage, of kernels: "
            f"{', '.join(map(str, layout.kernel_sizes))}"
        )
    return found


def _expand_by_depth(fields: Fields, layout: Layout) -> dict[int, int] | None:
    if fields.raw("expand_by_depth", None) is None:
        return None
    of_depth = fields.table("expand_by_depth", "expand_by_depth")
    fixed = {stage.blocks for stage in layout.stages if stage.blocks < min(layout.depths)}
    found = {depth: of_depth.one_of(str(depth), layout.expand_ratios) for depth in sorted({*layout.depths, *fixed})}
    of_depth.done()
    return found


# Bottlenecks.


def read_bottlenecks(name: str, fields: Fields) -> BottleneckSpace:
    """Raises FileError."""
    more = fields.wholes("more_blocks", 0, MOST_BLOCKS, MOST_CHOICES, (0, 1, 2))
    stem = fields.table("stem", "stem")
    layout = BottleneckLayout(
        stem_channels=stem.whole("channels", 1, MOST_CHANNELS),
        stages=tuple(
            _bottleneck_stage(each) for each in fields.tables("stages", MOST_STAGES, lambda number: f"stage {number}")
        ),
        classes=read_classes(fields),
        resolutions_px=read_resolutions(fields),
        expand_ratios=fields.numbers("expands", 0.01, LARGEST_RATIO, MOST_CHOICES, (0.2, 0.25, 0.35)),
        widths=fields.numbers("widths", 0.05, 20, MOST_CHOICES, (0.65, 0.8, 1.0)),
        more_blocks=more,
        stem_depths=_stem_depths(stem.one_of("middle", _MIDDLE, "optional"), max(more)),
        batch_norm_epsilon=read_epsilon(fields),
    )
    stem.done()
    fields.done()
    return BottleneckSpace(name, layout)


def define_bottlenecks(space: BottleneckSpace) -> dict[str, Any]:
    layout = space.layout
    middle = next(name for name in _MIDDLE if _stem_depths(name, max(layout.more_blocks)) == layout.stem_depths)
    return {
        "classes": layout.classes,
        "resolutions": list(layout.resolutions_px),
        "widths": list(layout.widths),
        "expands": list(layout.expand_ratios),
        "more_blocks": list(layout.more_blocks),
        "batch_norm_epsilon": layout.batch_norm_epsilon,
        "stem": {"channels": layout.stem_channels, "middle": middle},
        "stages": [
            {"channels": stage.channels, "stride": stage.stride, "blocks": stage.blocks} for stage in layout.stages
        ],
    }


def _bottleneck_stage(fields: Fields) -> BottleneckStage:
    stage = BottleneckStage(
        fields.whole("channels", 1, MOST_CHANNELS),
        fields.whole("stride", 1, MOST_STRIDE),
        fields.whole("blocks", 1, MOST_BLOCKS),
    )
    fields.done()
    return stage


def _stem_depths(middle: str, most_more: int) -> tuple[int, ...]:
    """Return the depths of a stem. As published, the largest one is the largest number of optional blocks."""
    largest = max(1, most_more)
    return {"optional": (0, largest), "always": (largest,), "never": (0,)}[middle]
