"""Build the supernet of a space."""

from ofa_nas.spaces import Space
from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace
from ofa_nas.spaces.resnet50d import ResNet50DSpace
from ofa_nas.supernet.inverted_residuals import InvertedResidualSupernet
from ofa_nas.supernet.network import Supernet
from ofa_nas.supernet.resnet50d import ResNet50DSupernet
from ofa_tables.errors import UsageError


def build_supernet(space: Space, classes: int | None = None, dropout: float = 0.0) -> Supernet:
    """Raises UsageError for a space without a supernet."""
    if isinstance(space, InvertedResidualSpace):
        return InvertedResidualSupernet(space, classes, dropout)
    if isinstance(space, ResNet50DSpace):
        return ResNet50DSupernet(space, classes, dropout)
    raise UsageError(f"{space.name} has no supernet here; the spaces that come with this package have")
