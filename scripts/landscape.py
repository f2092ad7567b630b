"""An artificial accuracy model for search benchmarks; it is not linear in the genes."""

from collections.abc import Sequence

import numpy as np

from ofa_nas.accuracy import Linear, Mlp
from ofa_nas.accuracy.encoding import PUBLISHED_PX
from ofa_nas.spaces import Space

HIDDEN = 400
BENDS = 8  # units that carry the trend
INTERACTIONS = 0.02  # the standard deviation of what the genes make of each other, in accuracy


def landscape(space: Space, seed: int = 0, known_px: Sequence[int] = PUBLISHED_PX) -> Mlp:
    """Of the published size, 128 → 400 → 400 → 400 → 1, where ``known_px`` is the published one.

    Larger choices are worth more, each block's by a separate factor, and the more there is of all of them the less is
    added; upon that lies a random network (He et al. 2015's weights) of everything together.
    """
    rng = np.random.default_rng(seed)
    blocks = 20
    worth = rng.uniform(0.5, 1.5, size=(2, blocks))
    trend = np.concatenate(
        [
            np.ravel(worth[0][:, None] * (0.25, 0.5, 0.75)),  # kernel sizes 3, 5, 7
            np.ravel(worth[1][:, None] * (0.4, 0.85, 1.3)),  # expand ratios 3, 4, 6
            21.0 * np.arange(len(known_px)) / (len(known_px) - 1),
        ]
    )
    first = rng.standard_normal((HIDDEN, len(trend))) * np.sqrt(2 / (2 * blocks + 1))
    second, third = (rng.standard_normal((HIDDEN, HIDDEN)) * np.sqrt(2 / HIDDEN) for _ in range(2))
    last = rng.standard_normal((1, HIDDEN)) * (INTERACTIONS / np.sqrt(HIDDEN))
    biases = [rng.standard_normal(HIDDEN) * 0.3 for _ in range(3)]
    first[:BENDS], biases[0][:BENDS] = trend, -np.linspace(15, 50, BENDS)
    for weights, bias in ((second, biases[1]), (third, biases[2])):
        weights[:, :BENDS], weights[:BENDS], bias[:BENDS] = 0, 0, 0
        weights[:BENDS, :BENDS] = np.eye(BENDS)
    last[0, :BENDS] = 0.004 * np.array([1, *[-0.1] * (BENDS - 1)])
    layers = zip((first, second, third, last), (*biases, np.array([0.6])), strict=True)
    return Mlp(space, [[Linear(w.astype(np.float32), b.astype(np.float32)) for w, b in layers]], "a made-up landscape")


def linear_share(model: Mlp, space: Space, count: int = 20_000) -> float:
    """R² of the best model that is linear in the one-hot choices, over uniformly random networks."""
    rng = np.random.default_rng(1)
    population = space.sample(count, rng, model.resolutions_px)
    hot = np.concatenate(
        [np.eye(radix)[genes] for radix, genes in zip(space.radices, population.genes, strict=True)], 1
    )
    accuracy = model(population).astype(float)
    fitted = hot @ np.linalg.lstsq(hot, accuracy, rcond=None)[0]
    return float(1 - np.var(accuracy - fitted) / np.var(accuracy))
