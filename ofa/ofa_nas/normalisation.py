"""The conversion of pixels to network inputs."""

from typing import NamedTuple

Channels = tuple[float, float, float]


class Normalisation(NamedTuple):
    """``(value − mean) / std`` for red, green and blue, for values from 0 to 1."""

    mean: Channels
    std: Channels
