"""Waiting for a hot device to cool, where it tells its temperature."""

from typing import Any, Callable

POLL_S = 2.0
# Cool is so far below the temperature at which the kernel begins to slow the device down, in °C.
COOL_HEADROOM_C = 8.0
# A device that has not become cooler for so long will not.
PATIENCE_S = 20.0
LEAST_C = 0.5


def wait_until_cool(
    read: Callable[[], Any], cap_s: float, clock_s: Callable[[], float], sleep: Callable[[float], object]
) -> float:
    """Seconds waited: none where the device is not hot, or does not say; at most ``cap_s``.

    ``read`` gives its condition.
    """
    condition = read()
    if not condition.hot or cap_s <= 0:
        return 0.0
    start = better_at = clock_s()
    best_c = condition.headroom_c
    while condition.headroom_c < COOL_HEADROOM_C:
        now = clock_s()
        if now - start >= cap_s or now - better_at >= PATIENCE_S:
            break
        sleep(POLL_S)
        condition = read()
        if condition.headroom_c >= best_c + LEAST_C:
            best_c, better_at = condition.headroom_c, clock_s()
    return clock_s() - start
