"""Seven public architectures in PyTorch, with random weights, written from their papers.

    PYTHON scripts/architectures.py FOLDER        # write them as TFLite files, with a Python that has litert-torch

They have the layers of the published models, so that they take the same time; they are not trained. Shapes of inputs
are 1×3×224×224.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

SIZE = 224


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: Callable = nn.ReLU):
    """A convolution with batch norm and an activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        act(),
    )


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(inputs, outputs, 3, stride), conv(outputs, outputs, act=nn.Identity))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv(inputs, outputs, 1, stride, act=nn.Identity)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet_18() -> nn.Module:
    """He et al., CVPR 2016, table 1."""
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BasicBlock(channels, outputs, stride), BasicBlock(outputs, outputs, 1)]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduced: int, act: Callable, gate: Callable) -> None:
        super().__init__()
        self.gates = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, reduced, 1), act(), nn.Conv2d(reduced, channels, 1), gate()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gates(x)


class InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, mid: int, outputs: int, kernel: int, stride: int, act: Callable, squeeze: nn.Module | None
    ) -> None:
        super().__init__()
        self.adds = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *([conv(inputs, mid, 1, act=act)] if mid != inputs else []),
            conv(mid, mid, kernel, stride, mid, act),
            *([squeeze] if squeeze is not None else []),
            conv(mid, outputs, 1, act=nn.Identity),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.adds else self.body(x)


# Howard et al., ICCV 2019, table 1: kernel, expanded channels, channels, squeeze-excite, hard swish, stride.
MOBILENET_V3 = (
    (3, 16, 16, 0, 0, 1),
    (3, 64, 24, 0, 0, 2),
    (3, 72, 24, 0, 0, 1),
    (5, 72, 40, 1, 0, 2),
    (5, 120, 40, 1, 0, 1),
    (5, 120, 40, 1, 0, 1),
    (3, 240, 80, 0, 1, 2),
    (3, 200, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1),
    (3, 480, 112, 1, 1, 1),
    (3, 672, 112, 1, 1, 1),
    (5, 672, 160, 1, 1, 2),
    (5, 960, 160, 1, 1, 1),
    (5, 960, 160, 1, 1, 1),
)


def _mobilenet_v3_features() -> list[nn.Module]:
    layers: list[nn.Module] = [conv(3, 16, 3, 2, act=nn.Hardswish)]
    channels = 16
    for kernel, mid, outputs, squeezed, swish, stride in MOBILENET_V3:
        act = nn.Hardswish if swish else nn.ReLU
        reduced = max(8, (mid // 4 + 4) // 8 * 8)
        squeeze = SqueezeExcite(mid, reduced, nn.ReLU, nn.Hardsigmoid) if squeezed else None
        layers.append(InvertedResidual(channels, mid, outputs, kernel, stride, act, squeeze))
        channels = outputs
    return layers


def mobilenet_v3() -> nn.Module:
    """Howard et al., ICCV 2019: MobileNetV3-Large."""
    head = [conv(160, 960, 1, act=nn.Hardswish), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    head += [nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, 1000)]
    return nn.Sequential(*_mobilenet_v3_features(), *head)


def efficientnet_b0() -> nn.Module:
    """Tan and Le, ICML 2019, table 1."""
    layers: list[nn.Module] = [conv(3, 32, 3, 2, act=nn.SiLU)]
    channels = 32
    stages = ((1, 16, 3, 1, 1), (6, 24, 3, 2, 2), (6, 40, 5, 2, 2), (6, 80, 3, 2, 3), (6, 112, 5, 1, 3))
    for expand, outputs, kernel, stride, count in (*stages, (6, 192, 5, 2, 4), (6, 320, 3, 1, 1)):
        for number in range(count):
            mid = channels * expand
            squeeze = SqueezeExcite(mid, channels // 4, nn.SiLU, nn.Sigmoid)
            first = stride if number == 0 else 1
            layers.append(InvertedResidual(channels, mid, outputs, kernel, first, nn.SiLU, squeeze))
            channels = outputs
    return nn.Sequential(
        *layers, conv(320, 1280, 1, act=nn.SiLU), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)
    )


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (batch, channels, height, width)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.mix = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mix(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext_t() -> nn.Module:
    """Liu et al., CVPR 2022."""
    layers: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4), ChannelNorm(96)]
    for channels, count in ((96, 3), (192, 3), (384, 9), (768, 3)):
        if channels > 96:
            layers += [ChannelNorm(channels // 2), nn.Conv2d(channels // 2, channels, 2, 2)]
        layers += [ConvNextBlock(channels) for _ in range(count)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(768), nn.Linear(768, 1000))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        query, key, value = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).reshape(batch, tokens, width))


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        mix = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.mix = nn.Sequential(nn.LayerNorm(width), *mix)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(x)
        return x + self.mix(x)


class ViT(nn.Module):
    def __init__(self, width: int, depth: int, heads: int, patch: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (SIZE // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*[TransformerBlock(width, heads) for _ in range(depth)], nn.LayerNorm(width))
        self.head = nn.Linear(width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(self.blocks(torch.cat([self.token, patches], 1) + self.position)[:, 0])


def vit_s() -> nn.Module:
    """Touvron et al., ICML 2021: ViT-S/16, the small model of DeiT."""
    return ViT(384, 12, 6)


class UNet(nn.Module):
    """Ronneberger et al., MICCAI 2015, with a quarter of the channels, padded convolutions and batch norm."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128, 256), classes: int = 21) -> None:
        super().__init__()
        pairs = list(zip([3, *widths], widths, strict=False))
        self.down = nn.ModuleList(nn.Sequential(conv(one, two), conv(two, two)) for one, two in pairs)
        backwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(one, two, 2, 2) for one, two in backwards)
        self.join = nn.ModuleList(nn.Sequential(conv(2 * two, two), conv(two, two)) for _, two in backwards)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for number, layer in enumerate(self.down):
            x = layer(functional.max_pool2d(x, 2) if number else x)
            kept.append(x)
        for up, join, beside in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat([up(x), beside], 1))
        return self.head(x)


class Detector(nn.Module):
    """SSDLite (Sandler et al., CVPR 2018) on MobileNetV3: boxes and scores of two scales, two outputs."""

    def __init__(self, classes: int = 91, anchors: int = 6) -> None:
        super().__init__()
        features = _mobilenet_v3_features()
        self.fine, self.coarse = nn.Sequential(*features[:13]), nn.Sequential(*features[13:])
        self.boxes = nn.ModuleList(self._head(channels, 4 * anchors) for channels in (112, 160))
        self.scores = nn.ModuleList(self._head(channels, classes * anchors) for channels in (112, 160))
        self.classes = classes

    @staticmethod
    def _head(channels: int, outputs: int) -> nn.Module:
        return nn.Sequential(conv(channels, channels, 3, 1, channels, nn.ReLU6), nn.Conv2d(channels, outputs, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.fine(x)
        maps = fine, self.coarse(fine)
        boxes = [
            head(values).permute(0, 2, 3, 1).reshape(1, -1, 4) for head, values in zip(self.boxes, maps, strict=True)
        ]
        scores = [
            head(values).permute(0, 2, 3, 1).reshape(1, -1, self.classes)
            for head, values in zip(self.scores, maps, strict=True)
        ]
        return torch.cat(boxes, 1), torch.cat(scores, 1).softmax(-1)


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "resnet-18": resnet_18,
    "mobilenet-v3": mobilenet_v3,
    "efficientnet-b0": efficientnet_b0,
    "convnext-t": convnext_t,
    "vit-s": vit_s,
    "unet": UNet,
    "detector": Detector,
}


def make(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a model in evaluation mode, and an example input."""
    torch.manual_seed(0)
    return ARCHITECTURES[name]().eval(), torch.randn(1, 3, SIZE, SIZE)


def main() -> None:
    """Write TFLite files to a folder. A model that cannot be converted is reported and left out."""
    import litert_torch

    folder = Path(sys.argv[1])
    for name in ARCHITECTURES:
        module, example = make(name)
        try:
            litert_torch.convert(module, (example,)).export(str(folder / f"{name}.tflite"))
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            print(f"{name} does not convert to TFLite: {type(error).__name__}: {first}", file=sys.stderr)


if __name__ == "__main__":
    main()
