"""Reference networks for comparison: published ones, and model files of the user.

The published ones have the architectures and accuracies of their papers. They take 224 px images, have 1000 classes and
random weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ofa_agent import operators as ops
from ofa_agent.operators import Block, Operator
from ofa_nas.spaces.parts import inverted_residual, make_divisible
from ofa_tables.model.passes import network_passes_ms
from ofa_tables.store.measurement import NETWORK
from ofa_tables.table import REFERENCE, LatencyTable

FAMILY = "references"  # stored in place of the name of a Space
FILES = "files"  # the same of model files
RESOLUTION_PX = 224
CLASSES = 1000


@dataclass(frozen=True)
class Reference:
    """A whole network with the values that ``source`` publishes.

    ``top1`` is the accuracy on the ImageNet validation set (0 to 1). ``macs`` is for one inference at batch 1.
    ``parameters`` is the count before batch norm is folded into the convolutions.
    """

    block: Block
    top1: float
    macs: float
    parameters: float
    source: str

    @property
    def name(self) -> str:
        return self.block.key.removeprefix(NETWORK)

    @property
    def unfolded_parameters(self) -> int:
        """The parameters of the Block, counted as in papers.

        Batch norm has a weight and a bias per channel; a convolution with folded batch norm has only a bias.
        """
        convolutions = (operator for operator in self.block.operators if isinstance(operator, ops.Conv))
        return self.block.parameters + sum(convolution.out_channels for convolution in convolutions)


@dataclass(frozen=True)
class MeasuredReference:
    """A reference network measured on the device of one table.

    ``passes_ms`` are the latencies of two independent passes, for one inference of the whole batch. The other values
    are the published ones; of a model file, ``top1`` is what the user states, and None is unknown. ``resolution_px`` is
    0 if the model takes no image.
    """

    name: str
    passes_ms: tuple[float, float]
    top1: float | None
    macs: float | None
    parameters: float | None
    source: str
    resolution_px: int = RESOLUTION_PX
    is_file: bool = False  # a model file of the user

    @property
    def latency_ms(self) -> float:
        """The mean of the two passes."""
        return sum(self.passes_ms) / 2


def measured_references(table: LatencyTable) -> list[MeasuredReference]:
    """Return the references that the table has in both passes, fastest first."""
    found = [
        MeasuredReference(one.name, passes_ms, one.top1, one.macs, one.parameters, one.source)
        for one in REFERENCES
        if (passes_ms := network_passes_ms(table, one.block.key)) is not None
    ]
    return sorted([*found, *_measured_files(table)], key=lambda measured: measured.latency_ms)


def _measured_files(table: LatencyTable) -> Iterator[MeasuredReference]:
    """Yield the model files that the table has in both passes; of files with one name, the last."""
    keys = {value["name"]: key for key, space, value, _ in table.store.networks() if space == FILES and "name" in value}
    for name, key in keys.items():
        passes_ms = network_passes_ms(table, key)
        if passes_ms is not None:
            facts = read_file_facts(table, key)
            yield MeasuredReference(
                str(name),
                passes_ms,
                facts["accuracy"],
                facts["macs"],
                facts["parameters"],
                "a model file; the user states the accuracy" if facts["accuracy"] is not None else "a model file",
                facts["resolution_px"] or 0,
                is_file=True,
            )


FACTS = ("macs", "parameters", "resolution_px", "accuracy")


def read_file_facts(table: LatencyTable, key: str) -> dict[str, Any]:
    """Return what the table keeps about a model file: FACTS; None: unknown."""
    stored = table.store.get(f"file/{key}") or {}
    return {name: stored.get(name) for name in FACTS}


def store_file(table: LatencyTable, key: str, name: str, facts: Mapping[str, Any]) -> None:
    """Add a model file to the networks of a table. Facts that are None do not replace known ones."""
    table.store.add_network(key, FILES, {"name": name}, REFERENCE)
    known = read_file_facts(table, key)
    changed = {**known, **{fact: value for fact, value in facts.items() if value is not None}}
    if changed != known:
        table.store.put(f"file/{key}", changed)


@dataclass(frozen=True)
class _Stage:
    """Inverted residuals, of which the first has the stride. ``blocks`` are (kernel size, expand ratio)."""

    channels: int
    stride: int
    blocks: Sequence[tuple[int, int]]
    squeezed: bool = False


# Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2.
_MOBILENET_V2 = (
    _Stage(16, 1, [(3, 1)]),
    _Stage(24, 2, 2 * [(3, 6)]),
    _Stage(32, 2, 3 * [(3, 6)]),
    _Stage(64, 2, 4 * [(3, 6)]),
    _Stage(96, 1, 3 * [(3, 6)]),
    _Stage(160, 2, 3 * [(3, 6)]),
    _Stage(320, 1, [(3, 6)]),
)

# Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile", CVPR 2019, figure 7.
_MNASNET_A1 = (
    _Stage(16, 1, [(3, 1)]),
    _Stage(24, 2, 2 * [(3, 6)]),
    _Stage(40, 2, 3 * [(5, 3)], squeezed=True),
    _Stage(80, 2, 4 * [(3, 6)]),
    _Stage(112, 1, 2 * [(3, 6)], squeezed=True),
    _Stage(160, 2, 3 * [(5, 6)], squeezed=True),
    _Stage(320, 1, [(3, 6)]),
)

# Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019, figure 4.
_PROXYLESS_MOBILE = (
    _Stage(16, 1, [(3, 1)]),
    _Stage(32, 2, [(5, 3), (3, 3)]),
    _Stage(40, 2, [(7, 3), (3, 3), (5, 3), (5, 3)]),
    _Stage(80, 2, [(7, 6), (5, 3), (5, 3), (5, 3)]),
    _Stage(96, 1, [(5, 6), (5, 3), (5, 3), (5, 3)]),
    _Stage(192, 2, [(7, 6), (7, 6), (7, 3), (7, 3)]),
    _Stage(320, 1, [(7, 6)]),
)

# Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, table 1.
_EFFICIENTNET_B0 = (
    _Stage(16, 1, [(3, 1)], squeezed=True),
    _Stage(24, 2, 2 * [(3, 6)], squeezed=True),
    _Stage(40, 2, 2 * [(5, 6)], squeezed=True),
    _Stage(80, 2, 3 * [(3, 6)], squeezed=True),
    _Stage(112, 1, 3 * [(5, 6)], squeezed=True),
    _Stage(192, 2, 4 * [(5, 6)], squeezed=True),
    _Stage(320, 1, [(3, 6)], squeezed=True),
)

# Howard et al., "Searching for MobileNetV3", ICCV 2019, tables 1 and 2:
# (kernel size, expanded channels, channels, squeeze-excite, activation, stride).
_RE, _HS = "relu", "hard_swish"
_MOBILENET_V3_LARGE = (
    (3, 16, 16, False, _RE, 1),
    (3, 64, 24, False, _RE, 2),
    (3, 72, 24, False, _RE, 1),
    (5, 72, 40, True, _RE, 2),
    (5, 120, 40, True, _RE, 1),
    (5, 120, 40, True, _RE, 1),
    (3, 240, 80, False, _HS, 2),
    (3, 200, 80, False, _HS, 1),
    (3, 184, 80, False, _HS, 1),
    (3, 184, 80, False, _HS, 1),
    (3, 480, 112, True, _HS, 1),
    (3, 672, 112, True, _HS, 1),
    (5, 672, 160, True, _HS, 2),
    (5, 960, 160, True, _HS, 1),
    (5, 960, 160, True, _HS, 1),
)
_MOBILENET_V3_SMALL = (
    (3, 16, 16, True, _RE, 2),
    (3, 72, 24, False, _RE, 2),
    (3, 88, 24, False, _RE, 1),
    (5, 96, 40, True, _HS, 2),
    (5, 240, 40, True, _HS, 1),
    (5, 240, 40, True, _HS, 1),
    (5, 120, 48, True, _HS, 1),
    (5, 144, 48, True, _HS, 1),
    (5, 288, 96, True, _HS, 2),
    (5, 576, 96, True, _HS, 1),
    (5, 576, 96, True, _HS, 1),
)

# He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1: (channels, stride, blocks).
_RESNET_50 = ((64, 1, 3), (128, 2, 4), (256, 2, 6), (512, 2, 3))


def _of_stages(stages: Sequence[_Stage], activation: str) -> Iterator[Sequence[Operator]]:
    """Yield the pieces of a network with the structure of MobileNetV2.

    Squeeze-excite follows EfficientNet: a quarter of the input channels of the residual.
    """
    channels = 32
    yield _convolution(3, channels, 3, 2, activation)
    for stage in stages:
        for number, (kernel_size, expand_ratio) in enumerate(stage.blocks):
            mid, stride = channels * expand_ratio, stage.stride if number == 0 else 1
            squeeze = ops.SqueezeExcite(mid, channels // 4, activation, "sigmoid") if stage.squeezed else None
            yield inverted_residual(channels, mid, stage.channels, kernel_size, stride, activation, squeeze)
            channels = stage.channels
    yield _convolution(channels, 1280, 1, 1, activation)
    yield ops.Pool(), ops.Linear(1280, CLASSES)


def _mobilenet_v3(
    rows: Sequence[tuple[int, int, int, bool, str, int]], mix_channels: int
) -> Iterator[Sequence[Operator]]:
    channels = 16
    yield _convolution(3, channels, 3, 2, _HS)
    for kernel_size, mid, out_channels, squeezed, activation, stride in rows:
        squeeze = ops.SqueezeExcite(mid, make_divisible(mid / 4)) if squeezed else None
        yield inverted_residual(channels, mid, out_channels, kernel_size, stride, activation, squeeze)
        channels = out_channels
    yield _convolution(channels, 6 * channels, 1, 1, _HS)
    yield ops.Pool(), ops.Linear(6 * channels, mix_channels), ops.Activation(_HS), ops.Linear(mix_channels, CLASSES)


def _resnet_50() -> Iterator[Sequence[Operator]]:
    """Yield the pieces of ResNet-50 v1.5: the stride is in the 3×3 convolution, as in torchvision."""
    channels = 64
    yield *_convolution(3, channels, 7, 2, "relu"), ops.MaxPool(3, 2)
    for width, stride, blocks in _RESNET_50:
        for number in range(blocks):
            yield _bottleneck(channels, width, stride if number == 0 else 1)
            channels = 4 * width
    yield ops.Pool(), ops.Linear(channels, CLASSES)


def _bottleneck(in_channels: int, width: int, stride: int) -> Sequence[Operator]:
    """Return a bottleneck. The first one of a stage has a 1×1 convolution in its shortcut."""
    inner = (
        *_convolution(in_channels, width, 1, 1, "relu"),
        *_convolution(width, width, 3, stride, "relu"),
        ops.Conv(width, 4 * width, 1),
    )
    shortcut: tuple[Operator, ...] = (ops.Add(0),)
    if in_channels != 4 * width:
        shortcut = (ops.Take(0), ops.Conv(in_channels, 4 * width, 1, stride), ops.Add(len(inner)))
    return *inner, *shortcut, ops.Activation("relu")


def _convolution(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, activation: str
) -> tuple[Operator, ...]:
    return ops.Conv(in_channels, out_channels, kernel_size, stride), ops.Activation(activation)


def _whole(name: str, pieces: Iterator[Sequence[Operator]]) -> Block:
    blocks: list[Block] = []
    for operators in pieces:
        shape = blocks[-1].output_shape if blocks else (3, RESOLUTION_PX, RESOLUTION_PX)
        blocks.append(Block(name, shape, tuple(operators)))
    return ops.concatenate(f"{NETWORK}{name}", blocks)


_TORCHVISION = "MACs and parameters: torchvision's documentation of its weights (IMAGENET1K_V1)"

REFERENCES = (
    Reference(
        _whole("mobilenet-v2", _of_stages(_MOBILENET_V2, "relu6")),
        top1=0.720,
        macs=301e6,
        parameters=3_504_872,
        source=f"top-1: Sandler et al., CVPR 2018, table 4; {_TORCHVISION}",
    ),
    Reference(
        _whole("mobilenet-v3-small", _mobilenet_v3(_MOBILENET_V3_SMALL, 1024)),
        top1=0.674,
        macs=57e6,
        parameters=2_542_856,
        source=f"top-1: Howard et al., ICCV 2019, table 3; {_TORCHVISION}",
    ),
    Reference(
        _whole("mobilenet-v3-large", _mobilenet_v3(_MOBILENET_V3_LARGE, 1280)),
        top1=0.752,
        macs=217e6,
        parameters=5_483_032,
        source=f"top-1: Howard et al., ICCV 2019, table 3; {_TORCHVISION}",
    ),
    Reference(
        _whole("mnasnet-a1", _of_stages(_MNASNET_A1, "relu")),
        top1=0.752,
        macs=312e6,
        parameters=3.9e6,
        source="Tan et al., CVPR 2019, table 1",
    ),
    Reference(
        _whole("proxylessnas-mobile", _of_stages(_PROXYLESS_MOBILE, "relu6")),
        top1=0.746,
        macs=320e6,
        parameters=4.1e6,
        source="top-1: Cai et al., ICLR 2019, table 2; MACs: the authors' repository (mit-han-lab/proxylessnas); "
        "parameters: Mei et al., AtomNAS, ICLR 2020",
    ),
    Reference(
        _whole("efficientnet-b0", _of_stages(_EFFICIENTNET_B0, "swish")),
        top1=0.771,
        macs=386e6,
        parameters=5_288_548,
        source=f"top-1: Tan and Le, ICML 2019, table 2 (arXiv 1905.11946v5; 76.3 % in v1); {_TORCHVISION}",
    ),
    Reference(
        _whole("resnet-50", _resnet_50()),
        top1=0.7613,
        macs=4089e6,
        parameters=25_557_032,
        source=f"top-1, {_TORCHVISION}",
    ),
)
