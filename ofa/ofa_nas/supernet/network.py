"""A Space's supernet: the weights of its largest network, of which every sub-network uses a part."""

from collections.abc import Sequence

from torch import Tensor, nn

from ofa_agent.operators import Block
from ofa_nas.normalisation import Normalisation
from ofa_nas.spaces import Architecture, Space
from ofa_nas.spaces.parts import with_classes
from ofa_nas.supernet.dropout import Dropout
from ofa_nas.supernet.dynamic_layers import DynamicLayer
from ofa_nas.supernet.plain import PlainNetwork


class Supernet(nn.Module):
    """Called on images (N, 3, px, px) and an Architecture, gives its logits (N, classes).

    The images' size is what it is: the Architecture's resolution is not looked at. ``classes`` unless given are the
    Space's. Weights are drawn from torch's generator (He et al., 2015, by fan-out, as published). ``build_supernet``
    makes the one that a Space has.
    """

    def __init__(self, space: Space, classes: int | None, dropout: float) -> None:
        super().__init__()
        self.space = space
        self.classes = classes or space.classes
        # If a checkpoint contains them.
        self.class_names: tuple[str, ...] | None = None
        self.normalisation: Normalisation | None = None
        self.dropout = Dropout(dropout)

    def forward(self, images: Tensor, architecture: Architecture) -> Tensor:
        raise NotImplementedError

    @property
    def dynamic_layers(self) -> Sequence[DynamicLayer]:
        """Those whose width is elastic, in order."""
        raise NotImplementedError

    def active(self, architecture: Architecture) -> list[tuple[Tensor, ...]]:
        """What the sub-network uses of the weights, in the order of its Blocks' Operators."""
        raise NotImplementedError

    def blocks_of(self, architecture: Architecture) -> list[Block]:
        """The Space's, with a classifier for as many classes as there are here."""
        *blocks, classifier = self.space.network_blocks(architecture)
        return [*blocks, with_classes(classifier, self.classes)]

    def extract(self, architecture: Architecture) -> PlainNetwork:
        """The sub-network by itself, in evaluation: a plain module with copies of its weights.

        Its batch norm has the statistics that evaluation uses now: within ``estimated`` the sub-network's own.
        """
        network = PlainNetwork(self.blocks_of(architecture), self.space.batch_norm_epsilon)
        network.load(self.active(architecture))
        return network.eval()

    def sort_channels(self, trained_ratios: tuple[float, ...]) -> None:
        """Sorts the channels within each block by the L1 norm of what the next convolution makes of them, the largest
        first (Cai et al., ICLR 2020, section 3.3), and the hidden units of a squeeze-excite in the same way.

        ``trained_ratios`` are the expand ratios that were trained already: no channel moves from beyond one of their
        widths to below it, for narrow networks rely on theirs. What the largest network computes does not change.
        """
        for layer in self.dynamic_layers:
            layer.sort(trained_ratios)
