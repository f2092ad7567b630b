"""The teacher: the largest network of the first stage, in evaluation mode, with statistics per image size.

The supernet's running statistics are a mixture of the last few batches' sizes, and the teacher is asked about each size
by itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ofa_nas.spaces import Architecture
from ofa_nas.supernet import PlainNetwork, Supernet, estimated

Norms = Mapping[int, Sequence[tuple[Tensor, Tensor]]]


class Teacher:
    """Called with images (N, 3, px, px), returns logits (N, classes).

    ``norms`` are the folded batch norms for each px (``PlainNetwork.norms``). Those of the image size are folded into
    the only network, so that torch.compile makes one graph for all sizes.
    """

    def __init__(self, network: PlainNetwork, norms: Norms, device: torch.device, compiled: bool) -> None:
        network = network.to(device, memory_format=torch.channels_last)
        self._state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        normalised = network.normalised
        self._unfolded = [layer.conv.weight.detach().clone() for layer in normalised]
        self._network = network.fold()
        self._weights = [layer.conv.weight for layer in normalised]
        self._biases = [layer.conv.bias for layer in normalised if layer.conv.bias is not None]
        self._norms = {px: [(scale.to(device), shift.to(device)) for scale, shift in at] for px, at in norms.items()}
        self._px = 0
        self._ask = torch.compile(network, dynamic=True) if compiled else network

    @classmethod
    def of(
        cls,
        supernet: Supernet,
        architecture: Architecture,
        statistics: Iterable[tuple[int, Iterable[Tensor]]],
        device: torch.device,
        compiled: bool,
    ) -> "Teacher":
        """The sub-network as it is now. ``statistics`` are batches of images per px to estimate batch norm."""
        norms = {}
        for px, batches in statistics:
            with estimated(supernet, lambda x: supernet(x, architecture), batches):
                norms[px] = supernet.extract(architecture).norms()
        return cls(supernet.extract(architecture), norms, device, compiled)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self._px:
            self._fold(images.shape[-1])
        return self._ask(images)

    def _fold(self, px: int) -> None:
        self._px = px
        scales, shifts = zip(*self._norms[px], strict=True)
        torch._foreach_copy_(self._weights, torch._foreach_mul(self._unfolded, scales))
        torch._foreach_copy_(self._biases, shifts)

    def state(self) -> dict[str, Any]:
        return {"network": self._state, "norms": self._norms}

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], network: PlainNetwork, device: torch.device, compiled: bool
    ) -> "Teacher":
        """``network`` has the same blocks."""
        network.load_state_dict(state["network"])
        return cls(network, state["norms"], device, compiled)
