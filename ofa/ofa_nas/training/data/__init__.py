"""Training images: sources, and batches at elastic resolutions."""

from ofa_nas.training.data.batches import evaluation_batches, loader, training_batches
from ofa_nas.training.data.images import Batch, Broken, Draw, Images
from ofa_nas.training.data.sources import VALUES, Data, open_data

__all__ = [
    "VALUES",
    "Batch",
    "Broken",
    "Data",
    "Draw",
    "Images",
    "evaluation_batches",
    "loader",
    "open_data",
    "training_batches",
]
