"""The Python interface: profile, compare and search as functions. The commands call these functions and print.

``docs/python.md`` shows how to use them from a notebook. No caller handles a Connection or a thread.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_nas.accuracy import MACS, AccuracyModel, FunctionAccuracy, open_accuracy
from ofa_nas.accuracy.loading import Evaluate, Loaded
from ofa_nas.errors import FunctionFailed
from ofa_nas.references import FAMILY, REFERENCES
from ofa_nas.search import Budget, Question, find_method
from ofa_nas.search import search as run_search
from ofa_nas.selection import read_names, read_networks
from ofa_nas.spaces import Architecture, Space, architecture_in
from ofa_nas.spaces.recorded import find_space_in, find_space_of, record, spaces_of
from ofa_profiler.campaign.campaign import Outcome
from ofa_profiler.campaign.effort import EFFORTS
from ofa_profiler.campaign.profile import Profiler
from ofa_profiler.campaign.progress import ShowProgress, no_progress, silent
from ofa_profiler.campaign.summary import list_devices, summarise, timed_in_all
from ofa_profiler.comparison.compare import Comparer, Drawn, draw
from ofa_profiler.comparison.statistics import Comparison
from ofa_profiler.connections import Connection, connect
from ofa_profiler.models.formats import read_model, require_reads
from ofa_profiler.models.from_python import profile_model
from ofa_profiler.models.model_file import ModelFile
from ofa_profiler.models.results import ModelProfile
from ofa_profiler.priors import priors_of
from ofa_profiler.results import Latencies, ProfileResult, SearchResult
from ofa_profiler.simulation.compute import compute_table, require_supported
from ofa_profiler.table_file import Say, default_path, open_for_writing, record_conditions
from ofa_profiler.targets.table_target import find_again, require_conditions, require_same
from ofa_profiler.targets.target import Target, choose_runtime, find_target
from ofa_tables.errors import UsageError
from ofa_tables.identity import ALONE, IN_NETWORKS, Identity, Settings
from ofa_tables.model.latency_model import LatencyModel, calibrations, fullest_space, read_calibration
from ofa_tables.store.measurement import SIMULATED
from ofa_tables.table import LatencyTable

__all__ = [
    "ModelProfile",
    "ProfileResult",
    "SearchResult",
    "compare",
    "open_table",
    "predict",
    "profile",
    "profile_model",
    "read_model",
    "search",
]

PUBLISHED_RESOLUTIONS_PX = (160, 176, 192, 208, 224)
MOST_MEASURED = 5  # resolutions; if more are wanted, some entries are predicted
FIRST_CALIBRATION = 10  # networks
ENOUGH_CALIBRATION = 5  # with fewer networks, as after --verify, the line is unreliable


def open_table(path: str | Path) -> LatencyTable:
    """Open a latency table for reading. Raises TableUnreadable."""
    return LatencyTable.read(Path(path))


def predict(
    table: LatencyTable, networks: Sequence[Architecture | Mapping[str, Any] | str], space: str | Space | None = None
) -> Any:
    """Predict latencies, (networks,) in ms, with the table's calibration if it has one. Raises EntriesMissing.

    A network is an Architecture, a mapping such as ``{"ks": 7, "e": 6, "d": 4, "r": 224}``, or a word such as
    ``"largest"``. The array has the attribute ``simulated``: whether the table was computed instead of measured.
    """
    space = _space(table, space)
    model = LatencyModel.calibrated(table, space)
    parsed = _members(networks, space, model)
    model.require({network.resolution_px for network in parsed})
    return Latencies.of(model.predict(space.encode(parsed)), table.simulated)


def search(
    table: LatencyTable,
    max_latency_ms: float,
    space: str | Space | None = None,
    *,
    accuracy: str | Evaluate = MACS,
    evaluated: str | Path | None = None,
    workers: int = 1,
    resolutions: Sequence[int] | None = None,
    confidence: float | None = None,
    method: str = "annealing",
    population: int = 100,
    generations: int = 500,
    seconds: float = math.inf,
    seed: int = 0,
) -> SearchResult:
    """Find the most accurate network within a latency limit in ms; the same seed gives the same network.

    ``accuracy`` is the file of an accuracy model, a function that takes a list of Architectures and returns their
    accuracies, 0…1, its name (``module:function``), or "macs" to rank networks by MACs. ``evaluated`` is a file for
    what the function returned, whose networks are not evaluated again. ``workers`` processes call the function.

    Raises LimitUnreachable, NoneFound, and FunctionFailed if the function fails; ``evaluated`` then has what it
    returned before.
    """
    space = _space(table, space)
    model = _accuracy(accuracy, space, None if evaluated is None else Path(evaluated), workers)
    chosen = None if resolutions is None else tuple(resolutions)
    question = Question(space, model, (max_latency_ms,), {}, chosen, confidence)
    problem = question.to_problem([LatencyModel.calibrated(table, space)])
    found = run_search(problem, find_method(method), Budget(population, generations, seconds), seed)
    if found.failed:
        raise FunctionFailed(found.failed)
    (best,) = found.best
    (architecture,) = space.decode(best.population)
    return SearchResult(architecture, float(best.prices[0, 0]), float(best.accuracy[0]), found, table.simulated)


def _accuracy(accuracy: str | Evaluate, space: Space, evaluated: Path | None, workers: int) -> AccuracyModel:
    if isinstance(accuracy, str):
        return open_accuracy(accuracy, space, evaluated, workers)
    name = getattr(accuracy, "__qualname__", type(accuracy).__name__)
    return FunctionAccuracy(space, Loaded(name, accuracy, by_name=False), evaluated, workers)


def profile(
    target: str | Target = "local",
    space: str | Space = "ofa-mbv3-w1.0",
    *,
    resolutions: Sequence[int] | None = None,
    runtime: str | None = None,
    threads: int = 1,
    batch: int = 1,
    precision: str | None = None,
    effort: str = "standard",
    blocks: str | None = None,
    measure_all: bool = False,
    error: float | None = None,
    seconds: float | None = None,
    priors: Sequence[str | Path] = (),
    settings: Mapping[str, str] | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    fit: str | Path | None = None,
    say: Say = silent,
    show_progress: ShowProgress = no_progress,
) -> ProfileResult:
    """Measure the blocks of a space on a target and keep them in a latency table; continue if the table exists.

    ``resolutions`` in pixels: None for the published ones, empty for all. ``settings`` are conditions of the device
    (``{"governor": "performance"}``) and of its connection. With ``error`` (half the 95 % interval of networks,
    relative to it) or ``seconds``, only what helps most is measured until then, and the rest is predicted; without
    either, the same is done for more than MOST_MEASURED resolutions unless ``measure_all`` is set. ``priors`` are other
    tables, or folders of them; the table remembers them. The table of a simulated target is computed; ``fit`` is a CSV
    file of measured latencies to fit its engine to. Raises OfaError.
    """
    started, began = time.perf_counter(), time.monotonic()
    device = find_target(target, settings or {}, runtime) if isinstance(target, str) else target
    space = find_space_in(space, [Path(out)] if out else []) if isinstance(space, str) else space
    wanted_px = default_resolutions(space) if resolutions is None else tuple(resolutions) or space.resolutions_px
    space.require_resolutions(wanted_px)
    run_settings = Settings(precision or device.precision, threads, batch)
    if device.connection == SIMULATED:
        require_supported(device, run_settings, runtime, blocks, {"error": error, "seconds": seconds, "prior": priors})
        return ProfileResult(*compute_table(device, space, wanted_px, run_settings, out, fresh, fit, say), Outcome())
    if fit is not None:
        raise UsageError(f"--fit scales the engine of a simulated target, and {device.name} is measured; remove it")
    if measure_all and (error is not None or seconds is not None):
        raise UsageError("--measure-all measures every block, and --error and --seconds only some; remove one of them")
    with connect(device) as connection:
        connection.say = say
        description = connection.agent.describe()
        identity = _identity(device, description, runtime, run_settings, blocks, say)
        path = Path(out) if out is not None else default_path(device, identity)
        with open_for_writing(path, identity, description, fresh, say) as table:
            require_conditions(table, device)
            record(table, space)
            record_conditions(table, device, Outcome())  # now, in case this run is interrupted
            say(
                f"{path}: {identity.target} ({description['chip']}), {identity.runtime} {identity.runtime_version}, "
                f"{run_settings}"
            )
            finished = timed_in_all(table, EFFORTS[effort].rounds)
            prior_tables = priors_of(table, [Path(prior) for prior in priors], say)
            chooses = error is not None or seconds is not None or len(wanted_px) > MOST_MEASURED
            noun = "measuring blocks inside networks" if identity.blocks == IN_NETWORKS else "measuring blocks"
            with show_progress(noun) as progress:
                profiler = Profiler(table, space, EFFORTS[effort], connection, progress, prior_tables)
                if chooses and not measure_all:
                    wanted = EFFORTS[effort].error if error is None and seconds is None else error or 0.0
                    deadline = began + seconds if seconds is not None else math.inf
                    outcome = profiler.measure_until(wanted_px, wanted, deadline)
                else:
                    outcome = profiler.measure(wanted_px)
            _record(table, space, device, outcome, say)
            summary = summarise(table, space, wanted_px, outcome, finished, time.perf_counter() - started)
    return ProfileResult(path, summary, outcome)


def compare(
    path: str | Path,
    networks: int | str | Sequence[Architecture | Mapping[str, Any]] | None = 30,
    *,
    models: Sequence[ModelFile] = (),
    accuracies: Mapping[str, float] | None = None,
    calibrate: int | None = None,
    target: str | None = None,
    space: str | Space | None = None,
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
    say: Say = silent,
    show_progress: ShowProgress = no_progress,
) -> Comparison:
    """Measure whole networks in two passes and compare them with the prediction of the table at ``path``.

    ``networks`` are a number to draw, architectures, a file of them, "references", or None. ``models`` are model files
    (``read_model``), measured as references with the ``accuracies`` (0 to 1) that the user states by file name.
    ``calibrate`` further networks calibrate the table; None: 10 if fewer than 5 calibrate it now. Measurements and
    calibration are kept in the table. Networks that failed are in ``Comparison.failures``. Raises OfaError.
    """
    started = time.perf_counter()
    references = REFERENCES if networks == FAMILY else ()
    with LatencyTable.open(Path(path)) as table:
        space = _space(table, space)
        record(table, space)
        model = LatencyModel(table, space)
        tested, names = ([], []) if networks is None else _networks_to_test(networks, space, model)
        if calibrate is None:
            fitted = read_calibration(table, space)
            enough = fitted is not None and fitted.networks >= ENOUGH_CALIBRATION
            calibrate = 0 if references or enough or networks is None else FIRST_CALIBRATION
        if isinstance(tested, int) or calibrate:
            model.require()
        if not isinstance(tested, int):
            model.require({network.resolution_px for network in tested})
        drawn = replace(
            draw(model, space, tested, calibrate, seed),
            references=references,
            names={space.network(network).key: name for name, network in names},
            files=models,
            accuracies=accuracies or {},
        )
        if drawn.retired:
            say(_retired(drawn))
        device = find_again(table, target, settings or {})
        for file in models:
            require_reads(table.identity.runtime, file, table.command)
        with connect(device) as connection:
            comparison = _measured(table, space, drawn, device, connection, started, say, show_progress)
    return comparison


def default_resolutions(space: Space) -> tuple[int, ...]:
    """The resolutions of the published tables that the space has, else all of the space, in px."""
    return tuple(px for px in PUBLISHED_RESOLUTIONS_PX if px in space.resolutions_px) or space.resolutions_px


def _space(table: LatencyTable, space: str | Space | None) -> Space:
    if space is None:
        return fullest_space(table, spaces_of(table))
    return find_space_of(space, table) if isinstance(space, str) else space


def _identity(
    device: Target, description: dict[str, Any], wanted: str | None, settings: Settings, blocks: str | None, say: Say
) -> Identity:
    runtime = choose_runtime(device, wanted, description)
    version = description["runtimes"][runtime]
    if wanted is None:
        say(f"runtime: {runtime} {version}, the first available one that {device.name} prefers")
    blocks = blocks or (IN_NETWORKS if runtime in description["profiling_runtimes"] else ALONE)
    return Identity(device.name, description["fingerprint"], runtime, version, settings, blocks)


def _record(table: LatencyTable, space: Space, device: Target, outcome: Outcome, say: Say) -> None:
    """Refit the calibrations to the new latencies, and keep the conditions of the run."""
    for name in calibrations(table):
        try:
            of_name = space if space.name == name else find_space_of(name, table)
        except UsageError as error:  # such as a space that only Python code defines
            say(f"the calibration for {name} is as before, not fitted to the new latencies: {error}")
            continue
        Comparer(table, of_name).calibrate()
    record_conditions(table, device, outcome)
    if outcome.factors or outcome.set_aside:
        table.store.put("devices", list_devices(outcome))


def _networks_to_test(
    networks: int | str | Sequence[Architecture | Mapping[str, Any]], space: Space, model: LatencyModel
) -> tuple[int | list[Architecture], list[tuple[str, Architecture]]]:
    """The number of networks to draw, or the networks, and the names that their file gives them."""
    if networks == FAMILY:
        return [], []
    if isinstance(networks, str) and not networks.isdecimal():
        return read_networks(networks, space, model.resolutions_px)[0], read_names(networks, space)
    tested = int(networks) if isinstance(networks, int | str) else _members(networks, space, model)
    if not tested:
        raise UsageError("--networks 0 tests nothing; give a number or a file of architectures")
    return tested, []


def _members(
    networks: Sequence[Architecture | Mapping[str, Any] | str], space: Space, model: LatencyModel
) -> list[Architecture]:
    return [
        each if isinstance(each, Architecture) else architecture_in(each, space, model.resolutions_px)
        for each in networks
    ]


def _retired(drawn: Drawn) -> str:
    return (
        f"{drawn.retired} of these networks calibrated the table until now; as test networks they no longer do, and "
        "the calibration uses the others: --calibrate K measures K new calibration networks"
    )


def _measured(
    table: LatencyTable,
    space: Space,
    drawn: Drawn,
    device: Target,
    connection: Connection,
    started: float,
    say: Say,
    show_progress: ShowProgress,
) -> Comparison:
    connection.say = say
    description = connection.agent.describe()
    require_same(table, device, description)
    comparer = Comparer(table, space)
    with show_progress("measuring networks") as progress:
        outcome = comparer.measure(drawn, connection, progress)
    condition_after = connection.agent.describe()["condition"]
    comparison = comparer.compare(drawn, description, condition_after, time.perf_counter() - started)
    return replace(comparison, failures=dict(outcome.failures))
