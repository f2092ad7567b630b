"""The ProxylessNAS Space of Once-for-All: relu6, width multiplier 1.3, and six stages, of which the last has one block.

Published architectures have six depths. The last one is 1.
"""

from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace, Layout, Stage
from ofa_nas.spaces.parts import make_divisible


def layout(width_mult: float) -> Layout:
    def wide(channels: int) -> int:
        return make_divisible(channels * width_mult)

    return Layout(
        first_channels=(wide(32), wide(16)),
        first_activations=("relu6", "relu6"),
        stages=(
            Stage(wide(24), 2, "relu6", False, 4),
            Stage(wide(40), 2, "relu6", False, 4),
            Stage(wide(80), 2, "relu6", False, 4),
            Stage(wide(96), 1, "relu6", False, 4),
            Stage(wide(192), 2, "relu6", False, 4),
            Stage(wide(320), 1, "relu6", False, 1),
        ),
        last_channels=(wide(1280),),
        last_activation="relu6",
        classes=1000,
        resolutions_px=tuple(range(128, 225, 4)),
        batch_norm_epsilon=1e-3,
        keys_by_ratio=True,
    )


OFA_W13 = InvertedResidualSpace("ofa-proxyless-w1.3", layout(1.3))
