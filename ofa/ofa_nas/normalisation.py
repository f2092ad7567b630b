"""The conversion of pixels to network inputs."""

from typing import NamedTuple

Channels = tuple[float, float, float]


class Normalisation(NamedTuple):
    """``(value − mean) / std`` for red, green and blue, of values 0…1."""

    mean: Channels
    std: Channels
