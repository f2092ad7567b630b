"""A small space for small images. Training and search take minutes."""

from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace, Layout, Stage

LAYOUT = Layout(
    first_channels=(16, 16),
    first_activations=("hard_swish", "relu"),
    stages=(
        Stage(24, 2, "relu", False, 3),
        Stage(40, 2, "hard_swish", True, 3),
        Stage(64, 1, "hard_swish", True, 3),
    ),
    last_channels=(192, 256),
    last_activation="hard_swish",
    classes=10,
    resolutions_px=(20, 24, 28, 32),
    expand_ratios=(2, 3, 4),
    depths=(1, 2, 3),
)
TINY = InvertedResidualSpace("tiny", LAYOUT)
