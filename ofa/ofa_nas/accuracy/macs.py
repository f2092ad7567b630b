"""MACs as a stand-in for accuracy."""

from ofa_nas.spaces.space import FloatArray, Population, Space


class MacsStandIn:
    """Ranks networks by MACs. MACs are not an accuracy: more MACs are often, but not always, better."""

    name = "macs (a stand-in: ranks by multiply-accumulates, does not predict accuracy)"
    is_accuracy = False

    def __init__(self, space: Space) -> None:
        self.space = space

    @property
    def resolutions_px(self) -> tuple[int, ...]:
        return self.space.resolutions_px

    def __call__(self, population: Population) -> FloatArray:
        """Return (N,) MACs of one inference."""
        return self.space.macs(population)
