"""One network that is trained separately, with the interface of a supernet."""

from collections.abc import Sequence
from copy import deepcopy

from torch import Tensor

from ofa_nas.spaces import Architecture, Space
from ofa_nas.supernet.dynamic_layers import DynamicLayer
from ofa_nas.supernet.network import Supernet
from ofa_nas.supernet.plain import PlainNetwork


class OneNetwork(Supernet):
    """The network of ``architecture``, whatever architecture is requested."""

    def __init__(
        self, space: Space, architecture: Architecture, classes: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__(space, classes, dropout)
        self.architecture = architecture
        self.network = PlainNetwork(self.blocks_of(architecture), space.batch_norm_epsilon, dropout)
        self.dropout = self.network.dropout

    def forward(self, images: Tensor, architecture: Architecture) -> Tensor:
        return self.network(images)

    @property
    def dynamic_layers(self) -> Sequence[DynamicLayer]:
        return ()

    def extract(self, architecture: Architecture) -> PlainNetwork:
        return deepcopy(self.network).eval()
