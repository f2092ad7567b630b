"""Images in folders, a folder for each class (ImageNet's layout), decoded by Pillow."""

import contextlib
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofa_nas.errors import DataError
from ofa_nas.normalisation import Normalisation
from ofa_nas.training.data.colours import UnsupportedMode, to_rgb, uses_few_bits
from ofa_nas.training.data.images import Array, Batch, Draw, Images

MAX_PIXELS = 1 << 28
# Mean and deviation of ImageNet's training images, which all published networks use.
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Szegedy et al., CVPR 2015: the fraction of the image that is cropped, and its aspect ratio.
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
BRIGHTNESS, SATURATION = 32 / 255, 0.5
CENTRE = 0.875  # fraction of the shorter side, in evaluation
SAMPLED = 20  # images whose range of values is looked at before training
TRIES = 20  # neighbours tried in place of a broken image


class FolderImages(Images):
    """``names`` are paths below ``folder``."""

    normalisation = IMAGENET

    def __init__(self, folder: Path, names: Sequence[str], labels: Array) -> None:
        self.labels = labels.astype(np.int64)
        self.names = list(names)
        self._folder = folder

    def subset(self, indices: Sequence[int]) -> "FolderImages":
        chosen = list(indices)
        return FolderImages(self._folder, [self.names[index] for index in chosen], self.labels[chosen])

    def digest(self) -> str:
        listed = "\n".join(f"{label} {name}" for label, name in zip(self.labels, self.names, strict=True))
        return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()

    def with_few_bits(self) -> list[str]:
        """Those of some images, evenly chosen, that have 16 bits and use at most 12 of them."""
        from PIL import Image

        found = []
        for name in self.names[:: max(1, len(self) // SAMPLED)][:SAMPLED]:
            with contextlib.suppress(Exception), Image.open(self._folder / name) as image:  # reported when decoded
                if image.width * image.height <= MAX_PIXELS and uses_few_bits(image):
                    found.append(name)
        return found

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        """A batch. Raises DataError if neither an image nor any of its neighbours can be decoded."""
        images = torch.empty(len(draws), 3, draws[0].px, draws[0].px, memory_format=torch.channels_last)
        labels, broken = [], []
        for row, draw in enumerate(draws):
            for tried in range(TRIES):
                index = (draw.image + tried) % len(self)
                path = self._folder / self.names[index]
                try:
                    images[row] = _normalised(_decoded(path, draw))
                except MemoryError:  # does not concern the image
                    raise
                except UnsupportedMode as error:
                    raise DataError(f"{path}: {error}") from None
                except Exception:  # Pillow raises anything for a damaged or huge file
                    broken.append(str(path))
                    continue
                labels.append(int(self.labels[index]))
                break
            else:
                raise DataError(f"{TRIES} images in a row cannot be decoded, the first is {broken[-TRIES]}; fix them")
        return Batch(images, torch.tensor(labels), tuple(broken))


def _decoded(path: Path, draw: Draw) -> Any:
    """A Pillow image, RGB, px × px. Raises the errors of Pillow."""
    from PIL import Image

    with Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError("too many pixels")
        if draw.seed is None:
            side = math.ceil(draw.px / CENTRE)
            image.draft("RGB", (side, side))
            return _centre(to_rgb(image), draw.px)
        rng = np.random.default_rng(draw.seed)
        box = _crop(image.width, image.height, rng)
        full = image.width
        image.draft("RGB", (math.ceil(draw.px * full / (box[2] - box[0])),) * 2)
        shrunk = image.width / full
        rgb = to_rgb(image)
        left, top, right, bottom = (min(edge * shrunk, most) for edge, most in zip(box, rgb.size * 2, strict=True))
        part = rgb.resize((draw.px, draw.px), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        return _jittered(part, rng)


def _crop(width: int, height: int, rng: np.random.Generator) -> tuple[float, ...]:
    """(left, top, right, bottom) of a random crop; the central part if ten attempts do not fit."""
    for _ in range(10):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
            return (left, top, left + wide, top + high)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return (left, top, left + side, top + side)


def _centre(image: Any, px: int) -> Any:
    from PIL import Image

    side = min(image.width, image.height) * CENTRE
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((px, px), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _jittered(image: Any, rng: np.random.Generator) -> Any:
    """Flip half of the images; vary brightness and saturation."""
    from PIL import Image, ImageEnhance

    flips, brightness, saturation = rng.random(), rng.uniform(-1, 1), rng.uniform(-1, 1)
    if flips < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = ImageEnhance.Brightness(image).enhance(1 + BRIGHTNESS * brightness)
    return ImageEnhance.Color(image).enhance(1 + SATURATION * saturation)


def _normalised(image: Any) -> Tensor:
    values = torch.from_numpy(np.array(image, dtype=np.float32)) / 255
    return ((values - torch.tensor(IMAGENET.mean)) / torch.tensor(IMAGENET.std)).permute(2, 0, 1)
