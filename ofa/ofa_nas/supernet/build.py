"""Build the supernet of a space."""

from ofa_nas.spaces import Space
from ofa_nas.spaces.bottlenecks import BottleneckSpace
from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace
from ofa_nas.supernet.bottlenecks import BottleneckSupernet
from ofa_nas.supernet.inverted_residuals import InvertedResidualSupernet
from ofa_nas.supernet.network import Supernet
from ofa_tables.errors import UsageError


def build_supernet(space: Space, classes: int | None = None, dropout: float = 0.0) -> Supernet:
    """Raises UsageError for a space without a supernet."""
    if isinstance(space, InvertedResidualSpace):
        return InvertedResidualSupernet(space, classes, dropout)
    if isinstance(space, BottleneckSpace):
        return BottleneckSupernet(space, classes, dropout)
    raise UsageError(
        f"{space.name} has no supernet, so it cannot be trained; training needs a space of inverted residuals or "
        "bottlenecks, such as those in docs/spaces.md"
    )
