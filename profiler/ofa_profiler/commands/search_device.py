"""What ``ofa-search`` measures: the network that it found, and model files beside it.

Connections take half a second to import, so that this module is imported only with a device.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ofa_nas.cli import console, say
from ofa_nas.search import Found, Problem, Question
from ofa_nas.spaces import Space
from ofa_nas.spaces.recorded import record
from ofa_profiler import library
from ofa_profiler.commands.progress import CampaignProgress
from ofa_profiler.comparison.verify import verify
from ofa_profiler.connections import connect
from ofa_profiler.models.formats import read_model, stated_accuracies
from ofa_profiler.models.shapes import parse_shapes, require_used
from ofa_profiler.targets.table_target import find_again, require_same
from ofa_profiler.targets.target import parse_settings
from ofa_tables.errors import DeviceError
from ofa_tables.table import LatencyTable


def measure_files(
    path: Path,
    space: Space,
    files: Sequence[Path],
    shapes: Sequence[str],
    stated: Sequence[str],
    target: str | None,
    pairs: tuple[str, ...],
) -> None:
    """Measure model files as reference networks of a table. Raises OfaError."""
    given = parse_shapes(shapes)
    models = [read_model(file, given) for file in files]
    require_used(given, [each.name for model in models for each in model.inputs])
    comparison = library.compare(
        path,
        None,
        models=models,
        accuracies=stated_accuracies(stated, [model.name for model in models]),
        target=target,
        space=space,
        settings=parse_settings(pairs),
        say=say,
        show_progress=partial(CampaignProgress, console),
    )
    for model in models:
        if model.key in comparison.failures:
            raise DeviceError(f"{model.name}: {comparison.failures[model.key]}")


def verify_found(
    path: Path, question: Question, carry_out: Callable[..., Found], target: str | None, pairs: tuple[str, ...]
) -> tuple[Problem, Found, dict[str, Any]]:
    """Measure what a search finds until it meets the limit, and return it with its measurements."""
    with LatencyTable.open(path) as table:
        device = find_again(table, target, parse_settings(pairs))
        with connect(device) as connection:
            connection.say = say
            require_same(table, device, connection.agent.describe())
            record(table, question.space)
            progress = partial(CampaignProgress, console, "verifying")
            verified = verify(table, question, carry_out, connection, progress, say)
    measured = {
        "measured_latency_ms": verified.measured.measured_ms,
        "passes_ms": list(verified.measured.passes_ms),
        "misses": [
            {"predicted_latency_ms": predicted, "measured_latency_ms": network.measured_ms}
            for predicted, network in verified.misses
        ],
    }
    return verified.problem, verified.found, measured
