"""Model files of users in TFLite's ``benchmark_model``: its inputs, its memory, and the profile of its operators.

With ``--enable_op_profiling`` the tool prints tables of operators after the runs. Their columns depend on the version,
and are found by their names: ``[node type] [start] [first] [avg ms] [%] [cdf%] [mem KB] [times called] [Name]``.
"""

import re
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ofa_agent.inputs import BELOW, INTEGERS, ModelInput
from ofa_agent.runtimes import Layer, Unsupported

PROFILE = "--enable_op_profiling=true"
MIB = 1 << 20

_FOOTPRINT = re.compile(r"(?:Memory footprint delta|Peak memory footprint).*\(MB\): init=\S+ overall=(\d+(?:\.\d+)?)")
_OF_RUNS = "Operator-wise Profiling Info for Regular Benchmark Runs"
_ORDER = "Run Order"
_HEAD = "[node type]"
_INDEX = re.compile(r":\d+$")  # after the name of an operator: its place in the graph


class ProfiledLayers(NamedTuple):
    """Operators in order of execution, and their mean times in ns."""

    layers: List[Layer]
    took_ns: List[int]


def input_flags(inputs: Sequence[ModelInput]) -> List[str]:
    """Return the flags that set shapes, and ranges of integers. Raises Unsupported for a name that no flag can hold."""
    for each in inputs:
        if not each.name or set(each.name) & set(",: "):
            raise Unsupported("benchmark_model cannot name the input %r; rename it" % each.name)
    flags = [
        "--input_layer=%s" % ",".join(each.name for each in inputs),
        "--input_layer_shape=%s" % ":".join(",".join(map(str, each.shape)) or "1" for each in inputs),
    ]
    ranges = ["%s,0,%d" % (each.name, (each.below or BELOW) - 1) for each in inputs if each.kind in INTEGERS]
    return flags + (["--input_layer_value_range=%s" % ":".join(ranges)] if ranges else [])


def footprint_bytes(printed: str) -> int:
    """Return the memory that loading and running the model took; 0 if the tool did not print it."""
    found = _FOOTPRINT.search(printed)
    return int(float(found.group(1)) * MIB) if found else 0


def read_layers(printed: str) -> ProfiledLayers:
    """Return the operators of the timed runs from what the tool printed. Raises Unsupported."""
    lines = printed.splitlines()
    start = _index(lines, _OF_RUNS, 0)
    head = None if start is None else _index(lines, _HEAD, _index(lines, _ORDER, start) or start)
    if head is None:
        raise Unsupported("this version of benchmark_model prints no profile of operators")
    columns = [name.strip("[] ") for name in lines[head].split("\t") if name.strip()]
    layers, took_ns = [], []
    for line in lines[head + 1 :]:
        cells = [cell.strip() for cell in line.split("\t") if cell.strip()]
        if len(cells) != len(columns):
            break
        row = dict(zip(columns, cells))
        layer, ns = _row(row)
        layers.append(layer)
        took_ns.append(ns)
    if not layers:
        raise Unsupported("benchmark_model printed an empty profile of operators")
    return ProfiledLayers(layers, took_ns)


def _row(row: Dict[str, str]) -> Tuple[Layer, int]:
    try:
        name = _INDEX.sub("", row["Name"]).strip("[]")
        return Layer(name, row["node type"]), int(float(row["avg ms"]) * 1e6)
    except (KeyError, ValueError):
        raise Unsupported("this version of benchmark_model prints an unknown profile of operators") from None


def _index(lines: Sequence[str], text: str, start: int) -> Optional[int]:
    return next((at for at in range(start, len(lines)) if text in lines[at]), None)
