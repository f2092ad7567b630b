"""Small grey images in memory: digits, Fashion-MNIST and similar."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ofa_nas.normalisation import Normalisation
from ofa_nas.training.data.images import Array, Batch, Draw, Images, mixed

SHIFT = 2 / 28  # fraction of the size, to each side


class ArrayImages(Images):
    """``pixels`` (N, height, width) uint8, normalised by ``mean`` and ``std`` (of 0…1), returned as three equal
    channels.

    Augmented by a shift and, if ``flips``, by a horizontal flip.
    """

    def __init__(self, pixels: Array, labels: Array, mean: float, std: float, flips: bool) -> None:
        self.labels = labels.astype(np.int64)
        self._pixels = pixels
        self._mean, self._std, self._flips = mean, std, flips
        self.normalisation = Normalisation((mean,) * 3, (std,) * 3)

    def subset(self, indices: Sequence[int]) -> "ArrayImages":
        chosen = np.asarray(indices, dtype=np.intp)
        return ArrayImages(self._pixels[chosen], self.labels[chosen], self._mean, self._std, self._flips)

    def shared_with(self, other: "ArrayImages") -> int:
        """The number of these images that the other set has, too."""
        known = set(map(bytes, other._pixels))
        return sum(bytes(image) in known for image in self._pixels)

    def digest(self) -> str:
        found = hashlib.sha256(self._pixels.tobytes())
        found.update(self.labels.tobytes())
        return found.hexdigest()

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        """A batch of one size, in which all images are augmented or none."""
        index = np.array([draw.image for draw in draws], dtype=np.intp)
        px = draws[0].px
        images = (torch.from_numpy(self._pixels[index]).float() / 255 - self._mean) / self._std
        images = images[:, None]
        if images.shape[-2:] != (px, px):
            smaller = px < images.shape[-1]
            images = functional.interpolate(images, (px, px), mode="bilinear", antialias=smaller, align_corners=False)
        if draws[0].seed is not None:
            images = self._augmented(images, np.array([draw.seed for draw in draws], dtype=np.uint64))
        images = images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return Batch(images, torch.from_numpy(self.labels[index]), ())

    def _augmented(self, images: Tensor, seeds: Array) -> Tensor:
        """Shift the image; the border is filled with black."""
        count, px = len(images), images.shape[-1]
        most = max(1, round(SHIFT * px))
        random = mixed(seeds)
        down, right = (((random >> np.uint64(bits)) % np.uint64(2 * most + 1)).astype(np.int64) for bits in (8, 24))
        columns = np.arange(px)[None, :] + right[:, None]
        if self._flips:
            flipped = (random >> np.uint64(40)) & np.uint64(1) == 1
            columns[flipped] = columns[flipped, ::-1]
        rows = np.arange(px)[None, :] + down[:, None]
        padded = functional.pad(images[:, 0], (most,) * 4, value=-self._mean / self._std)
        at = torch.arange(count)[:, None, None]
        return padded[at, torch.from_numpy(rows)[:, :, None], torch.from_numpy(columns.copy())[:, None, :]][:, None]
