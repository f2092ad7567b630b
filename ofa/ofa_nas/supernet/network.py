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
    """Called with images (N, 3, px, px) and an Architecture, returns logits (N, classes).

    The size of the images counts, not the resolution of the Architecture. ``classes`` defaults to those of the space.
    Weights are drawn from torch's generator (He et al., 2015, by fan-out, as published). ``build_supernet`` makes the
    supernet of a space.
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
        """The layers with elastic width, in order."""
        raise NotImplementedError

    def active(self, architecture: Architecture) -> list[tuple[Tensor, ...]]:
        """The weights that the sub-network uses, in the order of the operators of its blocks."""
        raise NotImplementedError

    def blocks_of(self, architecture: Architecture) -> list[Block]:
        """The blocks of the space, with a classifier for the number of classes here."""
        *blocks, classifier = self.space.network_blocks(architecture)
        return [*blocks, with_classes(classifier, self.classes)]

    def extract(self, architecture: Architecture) -> PlainNetwork:
        """The sub-network as a standalone module in evaluation mode, with copies of its weights.

        Its batch norm has the statistics that evaluation uses now: within ``estimated`` those of the sub-network.
        """
        network = PlainNetwork(self.blocks_of(architecture), self.space.batch_norm_epsilon)
        network.load(self.active(architecture))
        return network.eval()

    def sort_channels(self, trained_ratios: tuple[float, ...]) -> None:
        """Sort the channels within each block by the L1 norm of the weights that read them in the next convolution,
        largest first (Cai et al., ICLR 2020, section 3.3), and the hidden units of a squeeze-excite in the same way.

        ``trained_ratios`` are the expand ratios that were already trained: no channel moves into one of their widths,
        because narrow networks rely on theirs. The output of the largest network does not change.
        """
        for layer in self.dynamic_layers:
            layer.sort(trained_ratios)
