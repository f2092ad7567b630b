"""The supernet: one set of weights that all networks of a Space share.

``dynamic_ops`` use a part of their weights, ``dynamic_layers`` are made of these, ``network`` of those. A sub-network
is named by its Architecture with each call; nothing remembers which one was last. Needs torch.
"""

from ofa_nas.supernet.batch_norm import estimated
from ofa_nas.supernet.checkpoints import load_supernet, save_supernet
from ofa_nas.supernet.network import Supernet
from ofa_nas.supernet.plain import PlainNetwork
from ofa_nas.supernet.sorting import sort_channels

__all__ = ["PlainNetwork", "Supernet", "estimated", "load_supernet", "save_supernet", "sort_channels"]
