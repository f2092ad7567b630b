"""Format numbers and facts for the report: units, typographic minus signs, no-break spaces."""

import datetime
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from ofa_tables import words

SPACE = "\N{NO-BREAK SPACE}"
UNKNOWN = "–"


def percent(fraction: float | None, signed: bool = False) -> str:
    """Format a fraction: 0.0089 → ``0.9 %``. Values below 0.1 % have two decimals."""
    if fraction is None or not math.isfinite(fraction):
        return UNKNOWN
    value = 100 * fraction
    digits = 2 if 0 < round(abs(value), 2) < 0.1 else 1
    return _signed(value, digits, signed) + SPACE + "%"


def share(fraction: float | None) -> str:
    """Format a share of networks: ``100 %``, ``98.3 %``."""
    return percent(fraction).replace(f".0{SPACE}", SPACE)


def latency(value_ms: float | None, digits: int = 4) -> str:
    """Format a latency with ``digits`` significant digits: ``21.34 ms``."""
    if value_ms is None or not math.isfinite(value_ms):
        return UNKNOWN
    decimals = min(6, max(0, digits - 1 - math.floor(math.log10(value_ms)))) if value_ms > 0 else 0
    return f"{value_ms:,.{decimals}f}{SPACE}ms"


def number(value: float | None, digits: int, signed: bool = False) -> str:
    return UNKNOWN if value is None or not math.isfinite(value) else _signed(value, digits, signed)


def millions(count: float) -> str:
    """Format a count in millions, with three significant digits below 100 M: ``5.48 M``, ``4,089 M``."""
    value = count / 1e6
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}{SPACE}M"


def duration(seconds: float) -> str:
    """Format a duration with its two largest units: ``12 min 5 s``."""
    if not math.isfinite(seconds):
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{value}{SPACE}{unit}" for value, unit in parts if value]
    return " ".join(shown[:2]) or f"0{SPACE}s"


def moment(epoch: float) -> str:
    try:
        return datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime(f"%Y-%m-%d %H:%M{SPACE}UTC")
    except (OverflowError, ValueError, OSError):
        return UNKNOWN


def counted(count: int, noun: str) -> str:
    return words.counted(count, noun, space=SPACE)


def printable(text: Any) -> str:
    """Replace characters that are invalid in XML or UTF-8: control characters, lone surrogates, noncharacters."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in ("Cc", "Cs", "Cn") else character
        for character in str(text)
    )


def architecture_by_stage(architecture: Mapping[str, Any]) -> list[str]:
    """Format an architecture, one string per stage: ``["2×[k7 e6] [k5 e4]", …]``.

    The list is empty if the genes are not kernel sizes, expand ratios, and depths.
    """
    genes = [architecture.get(name) for name in ("ks", "e", "d")]
    kernels, expands, depths = (list(values) if isinstance(values, (list, tuple)) else [] for values in genes)
    if not depths:
        return []
    most = len(kernels) // len(depths)
    if most == 0 or len(kernels) != len(expands) or any(depth not in range(1, most + 1) for depth in depths):
        return []
    stages = []
    for stage, depth in enumerate(depths):
        used = slice(stage * most, stage * most + depth)
        stages.append(_runs([f"[k{k} e{e}]" for k, e in zip(kernels[used], expands[used], strict=True)]))
    return stages


def _runs(blocks: Sequence[str]) -> str:
    runs: list[tuple[str, int]] = []
    for block in blocks:
        if runs and runs[-1][0] == block:
            runs[-1] = (block, runs[-1][1] + 1)
        else:
            runs.append((block, 1))
    return " ".join(block if count == 1 else f"{count}×{block}" for block, count in runs)


def device_facts(device: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) pairs from the agent's description of the device. Missing values are left out."""
    facts = [
        ("Chip", _text(device.get("chip"))),
        ("Cores", _clusters(device.get("clusters"))),
        ("Memory", _memory(device.get("memory_bytes"))),
        ("Machine", _text(device.get("machine"))),
        ("Host", _text(device.get("host"))),
        ("System", _text(device.get("os"))),
        ("Kernel", _text(device.get("kernel"))),
        ("Python", _text(device.get("python"))),
        ("Runtimes", _text(device.get("runtimes"))),
    ]
    return [(what, value) for what, value in facts if value]


def condition_facts(condition: Any) -> dict[str, str]:
    """Return the device condition as name → value. Values that were not read ("" or a clock of 0) are left out."""
    if not isinstance(condition, Mapping):
        return {}
    facts = {
        "Governor": _text(condition.get("governor")),
        "Clock": _unit(condition.get("clock_mhz"), "MHz"),
        "Power mode": _text(condition.get("power_mode")),
        "GPU clock": _unit(condition.get("gpu_clock_mhz"), "MHz"),
        "Heat": "throttled" if condition.get("throttled") else "hot" if condition.get("hot") else "",
        "Load": _text(condition.get("load")),
    }
    temperatures = condition.get("temperatures_c")
    if isinstance(temperatures, Mapping):
        facts |= {f"Temperature, {zone}": _unit(value, "°C", decimals=1) for zone, value in temperatures.items()}
    return {what: value for what, value in facts.items() if value}


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}".strip() for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return str(value)


def _unit(value: Any, unit: str, decimals: int = 0) -> str:
    found = _number(value)
    if found is None:
        return _text(value)
    return f"{found:,.{decimals}f}{SPACE}{unit}" if found else ""


def _memory(value: Any) -> str:
    found = _number(value)
    return f"{found / 2**30:.1f}{SPACE}GiB" if found else ""


def _clusters(value: Any) -> str:
    if not isinstance(value, (list, tuple)):
        return ""
    parts = []
    for cluster in value:
        cpus = cluster.get("cpus") if isinstance(cluster, Mapping) else None
        if not isinstance(cpus, (list, tuple)) or not cpus:
            continue
        clock = _unit(cluster.get("max_mhz"), "MHz")
        parts.append(f"{len(cpus)}{SPACE}×{SPACE}{clock}" if clock else counted(len(cpus), "core"))
    return " + ".join(parts)


def _number(value: Any) -> float | None:
    """Convert to a finite float, or return None. Protobuf JSON encodes 64-bit integers as strings."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _signed(value: float, digits: int, signed: bool) -> str:
    text = f"{round(value, digits) + 0.0:{'+' if signed else ''},.{digits}f}"
    return text.replace("-", "−")
