"""The space ``example-small``: MobileNetV3 blocks in two stages, for small images."""

from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace, Layout, Stage

SPACE = InvertedResidualSpace(
    "example-small",
    Layout(
        first_channels=(8, 8),
        first_activations=("hard_swish", "relu"),
        stages=(Stage(16, 2, "relu", False, 2), Stage(24, 2, "hard_swish", True, 2)),
        last_channels=(64, 96),
        last_activation="hard_swish",
        classes=10,
        resolutions_px=(24, 32),
        kernel_sizes=(3, 5),
        expand_ratios=(2, 3),
        depths=(1, 2),
    ),
)
