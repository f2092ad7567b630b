"""Wait for a hot device to cool, if it reports its temperature."""

from typing import Any, Callable, List

from ofa_agent.conditions.thermal import hottest_c

POLL_S = 2.0
# A device is cool at this distance in °C below the temperature at which the kernel throttles it.
COOL_HEADROOM_C = 8.0
# Stop waiting if the device has not cooled by LEAST_C within PATIENCE_S.
PATIENCE_S = 20.0
LEAST_C = 0.5
# A battery cools slowly, and reports its temperature in steps of 0.1 °C.
BATTERY_PATIENCE_S = 60.0
BATTERY_LEAST_C = 0.1


def wait_until_cool(
    read: Callable[[], Any], cap_s: float, clock_s: Callable[[], float], sleep: Callable[[float], object]
) -> float:
    """Wait while the device is hot, at most ``cap_s`` seconds; return the seconds waited.

    ``read`` returns the condition. A device that does not report whether it is hot is not waited for.
    """
    condition = read()
    if not condition.hot or cap_s <= 0:
        return 0.0
    slow = "battery" in condition.temperatures_c
    patience_s, least_c = (BATTERY_PATIENCE_S, BATTERY_LEAST_C) if slow else (PATIENCE_S, LEAST_C)
    start = better_at = clock_s()
    best_c = _coolness_c(condition)
    while condition.hot or 0 < condition.headroom_c < COOL_HEADROOM_C:
        now = clock_s()
        if now - start >= cap_s or now - better_at >= patience_s:
            break
        sleep(POLL_S)
        condition = read()
        now_c = _coolness_c(condition)
        if any(this >= best + least_c for this, best in zip(now_c, best_c)):
            best_c, better_at = [max(pair) for pair in zip(now_c, best_c)], clock_s()
    return clock_s() - start


def _coolness_c(condition: Any) -> List[float]:
    """Return the headroom and the negated highest temperature: a device may report heat without a headroom."""
    return [condition.headroom_c, -(hottest_c(condition.temperatures_c) or 0.0)]
