"""MACs as a stand-in for accuracy."""

from ofa_nas.spaces.space import FloatArray, Population, Space


class MacsStandIn:
    """Rank networks by MACs. This is not an accuracy: networks with more MACs are often, not always, better."""

    name = "macs (a stand-in: ranks by multiply-accumulates, predicts no accuracy)"
    is_accuracy = False

    def __init__(self, space: Space) -> None:
        self.space = space

    @property
    def resolutions_px(self) -> tuple[int, ...]:
        return self.space.resolutions_px

    def __call__(self, population: Population) -> FloatArray:
        """(N,) MACs of one inference."""
        return self.space.macs(population)
