"""The learning rate over a stage: linear warm-up, then half a cosine (Loshchilov and Hutter, ICLR 2017)."""

import math


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """The learning rate of step ``step`` of ``steps``, counted from 0."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))
