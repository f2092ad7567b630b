"""The supernet: one set of weights that all networks of a Space share.

``dynamic_ops`` use a part of their weights, layers are made of these, and supernets, one for each family of Spaces, of
those. A sub-network is named by its Architecture with each call; nothing remembers which one was last. Needs torch.
"""

from ofa_nas.supernet.alone import OneNetwork
from ofa_nas.supernet.batch_norm import estimated
from ofa_nas.supernet.build import build_supernet
from ofa_nas.supernet.checkpoints import load_network, load_supernet, save_supernet
from ofa_nas.supernet.network import Supernet
from ofa_nas.supernet.plain import PlainNetwork

__all__ = [
    "OneNetwork",
    "PlainNetwork",
    "Supernet",
    "build_supernet",
    "estimated",
    "load_network",
    "load_supernet",
    "save_supernet",
]
