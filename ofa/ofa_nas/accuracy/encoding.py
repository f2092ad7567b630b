"""One-hot inputs of accuracy models: the published encoding, and one with every resolution of the space.

Layout for the MobileNetV3 Spaces. Their published predictor has 128 inputs:

0…59     kernel size of each block, one-hot (block × 3)    zeros for an unused block
60…119   expand ratio of each block, one-hot (block × 3)   zeros for an unused block
120…     resolution, one-hot: 112, 128, … 224 px as published, or all resolutions of the Space

Other genes, such as the widths of ResNet50D, are one-hot before the resolution.
"""

from collections.abc import Sequence

import numpy as np

from ofa_nas.spaces.gathers import Gather
from ofa_nas.spaces.reader import Reader
from ofa_nas.spaces.space import ABSENT, FloatArray, IntArray, Population, Position, Space
from ofa_tables.errors import FileError

PUBLISHED_PX = tuple(range(112, 225, 16))


class Encoder:
    """Encodes Populations of one Space. ``known_px`` are the resolutions that have an input."""

    def __init__(self, space: Space, known_px: Sequence[int]) -> None:
        blocks = _blocks(space)
        self.inputs = inputs_of(space, known_px)
        self.resolutions_px = tuple(px for px in space.resolutions_px if px in known_px)
        hot = [self.inputs] * len(space.resolutions_px)  # the last column is discarded
        first = self.inputs - len(known_px)
        for px in self.resolutions_px:
            hot[space.resolutions_px.index(px)] = first + tuple(known_px).index(px)
        resolution = ((len(space.radices) - 1,), (len(hot),), np.array(hot))
        # Which input is 1 for each joint code of some genes; ``inputs`` stands for none.
        self.hot: tuple[Gather, ...] = (
            *_hot_inputs(space, blocks, self.inputs),
            *_hot_genes(space, first),
            resolution,
        )
        self._reader = Reader(len(space.radices), self.hot)

    def __call__(self, population: Population) -> FloatArray:
        """Return (N, inputs) float32 zeros and ones. A resolution without an input is all zeros."""
        columns = self._reader(population.genes)
        inputs = np.zeros((len(population), self.inputs + 1), dtype=np.float32)
        inputs[np.arange(len(population)), columns] = 1
        return inputs[:, :-1]


def find_encoder(space: Space, inputs: int, name: str) -> Encoder:
    """Return the encoder with ``inputs`` inputs. Raises FileError, with the file ``name``, if the Space has none."""
    fitting = {inputs_of(space, known_px): known_px for known_px in (PUBLISHED_PX, space.resolutions_px)}
    if inputs not in fitting:
        sizes = " or ".join(f"{size} ({len(known_px)} resolutions)" for size, known_px in fitting.items())
        raise FileError(
            f"{name} has {inputs} inputs, but a model for {space.name} has {sizes}; set --space to the space of "
            "the model, or use --accuracy macs"
        )
    return Encoder(space, fitting[inputs])


def inputs_of(space: Space, known_px: Sequence[int]) -> int:
    others = int(space.radices[_other_genes(space)].sum())
    return len(_blocks(space)) * (len(space.kernel_sizes) + len(space.expand_ratios)) + others + len(known_px)


def _other_genes(space: Space) -> list[int]:
    counts = {group.name: group.count for group in space.groups}
    return [space.first_gene[name] + at for name in space.others_encoded for at in range(counts[name])]


def _hot_genes(space: Space, end: int) -> list[tuple[tuple[int, ...], tuple[int, ...], IntArray]]:
    """Return, for each other gene, which input is 1. The inputs of the last gene end before ``end``."""
    genes = _other_genes(space)
    ends = end - np.cumsum(space.radices[genes][::-1], dtype=int)[::-1]
    return [
        ((gene,), (int(space.radices[gene]),), first + np.arange(space.radices[gene]))
        for gene, first in zip(genes, ends, strict=True)
    ]


def _blocks(space: Space) -> list[Position]:
    return [position for position in space.positions if (position.kernels != ABSENT).any()]


def _hot_inputs(
    space: Space, blocks: list[Position], nowhere: int
) -> list[tuple[tuple[int, ...], tuple[int, ...], IntArray]]:
    """Return which input is 1 for the kernel size of each block, then for the expand ratio of each block."""
    kernels, expands = len(space.kernel_sizes), len(space.expand_ratios)
    first_expand = len(blocks) * kernels
    hot = [(block, block.kernels, at * kernels) for at, block in enumerate(blocks)]
    hot += [(block, block.expands, first_expand + at * expands) for at, block in enumerate(blocks)]
    return [
        (block.genes, block.radices, np.where(choice == ABSENT, nowhere, first + choice))
        for block, choice, first in hot
    ]
