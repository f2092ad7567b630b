"""The published description of a network, ``net.config``: its layers and blocks, as JSON.

It describes any network. Here it is read as an architecture if it is a network of the space.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ofa_nas.spaces.architecture import parse_architecture
from ofa_nas.spaces.bottlenecks import BottleneckSpace
from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace
from ofa_nas.spaces.parts import make_divisible
from ofa_nas.spaces.space import Space
from ofa_tables.errors import UsageError

_ACTIVATIONS = {"h_swish": "hard_swish"}
Config = Mapping[str, Any]


class _Differs(Exception):
    """Says what the network has and the space does not."""


def is_network_config(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("blocks"), list) and "classifier" in value


def genes_of_config(config: Config, space: Space) -> dict[str, list[Any]]:
    """The gene lists of the network. Raises UsageError if it is not one of the space, and names the spaces that have
    it.
    """
    try:
        return _genes_of(config, space)
    except _Differs as error:
        from ofa_nas.spaces import all_spaces

        others = [other.name for other in all_spaces() if other is not space and _has(other, config)]
        advice = f"; it is a network of {' and '.join(others)}" if others else ""
        raise UsageError(f"the network config is not a network of {space.name}: {error}{advice}") from None


def _has(space: Space, config: Config) -> bool:
    try:
        genes = _genes_of(config, space)
        smallest_px = min(space.resolutions_px)
        space.encode([parse_architecture({**genes, "r": smallest_px})])
    except (_Differs, UsageError):
        return False
    return True


def _genes_of(config: Config, space: Space) -> dict[str, list[Any]]:
    try:
        if isinstance(space, InvertedResidualSpace):
            return _inverted_residuals(config, space)
        if isinstance(space, BottleneckSpace):
            return _bottlenecks(config, space)
    except KeyError as error:
        raise _Differs(f"it lacks {error}") from None
    except (TypeError, AttributeError, IndexError, ValueError, OverflowError):
        raise _Differs("its blocks have another form") from None
    raise _Differs("network configs of this space cannot be read")


# Inverted residuals: MobileNetV3, ProxylessNAS.


def _inverted_residuals(config: Config, space: InvertedResidualSpace) -> dict[str, list[Any]]:
    layout = space.layout
    first, *blocks = _convolutions(config["blocks"])
    _require("the first layer has", config["first_conv"]["out_channels"], layout.first_channels[0], "channels")
    _require("block 0 has", first["out_channels"], layout.first_channels[1], "channels")
    _require("the last layer has", config["feature_mix_layer"]["out_channels"], layout.last_channels[-1], "channels")
    genes: dict[str, list[Any]] = {"ks": [], "e": [], "d": []}
    channels, at = first["out_channels"], 0
    for number, stage in enumerate(layout.stages, start=1):
        most = [block for block in blocks[at : at + stage.blocks] if block["out_channels"] == stage.channels]
        for index, block in enumerate(most):
            stride = stage.stride if index == 0 else 1
            _require(f"block {at + index + 1} has", block["stride"], stride, "as its stride")
            _require(f"block {at + index + 1} has", bool(block.get("use_se")), stage.squeeze_excite, "as use_se")
            activation = block.get("act_func", stage.activation)
            _require(f"block {at + index + 1} has", _ACTIVATIONS.get(activation, activation), stage.activation, "")
            genes["ks"].append(block["kernel_size"])
            genes["e"].append(_ratio(block, channels, space.expand_ratios, at + index + 1))
            channels = stage.channels
        if not most:
            raise _Differs(f"stage {number} has no block of {stage.channels} channels")
        at += len(most)
        genes["d"].append(len(most))
        _fill(genes, stage.blocks - len(most), number - 1, space)
    if at != len(blocks):
        raise _Differs(f"it has {len(blocks)} blocks after the first, of which {len(blocks) - at} do not fit a stage")
    return genes


def _convolutions(blocks: Sequence[Config]) -> list[Config]:
    """The convolutions of the blocks. Older files have blocks without one, which do nothing."""
    found = [block.get("conv", block.get("mobile_inverted_conv")) for block in blocks]
    return [conv for conv in found if conv is not None and conv.get("name") != "ZeroLayer"]


def _ratio(block: Config, channels: int, ratios: Sequence[Any], number: int) -> Any:
    mid = block.get("mid_channels")
    if mid is None:
        mid = make_divisible(round(channels * block["expand_ratio"]))
    for ratio in ratios:
        if make_divisible(round(channels * ratio)) == mid:
            return ratio
    raise _Differs(f"block {number} has {mid} channels inside, which are none of its expand ratios")


def _fill(genes: dict[str, list[Any]], missing: int, stage: int, space: InvertedResidualSpace) -> None:
    """Values for blocks that the network does not have."""
    kernel = space.kernel_sizes[0] if space.kernel_by_stage is None else space.kernel_by_stage[stage]
    genes["ks"] += [kernel] * missing
    genes["e"] += [genes["e"][-1]] * missing


# Bottlenecks: ResNet50D.


def _bottlenecks(config: Config, space: BottleneckSpace) -> dict[str, list[Any]]:
    stem, blocks = config["input_stem"], config["blocks"]
    inner = _index(stem[0]["out_channels"], space.stem_mid_channels, "the first layer")
    outer = _index(stem[-1]["out_channels"], space.stem_channels, "the last layer of the stem")
    depths, most_more = space.layout.stem_depths, max(space.layout.more_blocks)
    genes: dict[str, list[Any]] = {"e": [], "d": [max(depths) if len(stem) > 2 else 0], "w": [inner, outer]}
    at = 0
    for stage, fewest in enumerate(each.blocks for each in space.layout.stages):
        width = _index(blocks[at]["out_channels"], space.stage_channels[stage], f"block {at}")
        channels = space.stage_channels[stage][width]
        most = [block for block in blocks[at : at + fewest + most_more] if block["out_channels"] == channels]
        if len(most) < fewest:
            raise _Differs(f"stage {stage + 1} has {len(most)} blocks, fewer than {fewest}")
        ratio_of = {space.mid_channels(channels, ratio): ratio for ratio in space.expand_ratios}
        for number, block in enumerate(most, start=at):
            mid = block.get("mid_channels") or space.mid_channels(channels, block["expand_ratio"])
            genes["e"].append(list(ratio_of.values())[_index(mid, list(ratio_of), f"block {number}, inside,")])
        genes["e"] += [space.expand_ratios[0]] * (fewest + most_more - len(most))
        genes["d"].append(len(most) - fewest)
        genes["w"].append(width)
        at += len(most)
    if at != len(blocks):
        raise _Differs(f"it has {len(blocks)} blocks, of which {len(blocks) - at} do not fit a stage")
    return genes


def _index(value: Any, choices: Sequence[Any], what: str) -> int:
    if value not in choices:
        raise _Differs(f"{what} has {value} channels, not {' or '.join(map(str, choices))}")
    return list(choices).index(value)


def _require(what: str, found: Any, wanted: Any, unit: str) -> None:
    if found != wanted:
        raise _Differs(f"{what} {found} {unit}".rstrip() + f", not {wanted}")
