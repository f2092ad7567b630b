"""Fit an ensemble of MLPs to pairs. Needs torch; the result does not.

Each MLP has three hidden layers, as published (Cai et al., ICLR 2020, section 3.4). The members differ in their initial
weights and in the order of the training networks. Each uses early stopping on networks that it is not trained on.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ofa_nas.accuracy.encoding import Encoder
from ofa_nas.accuracy.layers import Linear
from ofa_nas.accuracy.pairs import Pairs
from ofa_nas.spaces import Space
from ofa_tables.errors import UsageError

FEWEST = 50
ENOUGH = 2 * FEWEST  # in total, including those held out and those for early stopping
HIDDEN = (400, 400, 400)
BATCH, RATE, DECAY = 64, 1e-3, 1e-4
MOST_EPOCHS, PATIENCE = 400, 40

Progress = Callable[[int, int], None]


def fit(pairs: Pairs, space: Space, members: int, seed: int, progress: Progress) -> list[list[Linear]]:
    """Fit the members to the pairs that are not held out; return their layers. Raises UsageError for too few pairs."""
    stopping = pairs.only([pair.reports_when_to_stop for pair in pairs.pairs])
    learned = pairs.only([not (pair.is_held_out or pair.reports_when_to_stop) for pair in pairs.pairs])
    if len(learned.pairs) < FEWEST or not stopping.pairs:
        raise UsageError(
            f"{len(pairs.pairs)} pairs are too few to fit: {FEWEST} are needed in addition to a tenth that is held out "
            f"and a tenth for early stopping; repeat ofa-accuracy collect with --networks {ENOUGH} to add pairs"
        )
    encoder = Encoder(space, space.resolutions_px)
    mean, scale = float(learned.accuracies.mean()), float(learned.accuracies.std()) or 1.0
    sets = [_tensors(encoder, space, part, mean, scale) for part in (learned, stopping)]
    found = []
    for member in range(members):
        progress(member, members)
        found.append(_layers(_fit_one(sets[0], sets[1], encoder.inputs, seed + member), mean, scale))
    progress(members, members)
    return found


def _fit_one(
    learned: tuple[torch.Tensor, torch.Tensor], stopping: tuple[torch.Tensor, torch.Tensor], inputs: int, seed: int
) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _mlp(inputs)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    x, y = learned
    best, best_loss, since = copy.deepcopy(model), float("inf"), 0
    for _ in range(MOST_EPOCHS):
        for chosen in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x[chosen])[:, 0], y[chosen]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(nn.functional.mse_loss(model(stopping[0])[:, 0], stopping[1]))
        since += 1
        if loss < best_loss:
            best, best_loss, since = copy.deepcopy(model), loss, 0
        if since >= PATIENCE:
            break
    return best


def _mlp(inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in HIDDEN:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 1))


def _tensors(
    encoder: Encoder, space: Space, pairs: Pairs, mean: float, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = encoder(space.encode(pairs.architectures))
    return torch.from_numpy(inputs), torch.from_numpy(((pairs.accuracies - mean) / scale).astype(np.float32))


def _layers(model: nn.Sequential, mean: float, scale: float) -> list[Linear]:
    """Return the layers. The last one is rescaled to accuracies, 0…1."""
    layers = [
        Linear(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
        for layer in model
        if isinstance(layer, nn.Linear)
    ]
    *hidden, last = layers
    return [*hidden, Linear(last.weight * np.float32(scale), last.bias * np.float32(scale) + np.float32(mean))]
