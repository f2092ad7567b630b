"""Batch norm of a sub-network: the first channels of the supernet, with the sub-network's own statistics.

The running statistics of a supernet mix those of all sub-networks that were trained, so a sub-network's are estimated
again before it is evaluated (Cai et al., ICLR 2020, section 4.1): ``estimated`` does so without copying the supernet.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class BatchNorm(nn.BatchNorm2d):
    """Batch norm over the first channels, as many as the input has.

    In evaluation, ``statistics`` (mean, variance) of a sub-network replace the running ones. If set, ``estimator``
    receives the statistics of each batch, which is normalised with them. If set, ``moments`` computes the statistics of
    a batch over all processes.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps)
        self.statistics: tuple[Tensor, Tensor] | None = None
        self.estimator: Estimator | None = None
        self.moments: Callable[[Tensor], tuple[Tensor, Tensor, int]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        weight, bias = self.weight[:channels], self.bias[:channels]
        if self.estimator is not None:
            variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
            self.estimator.add(mean, variance, len(x))
            return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, self.eps)
        if self.training and self.moments is not None:
            return self._over_all(x, weight, bias)
        mean, variance = self.statistics_of(channels)
        return functional.batch_norm(x, mean, variance, weight, bias, self.training, self.momentum, self.eps)

    def statistics_of(self, channels: int) -> tuple[Tensor, Tensor]:
        """(mean, variance), each (channels,), that evaluation uses."""
        if self.statistics is not None and not self.training:
            return self.statistics
        return self.running_mean[:channels], self.running_var[:channels]

    def _over_all(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        assert self.moments is not None
        channels = x.shape[1]
        mean, variance, count = self.moments(x)
        with torch.no_grad():
            self.running_mean[:channels].lerp_(mean.detach(), self.momentum)
            self.running_var[:channels].lerp_(variance.detach() * (count / max(1, count - 1)), self.momentum)
        scale = weight * torch.rsqrt(variance + self.eps)
        shape = (1, -1, 1, 1)
        return x * scale.view(shape) + (bias - mean * scale).view(shape)


class Estimator:
    """Means of the statistics of batches, weighted by their images."""

    def __init__(self) -> None:
        self._mean: Any = 0.0
        self._variance: Any = 0.0
        self._images = 0

    def add(self, mean: Tensor, variance: Tensor, images: int) -> None:
        self._images += images
        part = images / self._images
        self._mean = self._mean + (mean - self._mean) * part
        self._variance = self._variance + (variance - self._variance) * part

    @property
    def statistics(self) -> tuple[Tensor, Tensor] | None:
        """None if no batch passed: the sub-network has no such layer."""
        return (self._mean, self._variance) if self._images else None


@contextlib.contextmanager
def estimated(model: nn.Module, forward: Callable[[Tensor], Any], batches: Iterable[Tensor]) -> Iterator[None]:
    """A context in which ``model`` is in evaluation mode, with statistics estimated on ``batches`` of images (N, 3, px,
    px).

    ``forward`` runs the sub-network in question. On exit everything is restored.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, BatchNorm)]
    was_training = model.training
    model.eval()
    try:
        for layer in layers:
            layer.estimator = Estimator()
        with torch.no_grad():
            for images in batches:
                forward(images)
        for layer in layers:
            assert layer.estimator is not None
            layer.statistics, layer.estimator = layer.estimator.statistics, None
        yield
    finally:
        for layer in layers:
            layer.statistics = layer.estimator = None
        model.train(was_training)
