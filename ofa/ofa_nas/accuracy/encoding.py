"""The 128 inputs of the published accuracy predictor for the MobileNetV3 Spaces.

0…59     kernel size of each block, one-hot (block × 3)    zeros where a block is not in use
60…119   expand ratio of each block, one-hot (block × 3)   zeros where a block is not in use
120…127  resolution, one-hot, index (r − 112) / 16
"""

import numpy as np

from ofa_nas.spaces.reader import Reader
from ofa_nas.spaces.space import ABSENT, FloatArray, IntArray, Population, Position, Space
from ofa_tables.errors import UsageError

BLOCKS = 20
CHOICES = 3
RESOLUTIONS_PX = tuple(range(112, 225, 16))
INPUTS = 2 * BLOCKS * CHOICES + len(RESOLUTIONS_PX)


class Encoder:
    """Encodes Populations of one Space. Raises UsageError where the encoding is not made for the Space."""

    def __init__(self, space: Space) -> None:
        blocks = [position for position in space.positions if (position.kernels != ABSENT).any()]
        if len(blocks) != BLOCKS or len(space.kernel_sizes) != CHOICES or len(space.expand_ratios) != CHOICES:
            raise UsageError(
                f"{space.name} has {len(blocks)} blocks of {len(space.kernel_sizes)} kernel sizes and "
                f"{len(space.expand_ratios)} expand ratios; this accuracy model is for {BLOCKS} blocks of {CHOICES} "
                f"and {CHOICES}: choose one of the MobileNetV3 spaces, or --accuracy macs"
            )
        self.resolutions_px = tuple(px for px in space.resolutions_px if px in RESOLUTIONS_PX)
        self._reader = Reader(len(space.radices), [*_hot_inputs(blocks), _hot_resolution(space)])

    def __call__(self, population: Population) -> FloatArray:
        """(N, 128) float32 zeros and ones; resolutions that the encoding lacks are all zeros."""
        inputs = np.zeros((len(population), INPUTS + 1), dtype=np.float32)  # the last column takes what is not there
        inputs[np.arange(len(population)), self._reader(population.genes)] = 1
        return inputs[:, :INPUTS]


def _hot_inputs(blocks: list[Position]) -> list[tuple[tuple[int, ...], tuple[int, ...], IntArray]]:
    """For each block which input is 1 for its kernel size, then for each which one for its expand ratio."""
    halves = [[block.kernels for block in blocks], [block.expands for block in blocks]]
    return [
        (block.genes, block.radices, np.where(choice == ABSENT, INPUTS, CHOICES * (half * BLOCKS + at) + choice))
        for half, choices in enumerate(halves)
        for at, (block, choice) in enumerate(zip(blocks, choices, strict=True))
    ]


def _hot_resolution(space: Space) -> tuple[tuple[int, ...], tuple[int, ...], IntArray]:
    first = 2 * BLOCKS * CHOICES
    hot = [first + RESOLUTIONS_PX.index(px) if px in RESOLUTIONS_PX else INPUTS for px in space.resolutions_px]
    return (len(space.radices) - 1,), (len(hot),), np.array(hot)
