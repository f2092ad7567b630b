"""The MobileNetV3 Spaces of Once-for-All (Cai et al., ICLR 2020): five stages of two to four inverted residuals."""

from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace, Layout, Stage
from ofa_nas.spaces.parts import make_divisible


def layout(width_mult: float) -> Layout:
    def wide(channels: int) -> int:
        return make_divisible(channels * width_mult)

    first = wide(16)
    return Layout(
        first_channels=(first, first),
        first_activations=("hard_swish", "relu"),
        stages=(
            Stage(wide(24), 2, "relu", False, 4),
            Stage(wide(40), 2, "relu", True, 4),
            Stage(wide(80), 2, "hard_swish", False, 4),
            Stage(wide(112), 1, "hard_swish", True, 4),
            Stage(wide(160), 2, "hard_swish", True, 4),
        ),
        last_channels=(wide(960), wide(1280)),
        last_activation="hard_swish",
        classes=1000,
        resolutions_px=tuple(range(128, 225, 4)),
    )


OFA_W10 = InvertedResidualSpace("ofa-mbv3-w1.0", layout(1.0))
OFA_W12 = InvertedResidualSpace("ofa-mbv3-w1.2", layout(1.2))
