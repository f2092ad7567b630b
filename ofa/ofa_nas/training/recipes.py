"""Recipes: the stages of a training. Epochs and rates are the papers', for batches of 2,048 images.

Progressive shrinking: Cai et al., ICLR 2020, section 4.2, and its public code. The compound stage: Sahni et al., ICLR
2021, section 3.2.
"""

import math
from dataclasses import dataclass, replace

from ofa_nas.spaces import Space
from ofa_tables.errors import UnknownName, UsageError

REFERENCE_BATCH = 2048
ALL = 1 << 10


@dataclass(frozen=True)
class Stage:
    """``rate`` is the peak learning rate for batches of REFERENCE_BATCH images; each step trains ``sub_networks``
    sub-networks.

    ``kernels``, ``expands`` and ``depths`` are numbers of choices of a gene, counted from the largest. ``distilled``:
    learn from the largest network of the first stage. ``sorts``: sort channels before the stage.
    """

    name: str
    epochs: int
    warmup_epochs: float
    rate: float
    sub_networks: int
    kernels: int = 1
    depths: int = 1
    expands: int = 1
    distilled: bool = True
    sorts: bool = False

    def scaled(self, factor: float) -> "Stage":
        """Scale the epochs; at least one remains."""
        return replace(
            self,
            epochs=max(1, math.floor(self.epochs * factor + 0.5)),
            warmup_epochs=self.warmup_epochs * factor,
        )

    @property
    def trains_one(self) -> bool:
        """Whether the stage trains only the largest network."""
        return self.kernels == self.depths == self.expands == 1

    def choices(self, group: str) -> int:
        return {
            "ks": self.kernels,
            "d": self.depths,
            "stem": self.depths,
            "e": self.expands,
            "w": self.expands,
        }.get(group, ALL)

    def ratios(self, space: Space) -> tuple[float, ...]:
        """The expand ratios that the stage trains."""
        fewest = self.depths if space.expand_by_depth is not None else self.expands
        return tuple(sorted(space.expand_ratios))[-fewest:]


_LARGEST = Stage("largest network", 180, 5, 2.6, 1, distilled=False)
_PROGRESSIVE = (
    _LARGEST,
    Stage("elastic kernel", 125, 5, 0.96, 1, ALL),
    Stage("elastic depth, the two largest", 25, 0, 0.08, 2, ALL, 2),
    Stage("elastic depth", 125, 5, 0.24, 2, ALL, ALL),
    Stage("elastic width, the two largest", 25, 0, 0.08, 4, ALL, ALL, 2, sorts=True),
    Stage("elastic width", 125, 5, 0.24, 4, ALL, ALL, ALL, sorts=True),
)
_COMPOUND = (
    _LARGEST,
    Stage("all networks, low rate", 25, 0, 0.08, 4, ALL, ALL, ALL, sorts=True),
    Stage("all networks", 125, 5, 0.24, 4, ALL, ALL, ALL),
)
RECIPES = {
    "progressive": _PROGRESSIVE,
    "compound": _COMPOUND,
    "largest": (_LARGEST,),
    # The baseline of progressive shrinking: its epochs, rates and sub-networks per step, with the whole space at once.
    "none": tuple(
        replace(stage, kernels=ALL, depths=ALL, expands=ALL, distilled=False, sorts=False) for stage in _PROGRESSIVE
    ),
    "independent": (replace(_LARGEST, name="one network"),),
}


def stages_of(recipe: str, space: Space, epochs_scale: float) -> list[Stage]:
    """Raises UnknownName; UsageError if the recipe does not suit the space."""
    if recipe not in RECIPES:
        raise UnknownName("recipe", recipe, RECIPES)
    if recipe == "compound" and space.expand_by_depth is None:
        raise UsageError(
            f"the compound recipe ties a stage's expand ratio to its depth, and {space.name} does not: train a space "
            "such as compofa-elastic-w1.0 or compofa-tiny"
        )
    return [stage.scaled(epochs_scale) for stage in RECIPES[recipe]]
