"""CompOFA (Sahni et al., ICLR 2021): the MobileNetV3 space with expand ratios tied to depths.

In the fixed form, each stage has one kernel size: 3⁵ = 243 networks per resolution. The Blocks, and therefore the
entries of a table, are a subset of those of the OFA Spaces.
"""

from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace
from ofa_nas.spaces.mobilenet_v3 import layout
from ofa_nas.spaces.tiny import LAYOUT

EXPAND_BY_DEPTH = {2: 3, 3: 4, 4: 6}
KERNEL_BY_STAGE = (3, 5, 3, 3, 5)

FIXED_W10 = InvertedResidualSpace("compofa-fixed-w1.0", layout(1.0), KERNEL_BY_STAGE, EXPAND_BY_DEPTH)
ELASTIC_W10 = InvertedResidualSpace("compofa-elastic-w1.0", layout(1.0), expand_by_depth=EXPAND_BY_DEPTH)
TINY = InvertedResidualSpace("compofa-tiny", LAYOUT, expand_by_depth={1: 2, 2: 3, 3: 4})
